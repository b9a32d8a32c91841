"""Whatever tables a customer has, and whatever is done to them in mid-stream: the mirror equals its source, or says why
not, and the application's writes never fail. Of the syncs, some are ended by a SIGKILL anywhere.

Ten schemas on each server, two hundred with CHURNGUARD_SOAK=1.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier
from pymysql.cursors import Cursor

from churnguard_pipelines.connectors.mysql import MySQL
from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.mirroring import mirror_of
from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.dying import sync_that_dies
from tests.connectors.mysql.conftest import BOTH, integration
from tests.soak import SECONDS, SOAK
from tests.sources.mariadb import MariaDBServer

SERVERS = BOTH
_numbers = itertools.count(1)

TYPES: dict[str, tuple[str, ...]] = {
    "tinyint": ("-128", "0", "1"), "int unsigned": ("0", "4294967295"), "bigint": ("-9223372036854775808", "7"),
    "decimal(12,4)": ("1.2345", "-99999999.9999"), "double": ("0.1", "1e300"), "float": ("0.5", "-2e20"),
    "bit(1)": ("b'0'", "b'1'"), "bit(9)": ("b'101'", "0"), "year": ("1999", "0"),
    "date": ("'2024-02-29'", "'0000-00-00'"), "datetime(3)": ("'2024-01-02 03:04:05.678'", "'1000-01-01'"),
    "timestamp(6) NULL": ("'2024-07-01 12:00:00.12'", "'1970-01-02'"), "time(2)": ("'-838:59:59'", "'01:02:03.45'"),
    "varchar(40)": ("''", "'a\\tb\\\\n'", "'漢字'", "'  x '"), "char(7) CHARACTER SET latin1": ("'é€'", "'a '"),
    "varchar(20) CHARACTER SET euckr": ("'가나'", "'a'"), "varchar(20) CHARACTER SET sjis": ("'日本'", "'\\\\'"),
    "varchar(20) CHARACTER SET cp866": ("'Ж'", "'q'"), "text": ("'x'", "REPEAT('ü', 900)"),
    "varbinary(9)": ("x'00ff0a'", "x''"), "binary(3)": ("x'01'", "x'010203'"), "blob": ("x'5c4e'", "REPEAT('z', 300)"),
    "enum('a','b''c','漢')": ("'a'", "'漢'", "NULL"), "set('x','y z','w')": ("'x,w'", "''"),
    "json": ("'{\"a\": [1, null]}'", "'\"x\"'", "'12'"), "point": ("POINT(1, 2)", "NULL"),
}  # fmt: skip
KEYS = ("int", "bigint unsigned", "varchar(30)", "varbinary(30)", "decimal(9,0)", "char(12) CHARACTER SET latin1")
NAMES = (
    "a", "b", "Order", "select", "xmin", "ctid", "größe", "a b", "source_row", "source_version", "b`c", "%s", "x" * 63,
)  # fmt: skip
OPERATIONS = (
    "insert", "update", "delete", "move", "add", "drop", "modify", "retype", "rename", "index", "truncate", "swap",
    "empty",
)  # fmt: skip
TABLES, ROUNDS = 5, 3


class Schema(NamedTuple):
    """``key``: types of its columns. ``columns``: types by name. ``generated``: it has a column that is computed."""

    key: list[str]
    columns: dict[str, str]
    generated: bool
    partitioned: bool


History = tuple[Schema, list[tuple[str, int, int]]]
"""A table, and what is done to it: an operation, and two numbers that choose of what."""


@st.composite
def histories(draw: st.DrawFn) -> History:
    key = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=True))
    columns = {name: draw(st.sampled_from(sorted(TYPES))) for name in names}
    number = st.integers(0, 99)
    partitioned = draw(st.booleans()) and "point" not in columns.values()  # which partitions cannot hold
    schema = Schema(key, columns, draw(st.booleans()), partitioned)
    operations = draw(st.permutations(OPERATIONS)) + draw(st.lists(st.sampled_from(OPERATIONS), max_size=15))
    return schema, [(each, draw(number) + place, draw(number) + 5 * place) for place, each in enumerate(operations)]


class Application:
    """It writes; an error is its own only where the table is away for the moment of a swap."""

    def __init__(self, source: Cursor, name: str, schema: Schema) -> None:
        self._source, self._name = source, name
        self._key, self._columns = schema.key, dict(schema.columns)
        self._partitioned = schema.partitioned
        self._added = itertools.count(1)
        keys = [f"k{place}" for place in range(len(self._key))]
        listed = [f"{name} {kind} NOT NULL" for name, kind in zip(keys, self._key, strict=True)]
        listed += [f"{quoted(column)} {kind}" for column, kind in self._columns.items()]
        listed += ["computed bigint AS (CHAR_LENGTH(RTRIM(k0)) * 2) STORED"] if schema.generated else []
        parts = " PARTITION BY KEY () PARTITIONS 3" if schema.partitioned else ""
        made = f"{', '.join(listed)}, PRIMARY KEY ({', '.join(keys)})"
        self._do(f"CREATE TABLE {name} ({made}) CHARACTER SET utf8mb4{parts}")
        for number in range(6):
            self.insert(number, number)

    def insert(self, one: int, other: int) -> None:
        names = [*(f"k{place}" for place in range(len(self._key))), *map(quoted, self._columns)]
        values = [*self._keys(one), *(_chosen(TYPES[kind], other) for kind in self._columns.values())]
        self._do(f"REPLACE INTO {self._name} ({', '.join(names)}) VALUES ({', '.join(values)})")

    def update(self, one: int, other: int) -> None:
        if self._columns:
            column = _chosen(list(self._columns), one)
            value = _chosen(TYPES[self._columns[column]], other)
            self._do(f"UPDATE {self._name} SET {quoted(column)} = {value} WHERE k0 {'=' if one % 2 else '<='} {other}")

    def delete(self, one: int, other: int) -> None:
        self._do(f"DELETE FROM {self._name} WHERE k0 = '{one % 7}'")

    def move(self, one: int, other: int) -> None:
        self._do(f"UPDATE IGNORE {self._name} SET k0 = '{other}' WHERE k0 = '{one % 7}'")

    def add(self, one: int, other: int) -> None:
        kind = _chosen(sorted(TYPES.keys() - ({"point"} if self._partitioned else set())), one)
        name = f"n{next(self._added)}" if other % 2 else _chosen(NAMES, other)
        if name not in self._columns:
            place = " FIRST" if other % 3 == 0 else ""
            self._do(f"ALTER TABLE {self._name} ADD COLUMN {quoted(name)} {kind}{place}")
            self._columns[name] = kind

    def drop(self, one: int, other: int) -> None:
        if self._columns:
            name = _chosen(list(self._columns), one)
            self._do(f"ALTER TABLE {self._name} DROP COLUMN {quoted(name)}")
            del self._columns[name]

    def modify(self, one: int, other: int) -> None:
        """To a narrower or a wider type of its kind."""
        for before, after in (("decimal(12,4)", "decimal(12,1)"), ("tinyint", "bigint"), ("varchar(40)", "text")):
            for name, kind in self._columns.items():
                if kind == before:
                    self._do(f"ALTER TABLE {self._name} MODIFY {quoted(name)} {after}")
                    self._columns[name] = after if after in TYPES else before
                    return

    def retype(self, one: int, other: int) -> None:
        """To a type that the mirror's column cannot hold."""
        for name, kind in self._columns.items():
            if kind in ("tinyint", "int unsigned", "bigint", "decimal(12,4)", "float", "year", "time(2)"):
                self._do(f"ALTER TABLE {self._name} MODIFY {quoted(name)} varchar(40)")
                self._columns[name] = "varchar(40)"
                return

    def rename(self, one: int, other: int) -> None:
        names = list(self._columns)
        if len(names) > 1:
            first, second = _chosen(names, one), _chosen(names, one + 1)
            if self._columns[first] == self._columns[second]:
                swap = ((first, second), (second, first))
                renamed = ", ".join(f"RENAME COLUMN {quoted(old)} TO {quoted(new)}" for old, new in swap)
                self._do(f"ALTER TABLE {self._name} {renamed}")

    def index(self, one: int, other: int) -> None:
        self._do(f"ALTER TABLE {self._name} ADD INDEX (k0), COMMENT = 'RENAME TO x, DROP PARTITION'")

    def truncate(self, one: int, other: int) -> None:
        self._do(f"TRUNCATE {self._name}")

    def swap(self, one: int, other: int) -> None:
        number = next(self._added)
        self._do(f"CREATE TABLE {self._name}_{number} LIKE {self._name}")
        names = ", ".join([*(f"k{place}" for place in range(len(self._key))), *map(quoted, self._columns)])
        kept = f"SELECT {names} FROM {self._name} WHERE k0 <> '{one % 7}'"
        self._do(f"INSERT INTO {self._name}_{number} ({names}) {kept}")
        self._do(f"RENAME TABLE {self._name} TO {self._name}_{number}_old, {self._name}_{number} TO {self._name}")

    def empty(self, one: int, other: int) -> None:
        if self._partitioned:
            self._do(f"ALTER TABLE {self._name} TRUNCATE PARTITION p{one % 3}")

    def _keys(self, number: int) -> list[str]:
        return [f"'{number % (7 - place)}'" for place in range(len(self._key))]

    def _do(self, statement: str) -> None:
        note(statement)
        self._source.execute(statement)


