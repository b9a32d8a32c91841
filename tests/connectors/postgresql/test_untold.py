"""What no change log tells: partitions that come and go, values that an ALTER TABLE changes, names that move from one
column or table to another. The table is read anew by itself, and is right after the next sync."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
import pytest

from churnguard_pipelines.connectors.postgresql import PostgreSQL
from churnguard_pipelines.mirrors import SourceTable
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, running, sync
from tests.connectors.postgresql.conftest import Register, in_source
from tests.waiting import wait_for

Source = psycopg.Connection[Any]


class Case(NamedTuple):
    """``altered``: statement by statement. ``why``: what the sync says of reading it anew, None if it need not."""

    table: str
    made: str
    altered: str
    why: str | None
    columns: tuple[str, ...] = ("id", "price")


MOVED = "its rows were moved to another file, or a partition was emptied, dropped or detached"
COLUMN = "a column was added, renamed or has another type"
TYPE = "a type of its columns was altered"
ANOTHER = "it is another table of the same name"
PRICES = "CREATE TABLE {0} (id int PRIMARY KEY, price int, note text); INSERT INTO {0} VALUES (1, 10), (2, 20);"
PARTITIONS = """
CREATE TABLE {0} (id int PRIMARY KEY, price int) PARTITION BY RANGE (id);
CREATE TABLE {0}_a PARTITION OF {0} FOR VALUES FROM (0) TO (10);
CREATE TABLE {0}_b PARTITION OF {0} FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
CREATE TABLE {0}_c PARTITION OF {0}_b FOR VALUES FROM (10) TO (15);
INSERT INTO {0} VALUES (1, 10), (11, 20);
"""
CASES = (
    Case("attached", PARTITIONS,
         "CREATE TABLE {0}_d (id int PRIMARY KEY, price int); INSERT INTO {0}_d VALUES (21, 1);"
         "ALTER TABLE {0} ATTACH PARTITION {0}_d FOR VALUES FROM (20) TO (30)", "a partition was attached"),
    Case("attached_below", PARTITIONS,
         "CREATE TABLE {0}_d (id int PRIMARY KEY, price int); INSERT INTO {0}_d VALUES (16, 1);"
         "ALTER TABLE {0}_b ATTACH PARTITION {0}_d FOR VALUES FROM (15) TO (20)", "a partition was attached"),
    Case("created", PARTITIONS, "CREATE TABLE {0}_d PARTITION OF {0} FOR VALUES FROM (20) TO (30)", None),
    Case("detached", PARTITIONS, "ALTER TABLE {0} DETACH PARTITION {0}_a", MOVED),
    Case("detached_concurrently", PARTITIONS, "ALTER TABLE {0} DETACH PARTITION {0}_a CONCURRENTLY", MOVED),
    Case("dropped", PARTITIONS, "INSERT INTO {0} VALUES (2, 30); DROP TABLE {0}_a", MOVED),
    Case("dropped_below", PARTITIONS, "DROP TABLE {0}_b", MOVED),
    Case("truncated", PARTITIONS,
         "INSERT INTO {0} VALUES (2, 30); TRUNCATE {0}_a; INSERT INTO {0} VALUES (3, 1)", MOVED),
    Case("away_and_back", PARTITIONS,
         "ALTER TABLE {0} DETACH PARTITION {0}_a; UPDATE {0}_a SET price = 99;"
         "ALTER TABLE {0} ATTACH PARTITION {0}_a FOR VALUES FROM (0) TO (10)", MOVED),
    Case("times_100", PRICES, "ALTER TABLE {0} ALTER price TYPE int USING price * 100", MOVED),
    Case("times_100_wider", PRICES, "ALTER TABLE {0} ALTER price TYPE bigint USING price * 100", MOVED),
    Case("migrated", PRICES,
         "ALTER TABLE {0} ADD price_new int; UPDATE {0} SET price_new = price * 100; ALTER TABLE {0} DROP price;"
         "ALTER TABLE {0} RENAME price_new TO price", COLUMN),
    Case("added_again", PRICES, "ALTER TABLE {0} DROP price; ALTER TABLE {0} ADD price int DEFAULT 7", COLUMN),
    Case("swapped_names", PRICES.replace("note text", "note int DEFAULT 5"),
         "ALTER TABLE {0} RENAME price TO old; ALTER TABLE {0} RENAME note TO price;"
         "ALTER TABLE {0} RENAME old TO note",
         COLUMN, ("id", "price", "note")),
    Case("dropped_column", PRICES, "ALTER TABLE {0} DROP note", None),
    Case("swapped_tables",
         PRICES + "CREATE TABLE {0}_new (LIKE {0} INCLUDING ALL); INSERT INTO {0}_new VALUES (5, 50);",
         "ALTER TABLE {0} RENAME TO {0}_old; ALTER TABLE {0}_new RENAME TO {0}", ANOTHER),
    Case("renamed_and_back", PRICES,
         "ALTER TABLE {0} RENAME TO {0}_x; UPDATE {0}_x SET price = 77; ALTER TABLE {0}_x RENAME TO {0}", None),
    Case("enum", "CREATE TYPE a_{0} AS ENUM ('low', 'high'); CREATE TABLE {0} (id int PRIMARY KEY, price a_{0});"
         "INSERT INTO {0} VALUES (1, 'low'), (2, 'high')", "ALTER TYPE a_{0} RENAME VALUE 'low' TO 'cheap'", TYPE),
    Case("enum_array", "CREATE TYPE a_{0} AS ENUM ('low', 'high'); CREATE DOMAIN d_{0} AS a_{0};"
         "CREATE TABLE {0} (id int PRIMARY KEY, price d_{0}[]); INSERT INTO {0} VALUES (1, '{{low,high}}')",
         "ALTER TYPE a_{0} RENAME VALUE 'low' TO 'cheap'", TYPE),
    Case("enum_grown", "CREATE TYPE a_{0} AS ENUM ('low'); CREATE TABLE {0} (id int PRIMARY KEY, price a_{0});"
         "INSERT INTO {0} VALUES (1, 'low')", "ALTER TYPE a_{0} ADD VALUE 'high'; INSERT INTO {0} VALUES (2, 'high')",
         None),
    Case("composite", "CREATE TYPE a_{0} AS (a int, b text); CREATE TABLE {0} (id int PRIMARY KEY, price a_{0});"
         "INSERT INTO {0} VALUES (1, '(1,x)')", "ALTER TYPE a_{0} ADD ATTRIBUTE c int", TYPE),
    Case("generated", "CREATE TABLE {0} (id int PRIMARY KEY, price int GENERATED ALWAYS AS (id * 10) STORED);"
         "INSERT INTO {0} VALUES (1), (2)", "ALTER TABLE {0} ALTER price SET EXPRESSION AS (id * 100)", MOVED),
)  # fmt: skip


def test_a_table_is_read_anew_after_what_its_log_does_not_tell(
    store: Store, register: Register, source: Source
) -> None:
    for case in CASES:
        source.execute(case.made.format(case.table))
    register(sync_mode="real_time", exclude=["*_d", "*_old", "*_x"])
    assert set(statuses(sync(store)).values()) == {"succeeded"}
    for case in CASES:
        for statement in case.altered.format(case.table).split(";"):
            source.execute(statement)
    report = sync(store)
    for case in CASES:
        item = report.objects[case.table]
        assert mirrored(store, case.table, *case.columns) == in_source(source, case.table, *case.columns), case.table
        assert item.error == (case.why and f"it is read anew: {case.why}."), case.table
    for case in CASES:
        if "PARTITION" in case.made and case.table != "dropped_below":
            source.execute(f"INSERT INTO {case.table} SELECT 12, 5")
    assert [item.error for item in sync(store).objects.values()] == [None] * len(report.objects)
    for case in CASES:
        assert mirrored(store, case.table, *case.columns) == in_source(source, case.table, *case.columns), case.table


def test_a_session_learns_which_table_has_a_name_now(store: Store, register: Register, source: Source) -> None:
    for name in ("plans", "plans_new"):
        source.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, price int); INSERT INTO {name} VALUES (1, 10)")
    register(sync_mode="real_time")
    sync(store)
    with running(store):
        source.execute("UPDATE plans_new SET price = 1000")
        source.execute("ALTER TABLE plans RENAME TO plans_old; ALTER TABLE plans_new RENAME TO plans")
        sync(store)
        source.execute("INSERT INTO plans_old VALUES (2, 20); INSERT INTO plans VALUES (3, 3000)")
        wait_for(lambda: mirrored(store, "plans_old", "id", "price") == [("1", "10"), ("2", "20")])
        wait_for(lambda: mirrored(store, "plans", "id", "price") == [("1", "1000"), ("3", "3000")])


def test_a_sync_finds_a_new_table_while_a_session_moves_on(
    store: Store, register: Register, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.execute("CREATE TABLE plans (id int PRIMARY KEY)")
    register(sync_mode="real_time")
    sync(store)
    follow = PostgreSQL.follow

    def busily(self: PostgreSQL, tables: Sequence[SourceTable]) -> list[str]:
        """The sync has looked where the log is read, and not said yet that there is more to read."""
        source.execute("INSERT INTO plans VALUES (1)")
        wait_for(lambda: mirrored(store, "plans", "id") == [("1",)])
        return follow(self, tables)

    monkeypatch.setattr(PostgreSQL, "follow", busily)
    with running(store):
        source.execute("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (7)")
        assert sync(store).status == "succeeded"
        source.execute("INSERT INTO users VALUES (8)")
        wait_for(lambda: mirrored(store, "users", "id") == [("7",), ("8",)])


def test_changes_from_before_a_table_was_read_anew_do_not_come_back(
    store: Store, register: Register, source: Source
) -> None:
    """They are in the log, which is read after the table: what became of their rows is not."""
    source.execute(PARTITIONS.format("prices"))
    register(sync_mode="real_time")
    sync(store)
    source.execute("INSERT INTO prices VALUES (5, 1), (6, 2)")
    source.execute("ALTER TABLE prices ADD size text; UPDATE prices SET size = 'L' WHERE id = 6")
    source.execute("TRUNCATE prices_a; ALTER TABLE prices DROP size; INSERT INTO prices VALUES (7, 3)")
    sync(store)
    assert mirrored(store, "prices", "id", "price") == [("11", "20"), ("7", "3")]
    report = sync(store)
    assert report.objects["prices"].error is None
    assert report.objects["prices"].counts.read == 0


def test_an_increment_reads_an_altered_table_anew(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE plans (id int PRIMARY KEY, price int, updated_at timestamptz DEFAULT '2026-01-01')")
    source.execute("INSERT INTO plans VALUES (1, 10), (2, 20)")
    register(sync_mode="incremental")
    sync(store)
    source.execute("ALTER TABLE plans ALTER price TYPE int USING price * 100")
    assert sync(store).objects["plans"].error == f"it is read anew: {MOVED}."
    assert mirrored(store, "plans", "id", "price") == [("1", "1000"), ("2", "2000")]
    assert sync(store).objects["plans"].error is None


def test_what_was_read_before_fingerprints_were_kept_stays(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE plans (id int PRIMARY KEY, price int); INSERT INTO plans VALUES (1, 10)")
    register(sync_mode="real_time")
    sync(store)
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE ingest.checkpoints SET position = position - 'fingerprint'")
        connection.exec_driver_sql("UPDATE ingest.source_tables SET definition = definition - 'fingerprint'")
    source.execute("UPDATE plans SET price = 11")
    report = sync(store)
    assert (report.objects["plans"].error, report.objects["plans"].counts.read) == (None, 1)
    assert mirrored(store, "plans", "id", "price") == [("1", "11")]
    with store.operator() as connection:
        kept = connection.exec_driver_sql("SELECT position FROM ingest.checkpoints WHERE lane = 'plans'").scalar_one()
    assert json.loads(kept["fingerprint"])["columns"].keys() == {"1", "2"}
