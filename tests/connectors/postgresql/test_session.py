"""A warm session: changes arrive while it lives, new tables are noticed, a younger one replaces it."""

from __future__ import annotations

from typing import Any

import psycopg

from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest import sessions
from churnguard_pipelines.store.ingest.catalogue import get_lag
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.database import CHANGES
from churnguard_pipelines.syncing.lag_probes import look_at
from churnguard_pipelines.syncing.session import HAND_OVER
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, running, sync
from tests.connectors.postgresql.conftest import Register, in_source
from tests.waiting import wait_for

Source = psycopg.Connection[Any]


def same(store: Store, source: Source, table: str, *columns: str) -> bool:
    return mirrored(store, table, *columns) == in_source(source, table, *columns)


def test_changes_arrive_while_a_session_lives(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    register(sync_mode="real_time")
    sync(store)
    worked: list[Any] = []
    with running(store, on_worked=worked.append):
        source.execute("INSERT INTO users SELECT n, 'u' || n FROM generate_series(1, 500) n")
        wait_for(lambda: same(store, source, "users", "id", "email"))
        source.execute("UPDATE users SET email = 'x' WHERE id < 100; DELETE FROM users WHERE id > 400")
        wait_for(lambda: same(store, source, "users", "id", "email"))
    assert sum(each["acme-db", "users"].read for each in worked if each) == 500 + 99 + 100


def test_a_session_follows_tables_that_a_sync_finds(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    register(sync_mode="real_time")
    sync(store)
    with running(store):
        source.execute("INSERT INTO users VALUES (1, 'a')")
        wait_for(lambda: same(store, source, "users", "id", "email"))
        source.execute("CREATE TABLE plans (id int PRIMARY KEY, price numeric(8,2))")
        source.execute("INSERT INTO plans SELECT n, n FROM generate_series(1, 50) n")
        assert statuses(sync(store)) == {"users": "succeeded", "plans": "succeeded"}
        source.execute("INSERT INTO plans VALUES (51, 5.5); UPDATE plans SET price = 7 WHERE id = 3")
        wait_for(lambda: same(store, source, "plans", "id", "price"))


def test_a_column_that_is_added_meanwhile_is_complete_after_the_next_sync(
    store: Store, register: Register, source: Source
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT n FROM generate_series(1, 50) n")
    register(sync_mode="real_time")
    sync(store)
    with running(store):
        source.execute("ALTER TABLE users ADD plan text DEFAULT 'free'; INSERT INTO users VALUES (51, 'pro')")
        wait_for(lambda: ("51",) in mirrored(store, "users", "id"))
        assert ("51", "pro") in mirrored(store, "users", "id", "plan")
        sync(store)
        assert same(store, source, "users", "id", "plan")


def test_quiet_ends_a_session(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    register(sync_mode="real_time")
    sync(store)
    with running(store, linger=0.5) as thread:
        thread.join(30)
        assert not thread.is_alive()


def test_a_younger_session_takes_over(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    register(sync_mode="real_time")
    sync(store)
    with running(store, "old", max_age=HAND_OVER) as old:
        wait_for(lambda: "old" in sessions.ages(store, CHANGES))
        with running(store, "young"):
            old.join(30)
            assert not old.is_alive()
            source.execute("INSERT INTO users VALUES (1, 'a')")
            wait_for(lambda: same(store, source, "users", "id", "email"))


def test_lag_is_seen_from_outside(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    register(sync_mode="real_time")
    sync(store)
    source.execute("INSERT INTO users SELECT n, repeat('u', 1000) FROM generate_series(1, 1000) n")
    source.execute("CHECKPOINT")
    lag = look_at(store, get_integration(store, "acme-db"))
    assert lag is not None
    assert lag.bytes is not None
    assert lag.bytes > 100_000
    assert lag == get_lag(store, "acme-db")
