"""Whatever the schema and whatever becomes of it: a mirror equals its source, or its table is stopped with a reason,
and no write of the application fails.

Ten schemas; two hundred with CHURNGUARD_SOAK=1. What the syncs may die of is a SIGKILL anywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from churnguard_pipelines.connectors.postgresql.catalog import object_name
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing import change_lane
from churnguard_pipelines.syncing.mirroring import mirror_of
from churnguard_pipelines.syncing.removal import remove_integration
from tests.connectors.dying import sync_that_dies
from tests.connectors.mirrors import sync
from tests.connectors.postgresql.conftest import Register
from tests.soak import SECONDS, SOAK

Source = psycopg.Connection[Any]
_schemas = itertools.count(1)

VALUES: dict[str, Callable[[int], str]] = {
    "int": str,
    "bigint": lambda n: str(n * 10**12),
    "numeric(12,2)": lambda n: f"{n}.5",
    "boolean": lambda n: f"{n} > 9",
    "text": lambda n: f"'t{n} ü'",
    "varchar(20)": lambda n: f"'v{n}'",
    "char(5)": lambda n: f"'c{n}'",
    "char(3)[]": lambda n: f"ARRAY['a','{n}']",
    "int[]": lambda n: f"ARRAY[{n}, NULL]",
    "bytea": lambda n: f"'\\x{n:04x}'",
    "timestamptz": lambda n: f"timestamptz '2026-01-01' + interval '{n} hours'",
    "date": lambda n: "'infinity'" if n % 2 else "'2026-01-01'",
    "jsonb": lambda n: f"jsonb_build_object('n', {n})",
    "uuid": lambda n: f"'{n:032x}'",
    "tstzrange": lambda n: f"tstzrange(to_timestamp({n}), NULL)",
    "pair": lambda n: f"'({n},x)'",
    "mood": lambda n: f"(enum_range(NULL::mood))[{n % 2 + 1}]",
}
NAMES = (
    "t", "Order", "select", "a b", "größe", "billing.users", 'q"q', "a[1]", "%s", ":id", "x" * 50, "t_away", "_",
)  # fmt: skip
COLUMNS = (
    "c", "Order", "a b", "größe", 'q"q', "%s", ":id", "x" * 63, "source_row", "source_version", "deleted_at", "d.e",
)  # fmt: skip
KEYS = {
    "id": "PRIMARY KEY (id)",
    "id, part": "PRIMARY KEY (id, part)",
    "code": "PRIMARY KEY (code)",
    "unique": "UNIQUE (id)",
    "twice": "PRIMARY KEY (twice)",
    "id, twice": "PRIMARY KEY (id, twice)",
    "nothing": "CHECK (id >= 0)",
}
IDENTITIES = ("DEFAULT", "DEFAULT", "DEFAULT", "FULL", "NOTHING")
GENERATED = {"": "", "stored": ", twice int GENERATED ALWAYS AS (id * 2) STORED",
             "virtual": ", twice int GENERATED ALWAYS AS (id * 2) VIRTUAL"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """``place``: among the tables of its schema. ``columns``: types by name. ``identities``: replica identity of the
    table and, if it is partitioned, of its first partition."""

    place: int
    base: str
    key: str
    columns: dict[str, str]
    partitioned: bool
    identities: tuple[str, str]
    generated: str

    @property
    def plain(self) -> str:
        return f"{self.base}{self.place}"

    @property
    def name(self) -> str:
        return quoted(self.plain)

    def named(self, ending: str) -> str:
        return quoted(f"{self.plain}{ending}")

    def creation(self) -> str:
        columns = "".join(f", {quoted(name)} {kind}" for name, kind in self.columns.items())
        by = " PARTITION BY RANGE (id)" if self.partitioned else ""
        made = (
            f"CREATE TABLE {self.name} (id int NOT NULL, part int NOT NULL DEFAULT 1, code char(5) NOT NULL, price int"
            f"{columns}{GENERATED[self.generated]}, {KEYS[self.key]}){by};"
        )
        if self.partitioned:
            made += "".join(self.partition(place) for place in range(2))
            made += f"ALTER TABLE {self.named('_0')} REPLICA IDENTITY {self.identities[1]};"
        return made + f"ALTER TABLE {self.name} REPLICA IDENTITY {self.identities[0]};"

    def partition(self, place: int) -> str:
        span = f"FROM ({place * 50}) TO ({place * 50 + 50})"
        return f"CREATE TABLE {self.named(f'_{place}')} PARTITION OF {self.name} FOR VALUES {span};"

    def insertion(self, n: int) -> str:
        names = ["id", "code", "price", *map(quoted, self.columns)]
        values = [str(n), f"'k{n}'", str(n), *(VALUES[kind](n) for kind in self.columns.values())]
        return f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({', '.join(values)}) ON CONFLICT DO NOTHING"


def quoted(name: str) -> str:
    return f'"{name.replace(chr(34), chr(34) * 2)}"'


@st.composite
def schemas(draw: st.DrawFn) -> list[Table]:
    made = []
    for place in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(sorted(KEYS)))
        stored = "twice" in key
        names = st.lists(st.sampled_from(COLUMNS), max_size=5, unique=True)
        made.append(
            Table(
                place=place,
                base=draw(st.sampled_from(NAMES)),
                key=key,
                columns={name: draw(st.sampled_from(sorted(VALUES))) for name in draw(names)},
                partitioned=draw(st.booleans()) and key not in ("code", "twice"),  # which lack what it is parted by
                identities=draw(st.tuples(st.sampled_from(IDENTITIES), st.sampled_from(IDENTITIES))),
                generated="stored" if stored else draw(st.sampled_from(sorted(GENERATED))),
            )
        )
    return made


ODD_TYPES = ("integer", "text", "boolean", "jsonb", "numeric(9, 2)")
"""None holds another's values, and each takes '1'."""
OPERATIONS = (
    "insert", "insert", "update", "update", "delete", "move", "truncate", "times_10", "migrate", "add", "vacuum",
    "rename", "partition_truncated", "partition_made_anew", "partition_away", "labels", "retype", "sync", "sync",
    "die", "die",
)  # fmt: skip
steps = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 2), st.integers(0, 99)), min_size=6, max_size=25
)  # fmt: skip


