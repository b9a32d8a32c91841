"""Every table equals its source, row by row, whatever was killed: the source, the session, the warehouse's server.

Random transactions of random size run meanwhile, and the first sync is killed in its middle, too. Three kills here,
sixty with CHURNGUARD_SOAK=1. The seed is in the test's id.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.cursors import Cursor

from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.mirrors import mirrored
from tests.soak import SOAK
from tests.sources.installation import KILLS, SYNC, VICTIMS, Installation
from tests.sources.mariadb import PASSWORD, MariaDBServer
from tests.waiting import wait_for

TABLES = {"users": ("id", "email", "body", "paid", "at"), "pairs": ("a", "b", "n")}

pytestmark = pytest.mark.soak


class Product:
    """A customer's application: it writes all the time, and goes on after its database was away."""

    def __init__(self, server: MariaDBServer, chance: random.Random) -> None:
        self._server, self._chance = server, chance
        self._ended = threading.Event()
        self.transactions = 0
        with closing(server.connect("shop")) as connection, connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE users "
                "(id int PRIMARY KEY, email varchar(99), body text, paid decimal(12,2), at datetime(6))"
            )
            cursor.execute("CREATE TABLE pairs (a int, b varchar(99), n bigint, PRIMARY KEY (a, b))")
            cursor.execute(
                "INSERT INTO users SELECT seq, concat('u', seq), repeat('x', 500), seq, now(6) FROM seq_1_to_120000"
            )
            cursor.execute("INSERT INTO pairs SELECT seq % 50, concat('p', seq), seq FROM seq_1_to_5000")
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.is_set():
            # A key that is taken, or the server is away: the next transaction comes all the same.
            with suppress(pymysql.Error, OSError), closing(self._server.connect("shop")) as connection:
                while not self._ended.is_set():
                    self._transaction(connection)
            self._ended.wait(0.05)

    def _transaction(self, connection: pymysql.Connection[Any]) -> None:
        chance = self._chance
        connection.begin()
        with connection.cursor() as cursor:
            for _ in range(chance.choice((1, 1, 3, 20))):
                low = chance.randrange(1, 125_000)
                self._one(cursor, chance.randrange(8), low, low + chance.choice((0, 0, 5, 100)))
        connection.rollback() if chance.random() < 0.1 else connection.commit()
        self.transactions += 1
        self._ended.wait(0.005)

    def _one(self, cursor: Cursor, kind: int, low: int, high: int) -> None:
        moved = self._chance.randrange(200_000, 2_000_000_000)
        span = f"BETWEEN {low} AND {high}"
        rows, ids = f"seq_{low}_to_{high}", f"id {span}"
        pair = f"a = {low % 50} AND n {span}"
        cursor.execute(
            (
                f"INSERT IGNORE INTO users SELECT seq, concat('n', seq), repeat('y', 900), seq, now(6) FROM {rows}",
                f"UPDATE users SET email = concat(left(email, 50), '!'), at = now(6) WHERE {ids}",
                f"UPDATE users SET body = repeat('z', 700), paid = paid + 1 WHERE {ids}",
                f"DELETE FROM users WHERE {ids}",
                f"UPDATE users SET id = {moved} WHERE id = {low}",
                f"INSERT IGNORE INTO pairs SELECT seq % 50, concat('q', seq), seq FROM {rows}",
                f"UPDATE pairs SET b = concat(left(b, 50), '+') WHERE {pair}",
                f"DELETE FROM pairs WHERE {pair}",
            )[kind]
        )


@pytest.fixture
def shop(home_of_source: Path) -> Iterator[MariaDBServer]:
    server = MariaDBServer(home_of_source)
    server.start()
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
    yield server
    server.stop()


@pytest.fixture
def ours(home_of_ours: Path, shop: MariaDBServer) -> Iterator[Installation]:
    made = Installation(home_of_ours, "mysql", "owner", PASSWORD, port=str(shop.port), database="shop")
    yield made
    made.stop()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20261124])
def test_every_table_equals_its_source_after_kills(shop: MariaDBServer, ours: Installation, seed: int) -> None:
    product = Product(shop, random.Random(seed + 1))
    try:
        ours.start(SYNC)
        wait_for(lambda: ours.progress("users") >= 2)  # in the middle of its copy, or a little after
        ours.kill()
        sync_integration(ours.store, "acme-db", sync_id="first")
        killed = ours.endure(shop, KILLS, random.Random(seed))
        product.stop()

        def all_has_come() -> bool:
            ours.keep()
            return ("-1", "last") in mirrored(ours.store, "pairs", "a", "b")

        with closing(shop.connect("shop")) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO pairs VALUES (-1, 'last', 0)")
        wait_for(all_has_come, 120)
        for table, columns in TABLES.items():
            assert mirrored(ours.store, table, *columns) == in_source(shop, table, *columns)
        assert set(killed.values()) == {KILLS // len(VICTIMS)}
        assert product.transactions > 20 * KILLS
    finally:
        product.stop()


@pytest.mark.slow
def test_a_snapshot_killed_halfway_goes_on_from_there(shop: MariaDBServer, ours: Installation) -> None:
    rows = 1_000_000 if SOAK else 200_000
    with closing(shop.connect("shop")) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE users (id int PRIMARY KEY, email varchar(99), padding text)")
        cursor.execute(f"INSERT INTO users SELECT seq, concat('u', seq), repeat('x', 200) FROM seq_1_to_{rows}")

    ours.sync_killed_halfway()
    reached = int(ours.mark_of("users")[0]) - 1
    assert 0 < reached < rows
    report = sync_integration(ours.store, "acme-db", sync_id="second")
    assert report.objects["users"].counts.read == rows - reached
    assert mirrored(ours.store, "users", "id", "email") == in_source(shop, "users", "id", "email")


def in_source(shop: MariaDBServer, table: str, *columns: str) -> list[tuple[Any, ...]]:
    with closing(shop.connect("shop")) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(columns)} FROM {table}")
        return sorted((tuple(map(_text, row)) for row in cursor.fetchall()), key=repr)


def _text(value: Any) -> str:
    """As PostgreSQL says it."""
    return str(value).rstrip("0") if isinstance(value, datetime) and value.microsecond else str(value)