def _chosen(options: Any, number: int) -> Any:
    return options[number % len(options)]


def quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(SECONDS if SOAK else 900)
def test_the_mirror_equals_its_source_or_says_why_not(
    store: Store, organization: Organization, source_server: MariaDBServer, source: Cursor, database: str
) -> None:
    configured = integration(source_server, database)
    add_integration(store, configured, actor="test")
    outcomes: Counter[str] = Counter()
    source.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")

    @settings(
        max_examples=200 // TABLES if SOAK else 2,
        deadline=None,
        database=None,
        derandomize=not SOAK,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        drawn=st.lists(histories(), min_size=TABLES, max_size=TABLES),
        deaths=st.lists(st.integers(1, 400), min_size=1 + ROUNDS, max_size=1 + ROUNDS),
    )
    def holds(drawn: list[History], deaths: list[int]) -> None:
        names = [f"t{next(_numbers)}" for _ in drawn]
        applications = [Application(source, name, schema) for name, (schema, _) in zip(names, drawn, strict=True)]
        for round, death in enumerate(deaths):
            outcomes["died" if sync_that_dies(store, death, *names) else "lived"] += 1
            synced(store, names)
            for application, (_, operations) in zip(applications, drawn, strict=True):
                for operation, one, other in operations[round::ROUNDS] if round < ROUNDS else ():
                    getattr(application, operation)(one, other)
        synced(store, names)  # what the one before found untold
        entries = catalogue.entries(store, "acme-db")
        differ = {name: differing(store, configured, name) for name in names if entries[name].problem is None}
        note(f"stopped: { {name: entries[name].problem for name in names if entries[name].problem} }")
        assert {name: rows for name, rows in differ.items() if rows} == {}
        outcomes.update("equal" if name in differ else "stopped" for name in names)

    holds()
    assert outcomes["died"]
    assert outcomes["equal"] > 9 * outcomes["stopped"]


