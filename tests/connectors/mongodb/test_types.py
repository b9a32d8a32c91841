"""Every BSON type, value by value with its extremes, by both ways: copied in bulk, and told by the change stream.

The matrix is that of docs/mongodb.md, and a test holds the two together.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psycopg
import pytest
from bson import (
    Binary,
    Code,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
    decode,
    encode,
)
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.connectors.mongodb.documents import DECODING, Rows
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import SourceColumn, SourceTable
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.mongodb.conftest import Configure, Source

DOCUMENT = Path(__file__).parents[3] / "docs" / "mongodb.md"
MOMENT = datetime(2024, 2, 29, 12, 30, 0, 123_000)  # noqa: DTZ001  the driver's way to say UTC
OBJECT_ID = ObjectId("507f1f77bcf86cd799439011")
DEEP: Any = 1
for _ in range(95):
    DEEP = {"a": DEEP}


class Case(NamedTuple):
    """``values``: what is stored, what its column says as text, and what the document says."""

    source: str
    warehouse: str
    values: tuple[tuple[Any, str | None, Any], ...]


def shown(number: str) -> dict[str, str]:
    return {"$numberDouble": number}


CASES = (
    Case("bool", "boolean", ((True, "true", True), (False, "false", False))),
    Case("int", "bigint", ((-(2**31), "-2147483648", -(2**31)), (2**31 - 1, "2147483647", 2**31 - 1))),
    Case("long", "bigint",
         ((Int64(-(2**63)), "-9223372036854775808", -(2**63)), (Int64(2**63 - 1), "9223372036854775807", 2**63 - 1))),
    Case("double", "double precision",
         ((1.5, "1.5", 1.5), (float("nan"), "NaN", shown("NaN")), (float("inf"), "Infinity", shown("Infinity")),
          (float("-inf"), "-Infinity", shown("-Infinity")), (1.7976931348623157e308, "1.7976931348623157e+308",
           17976931348623157 * 10**292), (5e-324, "5e-324", 5e-324))),
    Case("decimal", "numeric",
         ((Decimal128("1.10"), "1.10", {"$numberDecimal": "1.10"}),
          (Decimal128("1234567890123456789012345678.901234"), "1234567890123456789012345678.901234",
           {"$numberDecimal": "1234567890123456789012345678.901234"}),
          (Decimal128("1E+6144"), "1" + "0" * 6144, {"$numberDecimal": "1.000000000000000000000000000000000E+6144"}),
          (Decimal128("NaN"), "NaN", {"$numberDecimal": "NaN"}),
          (Decimal128("sNaN"), "NaN", {"$numberDecimal": "NaN"}),
          (Decimal128("-Infinity"), "-Infinity", {"$numberDecimal": "-Infinity"}))),
    Case("string", "text",
         (("", "", ""), ("a\tb\nc\rd\\e\\N", "a\tb\nc\rd\\e\\N", "a\tb\nc\rd\\e\\N"),
          ("\U0001f600 ünï 漢字", "\U0001f600 ünï 漢字", "\U0001f600 ünï 漢字"), ("a\0b", "a␀b", "a␀b"),
          ("\\u0000", "\\u0000", "\\u0000"), ("\x1d\x1e\x1f", "\x1d\x1e\x1f", "\x1d\x1e\x1f"))),
    Case("date", "timestamp with time zone",
         ((MOMENT, "2024-02-29 12:30:00.123+00", {"$date": "2024-02-29T12:30:00.123Z"}),
          (DatetimeMS(-62135596800000), "0001-01-01 00:00:00+00", {"$date": {"$numberLong": "-62135596800000"}}))),
    Case("objectId", "text", ((OBJECT_ID, str(OBJECT_ID), {"$oid": str(OBJECT_ID)}),)),
    Case("uuid", "uuid",
         ((Binary.from_uuid(uuid.UUID(int=1)), str(uuid.UUID(int=1)),
           {"$binary": {"base64": "AAAAAAAAAAAAAAAAAAAAAQ==", "subType": "04"}}),)),
    Case("binData", "bytea",
         ((b"", "\\x", {"$binary": {"base64": "", "subType": "00"}}),
          (b"\x00\xff\\", "\\x00ff5c", {"$binary": {"base64": "AP9c", "subType": "00"}}),
          (Binary(b"\x01" * 16, 3), "\\x" + "01" * 16,
           {"$binary": {"base64": "AQEBAQEBAQEBAQEBAQEBAQ==", "subType": "03"}}))),
    Case("regex", "text",
         ((Regex("^a/b", "im"), "/^a/b/im", {"$regularExpression": {"pattern": "^a/b", "options": "im"}}),)),
    Case("javascript", "text", ((Code("f()"), "f()", {"$code": "f()"}),)),
    Case("timestamp", "text", ((Timestamp(2**32 - 1, 7), "4294967295:7", {"$timestamp": {"t": 2**32 - 1, "i": 7}}),)),
    Case("object", "jsonb",
         (({}, "{}", {}), ({"a": {"b": [None, 1, "\0"]}}, '{"a": {"b": [null, 1, "␀"]}}', {"a": {"b": [None, 1, "␀"]}}),
          (DEEP, str(DEEP).replace("'", '"'), DEEP),
          (DBRef("users", OBJECT_ID), f'{{"$id": {{"$oid": "{OBJECT_ID}"}}, "$ref": "users"}}',
           {"$ref": "users", "$id": {"$oid": str(OBJECT_ID)}}))),
    Case("array", "jsonb",
         (([], "[]", []), ([float("nan"), Code("x")], '[{"$numberDouble": "NaN"}, {"$code": "x"}]',
                           [shown("NaN"), {"$code": "x"}]))),
    Case("minKey", "jsonb", ((MinKey(), '{"$minKey": 1}', {"$minKey": 1}),)),
    Case("maxKey", "jsonb", ((MaxKey(), '{"$maxKey": 1}', {"$maxKey": 1}),)),
    Case("decimal, double, int", "numeric",
         ((1, "1", 1), (0.1, "0.1", 0.1), (float("inf"), "Infinity", shown("Infinity")),
          (Decimal128("7.00"), "7.00", {"$numberDecimal": "7.00"}))),
    Case("int, string", "jsonb", ((1, "1", 1), ("a\0", '"a␀"', "a␀"))),
)  # fmt: skip

FAR_DATES = (
    (-62135596800001, "0001-12-31 23:59:59.999+00 BC"),
    (-210866803200000, "4714-11-24 00:00:00+00 BC"),
    (253402300800000, "10000-01-01 00:00:00+00"),
    (9224318015999999, "294276-12-31 23:59:59.999+00"),
    (9224318016000000, None),
    (-(2**63), None),
    (2**63 - 1, None),
)  # milliseconds since 1970; SecantusDB refuses to store them


@pytest.mark.parametrize("path", ["snapshot", "change log"])
def test_values_arrive_unaltered(store: Store, register: Configure, source: Source, path: str) -> None:
    if path == "change log":
        fill(source)  # to be discovered; and all of it is written once more
    register(sync_mode="real_time")
    if path == "snapshot":
        fill(source)
    report = sync(store)
    if path == "change log":
        source.matrix.delete_many({})
        fill(source, "again")
        report = sync(store)
    assert statuses(report) == {"matrix": "succeeded"}, report.objects["matrix"].error
    assert types_in_the_warehouse(store) == {f"c{place}": case.warehouse for place, case in enumerate(CASES)}
    found = in_the_warehouse(store)
    for place, case in enumerate(CASES):
        for number, (value, column, whole) in enumerate(case.values):
            row, document = found.pop(f"{'again' if path == 'change log' else ''}{place}-{number}")
            assert row[place] == column, f"{case.source}: {value!r}"
            assert document[f"c{place}"] == whole, f"{case.source}: {value!r}"
            assert [each for each in row if each is not None] == ([] if column is None else [column])
    assert not found


def test_the_document_has_this_matrix() -> None:
    told = {
        tuple(cell.strip(" `") for cell in line.strip("|").split("|")[:2])
        for line in DOCUMENT.read_text().partition("## Types")[2].splitlines()
        if line.startswith("| `")
    }
    assert told == {(case.source, case.warehouse) for case in CASES}


@pytest.mark.parametrize(("milliseconds", "column"), FAR_DATES)
def test_dates_that_python_does_not_know(database_url: str, milliseconds: int, column: str | None) -> None:
    table = SourceTable(
        "t", (SourceColumn("_id", MirrorType(Base.TEXT), "_id"),
              SourceColumn("at", MirrorType(Base.TIMESTAMPTZ), "date"),
              SourceColumn("document", MirrorType(Base.JSONB), "document")), ("_id",),
    )  # fmt: skip
    rows = Rows(table, lambda file: None)
    document = decode(encode({"_id": "a", "at": DatetimeMS(milliseconds)}), DECODING)
    with psycopg.connect(database_url) as connection:
        connection.execute("SET timezone = 'UTC'")
        connection.execute("CREATE TEMPORARY TABLE t (version bigint, _id text, at timestamptz, document jsonb)")
        with connection.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
            copy.write(rows.copied(1, [rows.values(document)]))
        found = connection.execute("SELECT version, _id, at::text, document FROM t").fetchone()
    assert found == (1, "a", column, {"_id": "a", "at": {"$date": {"$numberLong": str(milliseconds)}}})


def test_keys_of_every_type_are_told_apart(store: Store, register: Configure, source: Source) -> None:
    keys: dict[str, Any] = {
        str(OBJECT_ID): OBJECT_ID,
        f'"{OBJECT_ID}"': str(OBJECT_ID),
        "plain": "plain",
        "12": 12,
        '"12"': "12",
        "007": "007",
        "-9223372036854775808": Int64(-(2**63)),
        "2.5": 2.5,
        "-3": -3.0,
        "1e+23": 1e23,
        '"1e+23"': "1e+23",
        '{"$numberDecimal":"7.00"}': Decimal128("7.00"),
        "true": True,
        '"true"': "true",
        '"{a"': "{a",
        '"a\\u0000b"': "a\0b",
        '{"b":{"$numberInt":"1"},"a":{"$numberInt":"2"}}': {"b": 1, "a": 2},
        '{"a":{"$numberInt":"2"},"b":{"$numberInt":"1"}}': {"a": 2, "b": 1},
        '{"$date":{"$numberLong":"1709209800123"}}': MOMENT,
        '{"$minKey":1}': MinKey(),
    }
    source.things.insert_many([{"_id": value, "n": 1} for value in keys.values()])
    register(sync_mode="real_time")
    sync(store)
    assert mirrored(store, "things", "_id") == sorted(((text,) for text in keys), key=repr)
    source.things.update_many({}, {"$set": {"n": 2}})
    source.things.delete_one({"_id": str(OBJECT_ID)})
    sync(store)
    del keys[f'"{OBJECT_ID}"']
    assert mirrored(store, "things", "_id", "n") == sorted(((text, "2") for text in keys), key=repr)


def test_what_does_not_fit_its_column_stays_in_the_document(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_many([{"n": n, "at": MOMENT, "name": "x"} for n in range(500)])
    register()
    sync(store)
    half = source.users.find_one(sort=[("_id", 1)], skip=250)
    assert half is not None
    source.users.update_one({"_id": half["_id"]}, {"$set": {"n": [1], "new": True}})
    sync(store)
    assert (str(half["_id"]), None, "x") in mirrored(store, "users", "_id", "n", "name")
    assert [row for row in mirrored(store, "users", "document") if orjson.loads(row[0])["n"] == [1]]


@given(
    st.one_of(
        st.builds(Decimal128.from_bid, st.binary(min_size=16, max_size=16)),
        st.builds(
            lambda negative, significand, exponent: Decimal128(f"{'-' * negative}{significand}E{exponent}"),
            st.booleans(), st.integers(0, 10**34 - 1) | st.integers(0, 10**6), st.integers(-45, 5),
        ),
    )
)  # fmt: skip
def test_any_decimal_is_the_number_that_the_driver_says(value: Decimal128) -> None:
    table = SourceTable(
        "users",
        (SourceColumn("_id", MirrorType(Base.TEXT), "_id"), SourceColumn("n", MirrorType(Base.NUMERIC), "decimal")),
        ("_id",),
    )
    _, number, document = Rows(table, lambda _: None).values({"_id": 1, "n": value})
    assert number == ("NaN" if "NaN" in str(value) else str(value))
    assert orjson.loads(document)["n"] == {"$numberDecimal": str(value)}


def test_fields_that_can_be_no_column_stay_in_the_document(store: Store, register: Configure, source: Source) -> None:
    long, full = "n" * 64, "ü" * 31
    source.users.insert_one({"_id": "a", "": 1, long: 2, full: 3, "document": "own", "synced_at": "own", "a b": 4})
    register()
    report = sync(store)
    assert statuses(report) == {"users": "succeeded"}, report.objects["users"].error
    [(synced, blank, document)] = mirrored(store, "users", "source_synced_at", "a b", "document")
    assert (synced, blank) == ("own", "4")
    assert orjson.loads(document) == {
        "_id": "a", "": 1, long: 2, full: 3, "document": "own", "synced_at": "own", "a b": 4,
    }  # fmt: skip
    assert mirrored(store, "users", full) == [("3",)]


def test_empty_and_very_large_documents(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_one({"_id": "empty"})
    source.users.insert_one({"_id": "large", "text": "y" * (16 * 2**20 - 60)})
    source.nothing.insert_one({"_id": 1})
    source.nothing.delete_one({"_id": 1})
    register()
    sync(store)
    found = dict(mirrored(store, "users", "_id", "text"))
    assert found["empty"] is None
    assert len(found["large"]) == 16 * 2**20 - 60
    assert mirrored(store, "nothing", "_id", "document") == []


def fill(source: Source, prefix: str = "") -> None:
    """A document per value, with this field only."""
    for place, case in enumerate(CASES):
        for number, (value, _, _) in enumerate(case.values):
            source.matrix.insert_one({"_id": f"{prefix}{place}-{number}", f"c{place}": value})


def in_the_warehouse(store: Store) -> dict[str, tuple[tuple[str | None, ...], Any]]:
    listed = ", ".join(f"c{place}::text" for place in range(len(CASES)))
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        rows = connection.execute(
            f"SELECT _id, document, {listed} FROM raw.mongodb_acme_db_matrix WHERE deleted_at IS NULL", []
        )
        return {key: (tuple(values), document) for key, document, *values in rows}


def types_in_the_warehouse(store: Store) -> dict[str, str]:
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        return dict(
            connection.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = 'raw.mongodb_acme_db_matrix'::regclass AND attname ~ '^c[0-9]+$'"
            ).fetchall()
        )
