"""A full sync: every table as it is, rows that vanished marked as deleted, one table's trouble its own."""

from __future__ import annotations

from typing import Any

import psycopg

from churnguard_pipelines.monitoring.vitals import read_vitals
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.postgresql.conftest import Register, in_source

Source = psycopg.Connection[Any]


def test_tables_are_mirrored_with_their_own_types_and_keys(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email varchar(80), paid numeric(12,2), at timestamptz)")
    source.execute(
        "CREATE SCHEMA billing; CREATE TABLE billing.lines (invoice uuid, line int, PRIMARY KEY (invoice, line))"
    )
    source.execute("INSERT INTO users SELECT n, 'u' || n, n / 7.0, now() FROM generate_series(1, 1000) n")
    source.execute("INSERT INTO billing.lines SELECT gen_random_uuid(), n FROM generate_series(1, 10) n")
    register()
    report = sync(store)
    assert statuses(report) == {"users": "succeeded", "billing.lines": "succeeded"}
    assert mirrored(store, "users", "id", "email", "paid", "at") == in_source(
        source, "users", "id", "email", "paid", "at"
    )
    assert mirrored(store, "billing_lines", "invoice", "line") == in_source(source, "billing.lines", "invoice", "line")
    assert report.objects["users"].counts.read == report.objects["users"].counts.written == 1000
    assert {name: each.rows for name, each in report.objects.items()} == {"users": 1000, "billing.lines": 10}
    (integration,) = read_vitals(store)
    assert integration.rows == 1010


def test_what_vanished_is_deleted_by_the_next_full_sync(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    source.execute("INSERT INTO users SELECT n, 'u' || n FROM generate_series(1, 100) n")
    register()
    sync(store)
    source.execute("DELETE FROM users WHERE id <= 40; UPDATE users SET email = 'new' WHERE id = 50")
    report = sync(store)
    assert report.objects["users"].counts.deleted == 40
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")


def test_many_tables_take_few_connections_of_the_source(store: Store, register: Register, source: Source) -> None:
    for n in range(12):
        source.execute(f"CREATE TABLE t{n} (id int PRIMARY KEY); INSERT INTO t{n} VALUES ({n})")
    register()
    seen: list[int] = []

    def look(object: str, seconds: float) -> None:
        found = source.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()").fetchone()
        assert found is not None
        seen.append(found[0])

    assert sync_integration(store, "acme-db", sync_id="many", on_object=look).status == "succeeded"
    assert max(seen) <= 1 + 4, "the test's own, the sync's and the snapshot's, and one for each of two threads"