def synced(store: Store, names: list[str]) -> None:
    """A value that does not fit the column that was made for it is one that was misread: no reason to stop."""
    sync_integration(store, "acme-db", sync_id=f"random-{next(_numbers)}", objects=names)
    problems = {name: catalogue.entries(store, "acme-db")[name].problem or "" for name in names}
    assert {name: problem for name, problem in problems.items() if "does not fit" in problem} == {}


def differing(store: Store, configured: IntegrationConfiguration, name: str) -> list[Any]:
    """Rows that are not in both: read from the source anew, and in its mirror."""
    connector = MySQL(configured)
    try:
        wanted = next(table for table in connector.discover() if table.object == name)
        entry = catalogue.entries(store, "acme-db")[name]
        mirror = mirror_of(configured, wanted, entry.raw_table)
        with connector.snapshot([wanted], followed=True) as snapshot:
            copy = b"".join(part for piece in snapshot.pieces(wanted, None) for part in snapshot.copy(wanted, piece))
    finally:
        connector.close()
    names = SQL(", ").join(Identifier(column.name) for column in mirror.columns)
    texts = SQL(", ").join(SQL("{}::text").format(Identifier(column.name)) for column in mirror.columns)
    stored = Identifier("raw", entry.raw_table)
    with store.organization("acme") as connection:
        cursor = connection.connection.cursor()
        cursor.execute(
            SQL("CREATE TEMPORARY TABLE found ON COMMIT DROP AS SELECT source_version, {} FROM {} LIMIT 0").format(
                names, stored
            )
        )
        with cursor.copy("COPY found FROM STDIN") as into:
            into.write(copy)
        rows = []
        for table, condition in ((Identifier("found"), SQL("true")), (stored, SQL("deleted_at IS NULL"))):
            cursor.execute(SQL("SELECT {} FROM {} WHERE {}").format(texts, table, condition))
            rows.append(set(cursor.fetchall()))
    found, kept = rows
    return sorted(found ^ kept, key=repr)
