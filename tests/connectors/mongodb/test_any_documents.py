"""Whatever documents a customer has, and whatever becomes of their collections: the mirror equals its source, or says
why not, and the application's writes never fail. Of the syncs, some are ended by a SIGKILL anywhere.

Ten databases; two hundred with CHURNGUARD_SOAK=1.
"""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from bson import Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, json_util
from bson.binary import Binary, UuidRepresentation
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from churnguard_pipelines.connectors.mongodb.documents import DECODING
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing import change_lane
from tests.connectors.dying import sync_that_dies
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.mongodb.conftest import Configure, Source
from tests.soak import SECONDS, SOAK
from tests.sources.mongodb import REAL

NOON = datetime(2024, 5, 1, 12)  # noqa: DTZ001  the driver's way to say UTC
UUID_VALUE = Binary.from_uuid(UUID(int=7), UuidRepresentation.STANDARD)
NAMES = ("users", "Order", "a b", "größe", "x" * 50, "a.b.c", "%s", 'q"q')
FIELDS = ("a", "b", "Name", "größe", "a b", "source_version", "deleted_at", "document", "xmin", "%s", 'q"q', "x" * 70)
SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, Int64(2**62), 0.5, -1e-7, 1e300, float("nan"), float("-inf"), "", "t ü", "a\tb\\n",
    "\\N", "5", "true", '{"$oid": 1}', NOON, ObjectId("0123456789abcdef01234567"), Decimal128("1.10"),
    Decimal128("NaN"), Decimal128("1E+6000"), b"\x00\xff", Binary(b"x", 5), UUID_VALUE, Regex("a.b", "i"),
    Timestamp(7, 1), Code("f()"), Code("f(x)", {"x": 1}), MinKey(), MaxKey(), DBRef("users", 1), "x" * 5000,
)  # fmt: skip
IDS: tuple[Any, ...] = (
    0, 1, -5, Int64(2**53 + 1), 0.5, "a", "ü b", "5", "true", "{}", "0123456789abcdef01234567",
    ObjectId("0123456789abcdef01234567"), {"a": 1, "b": "x"}, {"b": "x", "a": 1}, NOON, True, Decimal128("2.50"),
    b"\x01", UUID_VALUE, Timestamp(1, 1), *([None] if REAL else []),  # SecantusDB looks up no changed document by null
)  # fmt: skip
OPERATIONS = (
    "insert", "insert", "insert", "replace", "set", "set", "unset", "rename_field", "push", "delete", "delete_some",
    "drop", "rename", "rename_over", "begin_anew", "sync", "sync", "die",
)  # fmt: skip
_numbers = itertools.count(1)

values = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from((*FIELDS, "c.d")), inner, max_size=4),
    max_leaves=6,
)
documents = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)
steps = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(NAMES[:5]), st.sampled_from(IDS), documents),
    min_size=12, max_size=40,
)  # fmt: skip


@pytest.fixture(autouse=True)
def soon_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_lane, "QUIET", 0.3)


def write(source: Source, operation: str, name: str, key: Any, document: dict[str, Any], number: int) -> None:
    """What an application does; nothing of it may fail."""
    collection, field, other = source[name], FIELDS[number % 4], NAMES[4 + number % 4]
    match operation:
        case "insert" | "replace":
            collection.replace_one({"_id": {"$eq": key}}, document, upsert=operation == "insert")
            if operation == "insert":
                collection.insert_one({"_id": ObjectId(f"{number:024x}"), **document})
        case "set":
            collection.update_many({}, {"$set": {field: next(iter(document.values()), number)}})
        case "unset":
            collection.update_many({"_id": {"$ne": key}}, {"$unset": {field: 1}})
        case "rename_field":
            collection.update_many({}, {"$rename": {field: f"r{number}"}})
        case "push":
            collection.update_many({f"p{number}": None}, {"$push": {f"p{number}": {"$each": [number, document]}}})
        case "delete":
            collection.delete_one({"_id": {"$eq": key}})
        case "delete_some":
            collection.delete_many({field: {"$exists": True}})
        case "drop":
            collection.drop()
        case "begin_anew":
            collection.drop()
            collection.insert_one({"_id": number, **document})
        case "rename" | "rename_over":
            if name != other and name in source.list_collection_names():
                if operation == "rename":
                    source[other].drop()
                collection.rename(other, dropTarget=True)


def in_source(source: Source, name: str) -> Counter[str]:
    """Whole documents, as the driver's own relaxed JSON says them."""
    relaxed = json_util.RELAXED_JSON_OPTIONS
    found = source.get_collection(name, codec_options=DECODING.with_options(type_registry=None)).find()
    return Counter(normal(json_util.dumps(each, json_options=relaxed)) for each in found)


def normal(text: str) -> str:
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(SECONDS if SOAK else 900)
def test_the_mirror_equals_its_source_or_says_why_not(store: Store, register: Configure, source: Source) -> None:
    register(sync_mode="real_time")
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=200 if SOAK else 10, deadline=None, database=None, derandomize=not SOAK, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(steps=steps, deaths=st.lists(st.integers(1, 250), min_size=5, max_size=5))
    def holds(steps: list[tuple[str, str, Any, dict[str, Any]]], deaths: list[int]) -> None:
        for each in source.list_collection_names():
            source[each].drop()
        for operation, name, key, document in steps:
            number = next(_numbers)
            note(f"{operation} {name} {key!r} {document!r}")
            if operation == "sync":
                sync(store)
            elif operation == "die":
                outcomes["died" if sync_that_dies(store, deaths[number % 5]) else "lived"] += 1
            else:
                write(source, operation, name, key, document, number)
        sync(store)
        sync(store)  # what the one before found untold
        entries = catalogue.entries(store, "acme-db")
        for name in source.list_collection_names():
            problem = entries[name].problem
            note(f"{name}: {problem}")
            outcomes["stopped" if problem else "equal"] += 1
            if problem is None:
                table = entries[name].raw_table.removeprefix("mongodb_acme_db_")
                stored = Counter(normal(text) for (text,) in mirrored(store, table, "document"))
                assert stored == in_source(source, name)
        for name in entries.keys() - set(source.list_collection_names()):
            assert entries[name].problem is not None

    holds()
    assert outcomes["died"]
    assert outcomes["equal"] > 9 * outcomes["stopped"]
