"""Following changes: a snapshot first, then every transaction, without a gap or an overlap."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import psycopg

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.change_lane import QUIET, ChangeLane
from churnguard_pipelines.syncing.source import opened_database
from tests.blocked import wait_until_blocked
from tests.conftest import as_administrator
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.postgresql.conftest import Register, in_source

Source = psycopg.Connection[Any]
BIG = "x" * 10_000  # what PostgreSQL stores apart from its row, in `TOAST`, if it cannot be compressed


def follow(store: Store, register: Register, **more: Any) -> None:
    register(sync_mode="real_time", **more)
    report = sync(store)
    assert set(statuses(report).values()) == {"succeeded"}, {name: each.error for name, each in report.objects.items()}


def test_inserts_updates_deletes_and_moved_keys_arrive(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text, at timestamptz DEFAULT now())")
    source.execute("INSERT INTO users SELECT n, 'u' || n FROM generate_series(1, 100) n")
    follow(store, register)
    source.execute("UPDATE users SET email = 'changed' WHERE id <= 10")
    source.execute("DELETE FROM users WHERE id BETWEEN 20 AND 30")
    source.execute("UPDATE users SET id = id + 1000 WHERE id BETWEEN 40 AND 45")
    source.execute("INSERT INTO users SELECT n, 'n' || n FROM generate_series(200, 210) n")
    sync(store)
    assert mirrored(store, "users", "id", "email", "at") == in_source(source, "users", "id", "email", "at")


def test_a_value_that_an_update_left_alone_is_kept(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, title text, body text)")
    source.execute("ALTER TABLE notes ALTER body SET STORAGE EXTERNAL")
    source.execute("INSERT INTO notes SELECT n, 't', %s FROM generate_series(1, 5) n", [BIG])
    follow(store, register)
    source.execute("UPDATE notes SET title = 'new'")
    source.execute("UPDATE notes SET id = 10 WHERE id = 1")
    source.execute("INSERT INTO notes VALUES (11, 'a', %s)", [BIG])
    source.execute("UPDATE notes SET title = 'b' WHERE id = 11")
    source.execute("UPDATE notes SET id = 12, title = 'c' WHERE id = 11")
    sync(store)
    assert mirrored(store, "notes", "id", "title", "body") == in_source(source, "notes", "id", "title", "body")
    assert all(row[2] == BIG for row in mirrored(store, "notes", "id", "title", "body"))


def test_a_truncated_table_is_empty(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    source.execute("INSERT INTO users SELECT n, 'u' || n FROM generate_series(1, 100) n")
    follow(store, register)
    source.execute("UPDATE users SET email = 'x'; TRUNCATE users; INSERT INTO users VALUES (7, 'seven')")
    sync(store)
    assert mirrored(store, "users", "id", "email") == [("7", "seven")]


def test_a_new_column_is_followed(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, small int)")
    source.execute("INSERT INTO users VALUES (1, 1), (2, 2)")
    follow(store, register)
    source.execute("INSERT INTO users VALUES (3, 3)")
    source.execute("ALTER TABLE users ADD COLUMN plan text DEFAULT 'free', ALTER small TYPE bigint")
    source.execute("INSERT INTO users VALUES (4, 5000000000, 'pro')")
    source.execute("UPDATE users SET plan = 'team' WHERE id = 1")
    sync(store)
    assert mirrored(store, "users", "id", "small", "plan")[0] == ("1", "1", "team")
    assert ("4", "5000000000", "pro") in mirrored(store, "users", "id", "small", "plan")
    # The rows that were there already have the column's default, though no change says so.
    assert mirrored(store, "users", "id", "small", "plan") == in_source(source, "users", "id", "small", "plan")


def test_a_lane_that_is_chosen_to_break_a_circle_of_writers_reads_on_from_its_checkpoint(
    store: Store, register: Register, source: Source
) -> None:
    """A copy holds rows of the mirror and wants one that the lane has changed; the lane wants to add a column."""
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    source.execute("INSERT INTO users VALUES (1, 'one'), (2, 'two')")
    follow(store, register)
    made = get_integration(store, "acme-db")
    with source.transaction():
        source.execute("UPDATE users SET email = 'first' WHERE id = 1")
        source.execute("ALTER TABLE users ADD COLUMN plan text")
        source.execute("INSERT INTO users VALUES (3, 'three', 'pro')")
    take = "UPDATE raw.postgresql_acme_db_users SET synced_at = now() WHERE id = %s"

    def catch_up() -> None:
        with opened_database(store, made) as connector, ChangeLane(store, Warehouse(store), made, connector) as lane:
            list(lane.catch_up())

    with psycopg.connect(as_administrator(store.database_url)) as copy:
        copy.execute("SET deadlock_timeout = '1min'")  # it is the lane that looks for a circle first
        copy.execute(take, [2])
        catching_up = in_thread("changes", catch_up)
        wait_until_blocked(store)
        in_thread("copy", lambda: copy.execute(take, [1])).result(20)
    catching_up.result(30)
    rows = [("1", "first", None), ("2", "two", None), ("3", "three", "pro")]
    assert mirrored(store, "users", "id", "email", "plan") == rows


def test_partitions_arrive_as_their_table(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE events (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)")
    for month in (1, 2):
        span = f"FROM ('2026-0{month}-01') TO ('2026-0{month + 1}-01')"
        source.execute(f"CREATE TABLE events_{month} PARTITION OF events FOR VALUES {span}")
    source.execute("INSERT INTO events SELECT n, date '2026-01-01' + n % 59 FROM generate_series(1, 500) n")
    follow(store, register)
    source.execute("INSERT INTO events SELECT n, date '2026-01-01' + n % 59 FROM generate_series(501, 600) n")
    source.execute("UPDATE events SET day = day + 30 WHERE id = 1; DELETE FROM events WHERE id = 2")
    report = sync(store)
    assert list(report.objects) == ["events"]
    assert mirrored(store, "events", "id", "day") == in_source(source, "events", "id", "day")


def test_a_full_sync_beside_the_log_keeps_what_is_newer(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    source.execute("INSERT INTO users SELECT n, 'u' || n FROM generate_series(1, 100) n")
    follow(store, register)
    source.execute("UPDATE users SET email = 'changed' WHERE id <= 10; DELETE FROM users WHERE id = 50")
    sync(store, mode=DataSyncMode.FULL)
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")
    source.execute("DELETE FROM users WHERE id = 1")
    sync(store)
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")


def test_transactions_that_have_ended_are_stored_while_the_next_one_comes(
    store: Store, register: Register, source: Source
) -> None:
    """A batch is full in the middle of one; under steady load, that is nearly always so."""
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    follow(store, register)
    for number in range(40):  # 28,000 changes; a batch has 10,000 at most
        source.execute(
            "INSERT INTO users SELECT n, 'u' FROM generate_series(%s::int, %s) n", [number * 700, number * 700 + 699]
        )
    made = get_integration(store, "acme-db")
    steps: list[int] = []
    with opened_database(store, made) as connector, ChangeLane(store, Warehouse(store), made, connector) as lane:
        while sum(steps) < 28_000:
            stored = lane.step(10)
            assert stored is not None
            steps += [stored.counts["users"].read] if stored.counts else []
            assert len(mirrored(store, "users", "id")) == sum(steps), "what was stored can be read"
    assert len(steps) > 2
    assert [read % 700 for read in steps] == [0] * len(steps)


def test_a_server_that_thinks_for_long_is_waited_for(store: Store, register: Register, source: Source) -> None:
    """As one does that reads a transaction of gigabytes: only where its log ends tells whether there is more."""
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    follow(store, register)
    made = get_integration(store, "acme-db")
    with opened_database(store, made) as connector, ChangeLane(store, Warehouse(store), made, connector) as lane:
        assert dict(lane.catch_up()) == {}
        sender = source.execute("SELECT active_pid FROM pg_replication_slots WHERE active").fetchone()
        assert sender is not None
        os.kill(sender[0], signal.SIGSTOP)
        goes_on = threading.Timer(2 * QUIET, os.kill, (sender[0], signal.SIGCONT))
        goes_on.start()
        source.execute("INSERT INTO users VALUES (1, 'late')")
        stored = dict(lane.catch_up())
        goes_on.join()
    assert stored["users"].read == 1
