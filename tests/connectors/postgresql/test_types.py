"""Every type, value by value with its extremes, by both ways: copied in bulk, and told by the change log.

The matrix is that of docs/postgresql.md, and a test holds the two together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import sync
from tests.connectors.postgresql.conftest import Register

DOCUMENT = Path(__file__).parents[3] / "docs" / "postgresql.md"
Source = psycopg.Connection[Any]


class Case(NamedTuple):
    source: str
    warehouse: str
    values: tuple[str, ...]


CASES = (
    Case("smallint", "smallint", ("-32768", "32767")),
    Case("integer", "integer", ("-2147483648", "2147483647")),
    Case("bigint", "bigint", ("-9223372036854775808", "9223372036854775807")),
    Case("numeric(12,2)", "numeric(12,2)", ("-9999999999.99", "0.01", "NaN")),
    Case("numeric", "numeric", ("NaN", "Infinity", "-Infinity", "1" + "0" * 300, "0." + "0" * 300 + "1", "1.10")),
    Case("real", "real", ("NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45", "-0")),
    Case("double precision", "double precision", ("NaN", "-Infinity", "1.7976931348623157e308", "5e-324")),
    Case("money", "text", ("-92233720368547758.08", "12.34")),
    Case("boolean", "boolean", ("true", "false")),
    Case("text", "text", ("", "  ", "\\N", "a\tb\nc\rd\\e", "\U0001f600 ünï 漢字", "\x01\x1f\x7f", "x" * 100_000)),
    Case("character varying(10)", "text", ("", "漢字" * 5)),
    Case("character(5)", "text", ("ab", "漢")),
    Case("name", "text", ("a_name",)),
    Case("bytea", "bytea", ("\\x", "\\x00ff00", "\\x5c4e0a09")),
    Case("uuid", "uuid", ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff")),
    Case("date", "date", ("4713-01-01 BC", "5874897-12-31", "infinity", "-infinity", "2024-02-29")),
    Case("timestamp with time zone", "timestamp with time zone",
         ("4713-01-01 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "infinity", "-infinity")),
    Case("timestamp without time zone", "timestamp without time zone", ("0001-01-01", "infinity")),
    Case("time without time zone", "time without time zone", ("00:00:00", "24:00:00", "23:59:59.999999")),
    Case("time with time zone", "time with time zone", ("00:00:00+15:59", "24:00:00-15:59")),
    Case("interval", "interval", ("178000000 years", "-1 mon 2 days -03:00:00.000001", "00:00:00", "infinity")),
    Case("json", "json", ('{"a": 1, "a": 2}', '" \\u0000"', "null", "[1.0,  2]")),
    Case("jsonb", "jsonb", ('{"b": [1, null, {"c": "ü"}]}', '"\\ud83d\\ude00"', "null", "1e400")),
    Case("inet", "inet", ("::1/128", "10.0.0.0/8")),
    Case("cidr", "cidr", ("2001:db8::/32",)),
    Case("macaddr", "macaddr", ("08:00:2b:01:02:03",)),
    Case("bit(4)", "bit varying", ("1010",)),
    Case("bit varying", "bit varying", ("", "10101")),
    Case("point", "point", ("(1.5,-2e300)",)),
    Case("polygon", "polygon", ("((0,0),(1,1),(1,0))",)),
    Case("int4range", "int4range", ("empty", "[1,10)", "(,)")),
    Case("tstzrange", "tstzrange", ("[2024-01-01 00:00+00,infinity)",)),
    Case("int8multirange", "int8multirange", ("{}", "{[1,3),[5,)}")),
    Case("tsvector", "tsvector", ("'fat':2 'rat':3A",)),
    Case("oid", "oid", ("4294967295",)),
    Case("regclass", "text", ("pg_class",)),
    Case("pg_lsn", "pg_lsn", ("FFFFFFFF/FFFFFFFF",)),
    Case("integer[]", "integer[]", ("{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[5:6]={1,2}")),
    Case("text[]", "text[]", ("{}", '{a,"b,c",NULL,"NULL","\\\\N","\t"}')),
    Case("character varying(5)[]", "text[]", ("{ab,漢}",)),
    Case("numeric(8,2)[]", "numeric(8,2)[]", ("{1.00,NULL,NaN}",)),
    Case("jsonb[]", "jsonb[]", ('{"{\\"a\\": 1}",NULL}',)),
    Case("a_mood", "text", ("sad", "it's fine")),
    Case("a_mood[]", "text[]", ("{sad,NULL}",)),
    Case("an_email", "text", ("a@b",)),
    Case("a_pair", "text", ("(1,x)", "(,)")),
    Case("a_range", "text", ("[1,2]",)),
)  # fmt: skip

OWN_TYPES = """
CREATE TYPE a_mood AS ENUM ('sad', 'it''s fine'); CREATE DOMAIN an_email AS varchar(80) CHECK (VALUE LIKE '%@%');
CREATE TYPE a_pair AS (a int, b text); CREATE TYPE a_range AS RANGE (subtype = float8);
"""


@pytest.mark.parametrize("path", ["snapshot", "change log"])
def test_values_arrive_unaltered(store: Store, register: Register, source: Source, path: str) -> None:
    source.execute(OWN_TYPES)
    source.execute(f"CREATE TABLE matrix (id int PRIMARY KEY, {', '.join(columns())})")
    source.execute("INSERT INTO matrix (id) VALUES (1)")
    register(sync_mode="real_time")
    if path == "snapshot":
        fill(source)
    report = sync(store)
    if path == "change log":
        fill(source)
        report = sync(store)
    assert statuses(report) == {"matrix": "succeeded"}, report.objects["matrix"].error
    assert types_in_the_warehouse(store) == {f"c{place}": case.warehouse for place, case in enumerate(CASES)}
    theirs, ours = rows(source, "matrix"), rows_in_the_warehouse(store)
    assert theirs.keys() == ours.keys()
    for place, case in enumerate(CASES):
        for key in theirs:
            assert ours[key][place] == theirs[key][place], f"{case.source}, row {key}"


def test_the_document_has_this_matrix() -> None:
    told = {
        tuple(cell.strip(" `") for cell in line.strip("|").split("|")[:2])
        for line in DOCUMENT.read_text().partition("## Types")[2].splitlines()
        if line.startswith("| `")
    }
    own = {
        "a_mood": "enum",
        "a_mood[]": "enum[]",
        "an_email": "domain over varchar",
        "a_pair": "composite",
        "a_range": "own range",
    }
    assert told == {(own.get(case.source, case.source), case.warehouse) for case in CASES}


def columns() -> list[str]:
    return [f"c{place} {case.source}" for place, case in enumerate(CASES)]


def fill(source: Source) -> None:
    """A row per value, the other columns null."""
    key = 10
    for place, case in enumerate(CASES):
        for value in case.values:
            key += 1
            source.execute(f"INSERT INTO matrix (id, c{place}) VALUES ({key}, %s::text::{case.source})", [value])


def rows(connection: Source, table: str) -> dict[int, tuple[Any, ...]]:
    connection.execute("SET timezone = 'UTC'")
    # Its output, not a cast: that would cut the blanks of a `character`.
    listed = ", ".join(f"CASE WHEN num_nulls(c{n}) = 0 THEN format('%%s', c{n}) END" for n in range(len(CASES)))
    return {row[0]: row[1:] for row in connection.execute(f"SELECT id, {listed} FROM {table}", [])}


def rows_in_the_warehouse(store: Store) -> dict[int, tuple[Any, ...]]:
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        return rows(connection, "raw.postgresql_acme_db_matrix")


def types_in_the_warehouse(store: Store) -> dict[str, str]:
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        return dict(
            connection.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = 'raw.postgresql_acme_db_matrix'::regclass AND attname ~ '^c[0-9]'"
            ).fetchall()
        )
