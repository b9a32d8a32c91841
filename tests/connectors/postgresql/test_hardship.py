"""A bad network, a source that restarts while it is read, a huge transaction: it takes longer, nothing is missing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from churnguard_pipelines.connectors.postgresql import snapshot as postgresql_snapshot
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, running, sync
from tests.connectors.postgresql.conftest import Register, in_source
from tests.sources.flaky import FlakyNetwork
from tests.sources.postgresql import PostgreSQLServer
from tests.waiting import wait_for

Source = psycopg.Connection[Any]
FILL = "INSERT INTO users SELECT n, 'u' || n, repeat('x', {padding}) FROM generate_series(1, {rows}) n"


@pytest.fixture
def users(source: Source) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text, padding text)")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_snapshot, "PIECE_BYTES", 2**20)


def test_a_copy_over_a_bad_network_ends_in_the_end(
    store: Store, register: Register, source: Source, source_server: PostgreSQLServer, users: None, small_pieces: None
) -> None:
    source.execute(FILL.format(rows=20_000, padding=500))
    with FlakyNetwork(source_server.port, 2_000_000) as network:
        register(fields={"port": str(network.port)})
        read = []
        while True:
            report = sync(store)
            read.append(report.objects["users"].counts.read)
            if report.status == "succeeded":
                break
            assert "PostgreSQL cannot be used" in str(report.objects["users"].error)
            assert len(mirrored(store, "users", "id")) < 20_000
    assert network.cut > 1
    assert len(read) > 1
    assert sum(read) < 30_000  # each went on from where the one before was cut
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")


def test_changes_over_a_bad_network_arrive_all(
    store: Store, register: Register, source: Source, source_server: PostgreSQLServer, users: None
) -> None:
    with FlakyNetwork(source_server.port, 200_000) as network:
        register(fields={"port": str(network.port)}, sync_mode="real_time")
        sync(store)
        with running(store):
            for first in range(0, 2_000, 100):
                source.execute(
                    f"INSERT INTO users SELECT n, 'u', repeat('x', 500) FROM generate_series({first}, {first + 99}) n"
                )
            wait_for(lambda: mirrored(store, "users", "id") == in_source(source, "users", "id"))
    assert network.cut > 1


def test_a_source_that_restarts_while_it_is_read(
    store: Store, register: Register, short_path: Path, small_pieces: None
) -> None:
    server = PostgreSQLServer(short_path)
    server.start()
    try:
        with server.connect() as connection:
            connection.execute("CREATE TABLE users (id int PRIMARY KEY, email text, padding text)")
            connection.execute(FILL.format(rows=40_000, padding=500))
            connection.execute("CHECKPOINT")
        register(fields={"port": str(server.port), "database": "postgres"}, sync_mode="real_time")
        reports: list[Any] = []
        thread = threading.Thread(target=lambda: reports.append(sync(store)))
        thread.start()
        wait_for(lambda: _read_so_far(store) > 2_000)
        server.kill()
        thread.join()
        server.start()
        assert reports[0].status != "succeeded"
        with server.connect() as connection:
            connection.execute("DELETE FROM users WHERE id % 100 = 0; UPDATE users SET email = 'x' WHERE id % 77 = 0")
            assert statuses(sync(store)) == {"users": "succeeded"}
            assert mirrored(store, "users", "id", "email") == in_source(connection, "users", "id", "email")
    finally:
        server.stop()


def test_a_cancelled_sync_ends_between_two_pieces_and_the_next_one_goes_on(
    store: Store, register: Register, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_snapshot, "PIECE_BYTES", 16 * 1024)
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text, padding text)")
    source.execute(FILL.format(rows=40_000, padding=500))
    source.execute("CHECKPOINT")
    register()
    cancelled = threading.Event()
    reports: list[SyncReport] = []
    copying = threading.Thread(
        target=lambda: reports.append(sync_integration(store, "acme-db", sync_id="cancelled", cancelled=cancelled))
    )
    copying.start()
    wait_for(lambda: _read_so_far(store) > 500)
    cancelled.set()
    copying.join()
    [stopped] = reports
    before = stopped.objects["users"]
    assert (stopped.status, before.status) == ("cancelled", "cancelled")
    assert "stopped" in (before.error or "")
    following = sync(store).objects["users"]
    assert 0 < before.counts.read < 40_000
    assert following.counts.read <= 40_000 - before.counts.read + 1_000
    assert mirrored(store, "users", "id") == in_source(source, "users", "id")


@pytest.mark.parametrize(("rows", "padding", "most"), [(200_000, 500, 150), (150, 3_000_000, 300)])
def test_a_huge_transaction_arrives_whole_and_in_bounded_memory(
    store: Store, register: Register, source: Source, users: None, rows: int, padding: int, most: int
) -> None:
    """``most``: MiB. As Python's objects the transaction has several hundred, whether of many rows or of large ones."""
    register(sync_mode="real_time")
    sync(store)
    source.execute(FILL.format(rows=rows, padding=padding))
    process = psutil.Process()
    before = process.memory_info().rss
    occupied: list[int] = []
    seen: list[int] = []
    ended = threading.Event()

    def observe() -> None:
        while not ended.wait(0.05):
            occupied.append(process.memory_info().rss)
            with store.organization("acme") as connection:
                seen.append(
                    connection.exec_driver_sql("SELECT count(*) FROM raw.postgresql_acme_db_users").scalar_one()
                )

    observer = threading.Thread(target=observe)
    observer.start()
    report = sync(store)
    ended.set()
    observer.join()
    assert report.error is None
    assert report.objects["users"].counts.read == rows
    assert set(seen) <= {0, rows}  # never a part of it
    assert (max(occupied) - before) / 2**20 < most
    assert mirrored(store, "users", "id") == in_source(source, "users", "id")


def _read_so_far(store: Store) -> int:
    with store.operator() as connection:
        return int(connection.exec_driver_sql("SELECT coalesce(max(read), 0) FROM ingest.sync_objects").scalar_one())
