"""Every table equals its source, row by row, whatever was killed: the source, the session, the warehouse's server.

Random transactions of random size run meanwhile, and the first sync is killed in its middle, too. Three kills here,
sixty with CHURNGUARD_SOAK=1. The seed is in the test's id.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.mirrors import mirrored
from tests.connectors.postgresql.conftest import in_source
from tests.soak import SOAK
from tests.sources.installation import KILLS, SYNC, VICTIMS, Installation
from tests.sources.postgresql import PASSWORD, PostgreSQLServer
from tests.waiting import wait_for

TABLES = {"users": ("id", "email", "body", "paid", "at"), "pairs": ("a", "b", "n")}

pytestmark = pytest.mark.soak


class Product:
    """A customer's application: it writes all the time, and goes on after its database was away."""

    def __init__(self, server: PostgreSQLServer, chance: random.Random) -> None:
        self._server, self._chance = server, chance
        self._ended = threading.Event()
        self.transactions = 0
        with server.connect() as connection:
            connection.execute(
                "CREATE TABLE users (id int PRIMARY KEY, email text, body text, paid numeric(12,2), at timestamptz)"
            )
            connection.execute("ALTER TABLE users ALTER body SET STORAGE EXTERNAL")
            connection.execute("CREATE TABLE pairs (a int, b text, n bigint, PRIMARY KEY (a, b))")
            connection.execute(
                "INSERT INTO users SELECT n, 'u' || n, repeat('x', 3000), n, now() FROM generate_series(1, 20000) n"
            )
            connection.execute("INSERT INTO pairs SELECT n % 50, 'p' || n, n FROM generate_series(1, 5000) n")
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.is_set():
            # A key that is taken, or the server is away: the next transaction comes all the same.
            with suppress(psycopg.OperationalError, psycopg.IntegrityError), self._server.connect() as connection:
                while not self._ended.is_set():
                    self._transaction(connection)
            self._ended.wait(0.05)

    def _transaction(self, connection: psycopg.Connection[Any]) -> None:
        chance = self._chance
        with connection.transaction():
            for _ in range(chance.choice((1, 1, 3, 20))):
                low = chance.randrange(1, 25_000)
                self._one(connection, chance.randrange(8), low, low + chance.choice((0, 0, 5, 100)))
            if chance.random() < 0.1:
                raise psycopg.Rollback
        self.transactions += 1
        self._ended.wait(0.005)

    def _one(self, connection: psycopg.Connection[Any], kind: int, low: int, high: int) -> None:
        moved = self._chance.randrange(30_000, 2_000_000_000)
        span = f"BETWEEN {low} AND {high}"
        rows, ids, numbers = f"generate_series({low}, {high}) n", f"id {span}", f"n {span}"
        connection.execute(
            (
                f"INSERT INTO users SELECT n, 'n' || n, repeat('y', 2500), n, now() FROM {rows} ON CONFLICT DO NOTHING",
                f"UPDATE users SET email = left(email, 50) || '!', at = now() WHERE {ids}",
                f"UPDATE users SET body = repeat('z', 2200), paid = paid + 1 WHERE {ids}",
                f"DELETE FROM users WHERE {ids}",
                f"UPDATE users SET id = {moved} WHERE id = {low}",
                f"INSERT INTO pairs SELECT n % 50, 'q' || n, n FROM {rows} ON CONFLICT DO NOTHING",
                f"UPDATE pairs SET b = left(b, 50) || '+' WHERE {numbers}",
                f"DELETE FROM pairs WHERE {numbers}",
            )[kind]
        )


@pytest.fixture
def source(home_of_source: Path) -> Iterator[PostgreSQLServer]:
    server = PostgreSQLServer(home_of_source)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def ours(home_of_ours: Path, source: PostgreSQLServer) -> Iterator[Installation]:
    made = Installation(home_of_ours, "postgresql", "owner", PASSWORD, port=str(source.port), database="postgres")
    yield made
    made.stop()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20261124])
def test_every_table_equals_its_source_after_kills(source: PostgreSQLServer, ours: Installation, seed: int) -> None:
    product = Product(source, random.Random(seed + 1))
    try:
        ours.start(SYNC)
        wait_for(lambda: ours.progress("users") >= 2)  # in the middle of its copy, or a little after
        ours.kill()
        sync_integration(ours.store, "acme-db", sync_id="first")
        killed = ours.endure(source, KILLS, random.Random(seed))
        product.stop()

        def all_has_come() -> bool:
            ours.keep()
            return ("-1", "last") in mirrored(ours.store, "pairs", "a", "b")

        with source.connect() as connection:
            connection.execute("INSERT INTO pairs VALUES (-1, 'last', 0)")
            wait_for(all_has_come, 120)
            for table, columns in TABLES.items():
                assert mirrored(ours.store, table, *columns) == in_source(connection, table, *columns)
        assert set(killed.values()) == {KILLS // len(VICTIMS)}
        assert product.transactions > 20 * KILLS
    finally:
        product.stop()


@pytest.mark.slow
def test_a_snapshot_killed_halfway_goes_on_from_there(source: PostgreSQLServer, ours: Installation) -> None:
    rows = 1_000_000 if SOAK else 200_000
    with source.connect() as connection:
        connection.execute("CREATE TABLE users (id int PRIMARY KEY, email text, padding text)")
        connection.execute(f"INSERT INTO users SELECT n, 'u' || n, repeat('x', 200) FROM generate_series(1, {rows}) n")
        connection.execute("ANALYZE users")
        (pages,) = connection.execute("SELECT relpages FROM pg_class WHERE relname = 'users'").fetchone() or (0,)

    ours.sync_killed_halfway()
    reached = int(ours.mark_of("users")[1])
    assert 0 < reached < pages
    report = sync_integration(ours.store, "acme-db", sync_id="second")
    assert report.objects["users"].counts.read <= rows * (1 - reached / pages) * 1.01
    with source.connect() as connection:
        assert mirrored(ours.store, "users", "id", "email") == in_source(connection, "users", "id", "email")
