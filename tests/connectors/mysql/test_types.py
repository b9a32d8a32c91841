"""Every type, value by value with its extremes, by both ways into a real PostgreSQL: copied in bulk, and by the log.

The matrix is that of docs/mysql.md, and a test holds the two together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.sql import SQL, Composable, Identifier
from pymysql.cursors import Cursor

from churnguard_pipelines.connectors.mysql import MySQL
from churnguard_pipelines.mirrors import SourceTable
from churnguard_pipelines.store.raw.copy_text import encode
from tests.connectors.mysql.conftest import BOTH, read_all, replayed, table

DOCUMENT = Path(__file__).parents[3] / "docs" / "mysql.md"
NO_DAY = (("'0000-00-00'", None), ("'2024-00-10'", None), ("'2024-02-00'", None), ("'2024-02-31'", None))


class Case(NamedTuple):
    """``values``: (in the source's SQL, PostgreSQL's text of what arrives). ``only``: the server that has it."""

    source: str
    warehouse: str
    values: tuple[tuple[str, str | None], ...]
    only: str | None = None


def same(*values: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"'{value}'", value) for value in values)


CASES = (
    Case("tinyint", "smallint", same("-128", "127")),
    Case("tinyint(1)", "smallint", same("0", "1", "-5")),
    Case("tinyint unsigned", "smallint", same("0", "255")),
    Case("smallint", "smallint", same("-32768", "32767")),
    Case("smallint unsigned", "integer", same("0", "65535")),
    Case("mediumint", "integer", same("-8388608", "8388607")),
    Case("mediumint unsigned", "integer", same("16777215")),
    Case("int", "integer", same("-2147483648", "2147483647")),
    Case("int unsigned", "bigint", same("4294967295")),
    Case("int(6) unsigned zerofill", "bigint", same("42")),
    Case("bigint", "bigint", same("-9223372036854775808", "9223372036854775807")),
    Case("bigint unsigned", "numeric(20,0)", same("0", "18446744073709551615")),
    Case("decimal(12,2)", "numeric(12,2)", same("-9999999999.99", "0.01", "0.00", "-0.50")),
    Case("decimal(65,30)", "numeric(65,30)", same("-" + "9" * 35 + "." + "9" * 30, "0." + "0" * 29 + "1")),
    Case("decimal(9,0)", "numeric(9,0)", same("-999999999", "0")),
    Case("float", "real", same("0.1", "3.4028235e+38", "-1e-38", "1.6777216e+07")),
    Case("double", "double precision",
         same("0.1", "-1.2345678901234567e-12", "-0.0012345678901234567", "1.7976931348623157e+308",
              "-2.2250738585072014e-308")),
    Case("bit(1)", "boolean", (("b'0'", "false"), ("b'1'", "true"))),
    Case("bit(5)", "bit varying", (("b'00101'", "00101"), ("b'0'", "00000"))),
    Case("bit(64)", "bit varying", ((f"b'{'1' * 64}'", "1" * 64),)),
    Case("date", "date", (*same("1000-01-01", "9999-12-31", "2024-02-29"), ("'0000-01-01'", "0001-01-01 BC"), *NO_DAY)),
    Case("datetime", "timestamp without time zone", (*same("9999-12-31 23:59:59", "2024-02-29 00:00:00"), *NO_DAY)),
    Case("datetime(6)", "timestamp without time zone",
         (*same("2024-01-01 10:00:00.123456", "1000-01-01 00:00:00.000001"),
          ("'0000-03-01 01:02:03'", "0001-03-01 01:02:03 BC"))),
    Case("timestamp(3)", "timestamp with time zone",
         (("'2024-07-01 12:00:00.120'", "2024-07-01 12:00:00.12+00"),
          ("'1970-01-01 00:00:01'", "1970-01-01 00:00:01+00"),
          ("'2038-01-19 03:14:07'", "2038-01-19 03:14:07+00"), ("'0000-00-00'", None))),
    Case("time", "interval", same("838:59:59", "-838:59:59", "00:00:00", "-00:00:01")),
    Case("time(6)", "interval", same("-838:59:58.999999", "00:00:00.000001", "-00:00:00.5", "-01:00:00")),
    Case("year", "smallint", (*same("1901", "2155"), ("'0'", "2000"), ("'0000'", "0"))),
    Case("char(5)", "text", same("ab", "\U0001f600", "")),
    Case("varchar(300)", "text",
         (*same("", "  ", "a\tb\nc\rd", "\x01\x1f\x7f", "漢" * 300),
         ("'\\\\N'", "\\N"), ("'a\\\\b'", "a\\b"),
         ("'it''s'", "it's"), ("'a\\0b'", "a\u2400b"))),
    Case("varchar(20) character set latin1", "text", (*same("é€", ""), ("x'81'", "\x81"))),
    Case("char(4) character set ucs2", "text", same("ünï")),
    Case("tinytext", "text", same("x" * 255)),
    Case("text", "text", same("\U0001f600 ünï 漢字", "x" * 60_000)),
    Case("mediumtext", "text", same("x" * 100_000)),
    Case("longtext", "text", same("x" * 100_000)),
    Case("binary(4)", "bytea", (("x'0100'", "\\x01000000"), ("x'5c4e0a09'", "\\x5c4e0a09"))),
    Case("varbinary(300)", "bytea", (("''", "\\x"), ("x'00ff00'", "\\x00ff00"),
         ("repeat('x', 300)", "\\x" + "78" * 300))),
    Case("blob", "bytea", (("repeat(x'00', 60000)", "\\x" + "00" * 60_000),)),
    Case("longblob", "bytea", (("x'5c78'", "\\x5c78"),)),
    Case("enum('sad','it''s fine','漢')", "text", (("'sad'", "sad"), ("'it''s fine'", "it's fine"),
         ("'漢'", "漢"), ("0", ""))),
    Case("set('a','b c','d\"e','NULL','f\\\\g')", "text[]",
         (("''", "{}"), ("'a,b c'", '{a,"b c"}'), ("31", '{a,"b c","d\\"e","NULL","f\\\\g"}'))),
    Case("json", "json", (('\'{"a": 1, "a": 2}\'', '{"a": 1, "a": 2}'),
         ("'\" \\\\u0000\"'", '" \\u0000"'), ("'[1.0,  2]'", "[1.0,  2]"),
         ("'[1.]'", '"[1.]"'), ("'{\"a\": \"\\\\x\"}'", '"{\\"a\\": \\"\\\\x\\"}"'),
         ("'-1.5e-7'", "-1.5e-7")), "mariadb"),
    Case("json", "jsonb", (('\'{"a": 1, "a": 2}\'', '{"a": 2}'), ("'\" \\\\u0000\"'", '" \u2400"'),
         ("'[1.0,  2, \"漢\", 18446744073709551615]'", '[1.0, 2, "漢", 18446744073709551615]')), "mysql"),
    Case("vector(3)", "bytea", (("string_to_vector('[1,2,3]')", "\\x0000803f0000004000004040"),), "mysql"),
    Case("point", "bytea", (("point(1, 2)", "\\x0101000000000000000000f03f0000000000000040"),)),
    Case("geometry", "bytea", (("st_geomfromtext('LINESTRING(0 0,1 1)', 4326)",
         "\\x01020000000200000000000000000000000000000000000000000000000000f03f000000000000f03f"),)),
    Case("uuid", "uuid", same("00112233-4455-6677-8899-aabbccddeeff", "ffffffff-ffff-ffff-ffff-ffffffffffff",
         "00000000-0000-0000-0000-000000000000", "01890a5d-ac96-774b-bcce-b302099a8057",
         "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
         "6ba7b810-9dad-11d1-00b4-00c04fd430c8", "6ba7b810-9dad-41d1-c0b4-00c04fd43000"), "mariadb"),
    Case("inet6", "inet", (("'::1'", "::1/128"), ("'2001:db8::ff00:42:8329'", "2001:db8::ff00:42:8329/128"),
         ("'::'", "::/128")), "mariadb"),
    Case("inet4", "inet", (("'1.2.3.4'", "1.2.3.4/32"), ("'10.0.0.0'", "10.0.0.0/32")), "mariadb"),
)  # fmt: skip


SERVERS = BOTH


@pytest.fixture
def cases(flavour: str) -> list[Case]:
    return [case for case in CASES if case.only in (None, flavour)]


@pytest.mark.parametrize("path", ["snapshot", "change log"])
def test_values_arrive_unaltered(
    connector: MySQL, source: Cursor, database_url: str, path: str, cases: list[Case]
) -> None:
    columns = ", ".join(f"c{place} {case.source} NULL" for place, case in enumerate(cases))
    source.execute(f"CREATE TABLE matrix (id int PRIMARY KEY, {columns}) CHARACTER SET utf8mb4")
    wanted = table(connector, "matrix")
    position = connector.begin_changes([wanted])
    expected = fill(source, cases)
    if path == "snapshot":
        with connector.snapshot([wanted], followed=True) as snapshot:
            data = b"".join(part for piece in snapshot.pieces(wanted, None) for part in snapshot.copy(wanted, piece))
    else:
        with connector.changes([wanted], position) as log:
            changes, _ = read_all(log)
        rows = replayed(changes, wanted, {})
        data = encode([(1, *row) for row in rows.values()], ())
    stored = store(database_url, wanted, data)
    assert stored.keys() == expected.keys()
    differ = {
        (cases[place].source, value, stored[key][place])
        for key, (place, value) in expected.items()
        if [each for each in stored[key] if each is not None] != ([] if value is None else [value])
    }
    assert not differ


def test_no_type_moves_what_is_told_of_the_columns_after_it(
    connector: MySQL, source: Cursor, cases: list[Case]
) -> None:
    """A log tells signs, charsets and labels only of the columns that the server counts as numbers (a YEAR too), as
    characters or as labels."""
    for place, case in enumerate(cases):
        after = (
            "m tinyint, u tinyint unsigned, n smallint, g varchar(9) CHARACTER SET greek, c text CHARACTER SET cp1251, "
            "e enum('б') CHARACTER SET koi8r, s set('é') CHARACTER SET latin1"
        )
        source.execute(f"CREATE TABLE t{place} (id int PRIMARY KEY, x {case.source} NULL, {after})")
    wanted = list(connector.discover())
    position = connector.begin_changes(wanted)
    for place in range(len(cases)):
        source.execute(f"INSERT INTO t{place} VALUES (1, NULL, -1, 255, -1, 'α', 'б', 'б', 'é')")
    with connector.changes(wanted, position) as log:
        arrived = {change.object: change.values for change in read_all(log)[0] if change.kind == "upsert"}
    told = ("1", None, "-1", "255", "-1", "α", "б", "б", '{"é"}')
    assert arrived == {f"t{place}": told for place in range(len(cases))}


def test_the_types_are_those_of_the_matrix(connector: MySQL, source: Cursor, cases: list[Case]) -> None:
    columns = ", ".join(f"c{place} {case.source} NULL" for place, case in enumerate(cases))
    source.execute(f"CREATE TABLE matrix (id int PRIMARY KEY, {columns})")
    assert [str(column.type) for column in table(connector, "matrix").columns[1:]] == [case.warehouse for case in cases]


def test_the_document_has_this_matrix() -> None:
    told = {
        tuple(cell.strip(" `") for cell in line.strip("|").split("|")[:2])
        for line in DOCUMENT.read_text().partition("## Types")[2].splitlines()
        if line.startswith("| `")
    }
    shown = {"enum('sad','it''s fine','漢')": "enum", "set('a','b c','d\"e','NULL','f\\\\g')": "set"}
    assert told == {(shown.get(case.source, case.source), case.warehouse) for case in CASES}


def fill(source: Cursor, cases: list[Case]) -> dict[int, tuple[int, str | None]]:
    """A row per value, the other columns null; by key: the column's place, and what should arrive."""
    source.execute("SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
    expected: dict[int, tuple[int, str | None]] = {}
    for place, case in enumerate(cases):
        for written, arrives in case.values:
            key = len(expected) + 1
            source.execute(f"INSERT INTO matrix (id, c{place}) VALUES ({key}, {written})")
            expected[key] = place, arrives
    return expected


def store(database_url: str, wanted: SourceTable, data: bytes) -> dict[int, tuple[Any, ...]]:
    """PostgreSQL's text of the rows, by key."""
    columns: list[Composable] = [SQL("source_version bigint")]
    columns += [SQL("{} {}").format(Identifier(column.name), column.type.sql) for column in wanted.columns]
    listed = SQL(", ").join(SQL("{}::text").format(Identifier(column.name)) for column in wanted.columns[1:])
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        connection.execute(SQL("CREATE TEMPORARY TABLE matrix ({})").format(SQL(", ").join(columns)))
        with connection.cursor().copy("COPY matrix FROM STDIN") as copy:
            copy.write(data)
        return {row[0]: row[1:] for row in connection.execute(SQL("SELECT id, {} FROM matrix").format(listed))}