@pytest.fixture
def soon_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_lane, "QUIET", 0.3)


@settings(
    max_examples=200 if SOAK else 10, deadline=None, derandomize=not SOAK, database=None, print_blob=True,
    phases=(Phase.generate,), suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(made=schemas(), steps=steps)
@pytest.mark.usefixtures("soon_quiet")
@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(SECONDS if SOAK else 900)
def test_a_mirror_equals_its_source_or_its_table_is_stopped_with_a_reason(
    store: Store, register: Register, source: Source, made: list[Table], steps: list[tuple[str, int, int]]
) -> None:
    name = f"s{next(_schemas)}"
    source.execute(f"CREATE SCHEMA {name}; SET search_path = {name}; SET timezone = 'UTC'")
    source.execute("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, b text)")
    for table in made:
        note(table.creation())
        source.execute(table.creation())
        for n in (3, 60):
            source.execute(table.insertion(n))
    configured = register(sync_mode="real_time", objects=[f"{name}.*"], exclude=["*_moved*"])
    try:
        sync(store)
        for counter, (operation, place, n) in enumerate(steps):
            note(f"{operation} {place} {n}")
            if operation == "sync":
                sync(store)
            elif operation == "die":
                event("died" if sync_that_dies(store, 2 * n + 1) else "did not die")
            else:
                for statement in statements(operation, made[place % len(made)], n, counter):
                    source.execute(statement)
        report = sync(store)
        report = sync(store) if report.status != "succeeded" else report
        entries = catalogue.entries(store, "acme-db")
        for table in made:
            object = object_name(name, table.plain)
            failed = report.objects[object].error if report.objects[object].status == "failed" else None
            problem = entries[object].problem or failed
            note(f"{object}: {report.objects[object].status} {report.objects[object].error} {problem}")
            event("stopped with a reason" if problem else "read in full" if report.objects[object].error else "equal")
            if problem is None:
                followed = "cannot be followed" not in (report.objects[object].error or "")
                columns = read_columns(source, table, followed=followed)
                mirror = mirror_of(configured, entries[object].table, entries[object].raw_table)
                names = {column.source: column.name for column in mirror.columns}
                with store.organization("acme") as connection:
                    query = as_written([names[each] for each in columns], f"raw.{quoted(mirror.table)}")
                    live = connection.exec_driver_sql(f"{query} WHERE deleted_at IS NULL".replace("%", "%%"))
                    mirrored = sorted(map(tuple, live), key=repr)
                assert mirrored == sorted(source.execute(as_written(columns, table.name)), key=repr)
    finally:
        remove_integration(store, "acme-db", "test", purge=True)
        source.execute(f"SET search_path = public; DROP SCHEMA {name} CASCADE")


def statements(operation: str, table: Table, n: int, counter: int) -> list[str]:
    """What an application and its migrations do; nothing of it may fail."""
    name, moved, away = table.name, table.named("_1"), table.named("_moved")
    simple = {
        "insert": [table.insertion(n), table.insertion((n + 50) % 100)],
        "update": [f"UPDATE {name} SET price = price + 1 WHERE id % 3 = {n % 3}"],
        "delete": [f"DELETE FROM {name} WHERE id % 5 = {n % 5}"],
        "move": [
            f"UPDATE {name} SET id = {n}, code = 'm{counter}' WHERE id = (SELECT min(id) FROM {name}) "
            f"AND NOT EXISTS (SELECT FROM {name} WHERE id = {n})"
        ],
        "truncate": [f"TRUNCATE {name}"],
        "times_10": [f"ALTER TABLE {name} ALTER price TYPE bigint USING price * 10"],
        "migrate": [
            f"ALTER TABLE {name} ADD price_new bigint", f"UPDATE {name} SET price_new = price * 100",
            f"ALTER TABLE {name} DROP price", f"ALTER TABLE {name} RENAME price_new TO price",
        ],
        "add": [f"ALTER TABLE {name} ADD a{counter} text DEFAULT 'new'"],
        "retype": [
            f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS odd text DEFAULT 'x'",
            f"ALTER TABLE {name} ALTER odd DROP DEFAULT, "
            f"ALTER odd TYPE {ODD_TYPES[n % len(ODD_TYPES)]} USING NULL",
            f"UPDATE {name} SET price = price + 1 WHERE id % 2 = {n % 2}",
            f"ALTER TABLE {name} ALTER odd SET DEFAULT '1'", table.insertion(n),
        ],
        "vacuum": [f"VACUUM FULL {name}"],
        "rename": [
            f"ALTER TABLE {name} RENAME TO {away}", f"UPDATE {away} SET price = price + 7",
            f"ALTER TABLE {away} RENAME TO {name}",
        ],
        "labels": [
            "DO $$ BEGIN EXECUTE format('ALTER TYPE mood RENAME VALUE %L TO %L', "
            f"(SELECT min(enumlabel) FROM pg_enum WHERE enumtypid = 'mood'::regtype), 'm{counter}'); END $$"
        ],
    }  # fmt: skip
    if operation in simple:
        return simple[operation]
    if not table.partitioned:
        return []
    span = "FOR VALUES FROM (50) TO (100)"
    return {
        "partition_truncated": [f"TRUNCATE {moved}", table.insertion(n)],
        "partition_made_anew": [f"DROP TABLE {moved}", table.partition(1), table.insertion(n)],
        "partition_away": [
            f"ALTER TABLE {name} DETACH PARTITION {moved}", f"UPDATE {moved} SET price = price + 3",
            f"ALTER TABLE {name} ATTACH PARTITION {moved} {span}",
        ],
    }[operation]  # fmt: skip


def read_columns(source: Source, table: Table, *, followed: bool) -> list[str]:
    """Those whose values are to be found in the mirror: a virtual column is none of a change log's."""
    found = source.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
        "AND NOT (attgenerated = 'v' AND %s) ORDER BY attnum",
        [table.name, followed],
    )
    return [row[0] for row in found]


def as_written(columns: list[str], table: str) -> str:
    """A query of these columns as their types write them on either side: a cast to text would cut the blanks of a
    ``character``, and say ``true`` for the ``t`` that a boolean writes."""
    listed = (f"CASE WHEN num_nulls({each}) = 0 THEN format('%s', {each}) END" for each in map(quoted, columns))
    return f"SELECT {', '.join(listed)} FROM {table}"
