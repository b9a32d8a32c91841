"""Every collection equals its source, document by document, whatever was killed: the source, the session, the
warehouse's server.

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

import pytest
from bson import Int64
from pymongo import ReplaceOne
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.mongodb.conftest import needs_own_server
from tests.connectors.mongodb.test_sync import in_source, stored
from tests.soak import SOAK
from tests.sources.installation import KILLS, SYNC, VICTIMS, Installation
from tests.sources.mongodb import PASSWORD, USER, MongoDBServer
from tests.waiting import wait_for

COLLECTIONS = ("users", "pairs")
USERS = 40_000 if SOAK else 10_000

pytestmark = [needs_own_server, pytest.mark.slow, pytest.mark.soak]


class Product:
    """A customer's application: it writes all the time, and goes on after its database was away."""

    def __init__(self, server: MongoDBServer, chance: random.Random) -> None:
        self._server, self._chance = server, chance
        self._ended = threading.Event()
        self.transactions = 0
        with server.client() as client:
            for first in range(0, USERS, 10_000):
                client["shop"].users.insert_many([user(n) for n in range(first, first + 10_000)])
            client["shop"].pairs.insert_many([{"_id": f"p{n}", "n": n} for n in range(5_000)])
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.is_set():
            # An id that is taken, or the server is away: the next transaction comes all the same.
            with suppress(PyMongoError), self._server.client() as client:
                while not self._ended.is_set():
                    self._transaction(client["shop"])
            self._ended.wait(0.05)

    def _transaction(self, shop: Any) -> None:
        chance = self._chance
        with shop.client.start_session() as session:
            session.start_transaction()
            for _ in range(chance.choice((1, 1, 3, 10))):
                low = chance.randrange(USERS)
                self._one(shop, session, chance.randrange(7), low, low + chance.choice((1, 1, 5, 50)))
            session.abort_transaction() if chance.random() < 0.1 else session.commit_transaction()
        self.transactions += 1
        self._ended.wait(0.005)

    def _one(self, shop: Any, session: ClientSession, kind: int, low: int, high: int) -> None:
        ids = {"_id": {"$in": [f"u{n}" for n in range(low, high)]}}
        pairs = {"_id": {"$in": [f"p{n % 5_000}" for n in range(low, high)]}}
        match kind:
            case 0:
                moved = self._chance.randrange(10**6, 2 * 10**9)
                shop.users.insert_many([user(moved + n) for n in range(high - low)], session=session)
            case 1:
                shop.users.update_many(ids, {"$inc": {"paid": 1}, "$set": {"tags": ["x", {"y": low}]}}, session=session)
            case 2:
                new = [ReplaceOne({"_id": f"u{n}"}, {"email": None, "n": -n}, upsert=True) for n in range(low, high)]
                shop.users.bulk_write(new, session=session)
            case 3:
                shop.users.delete_many(ids, session=session)
            case 4:
                shop.users.update_many(ids, {"$unset": {"email": ""}}, session=session)
            case 5:
                shop.pairs.update_many(pairs, {"$inc": {"n": 1}}, session=session)
            case _:
                shop.pairs.delete_many(pairs, session=session)


def user(number: int) -> dict[str, Any]:
    return {"_id": f"u{number}", "email": f"u{number}@example.com", "body": "x" * 300, "paid": Int64(number)}


@pytest.fixture
def server(home_of_source: Path) -> Iterator[MongoDBServer]:
    made = MongoDBServer(home_of_source)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def ours(home_of_ours: Path, server: MongoDBServer) -> Iterator[Installation]:
    made = Installation(home_of_ours, "mongodb", USER, PASSWORD, **server.fields("shop"))
    yield made
    made.stop()


@pytest.mark.parametrize("seed", [20261124])
def test_every_collection_equals_its_source_after_kills(server: MongoDBServer, ours: Installation, seed: int) -> None:
    product = Product(server, random.Random(seed + 1))
    try:
        ours.start(SYNC)
        wait_for(lambda: ours.progress("users") >= 2)  # in the middle of its copy, or a little after
        ours.kill()
        sync_integration(ours.store, "acme-db", sync_id="first")
        killed = ours.endure(server, KILLS, random.Random(seed))
        product.stop()

        def all_has_come() -> bool:
            ours.keep()
            return "last" in stored(ours.store, "pairs")

        with server.client() as client:
            client["shop"].pairs.insert_one({"_id": "last"})
            wait_for(all_has_come, 120)
            for name in COLLECTIONS:
                assert stored(ours.store, name) == in_source(client["shop"], name)
        assert set(killed.values()) == {KILLS // len(VICTIMS)}
        assert product.transactions > 10 * KILLS
    finally:
        product.stop()


def test_a_copy_killed_halfway_goes_on_from_there(server: MongoDBServer, ours: Installation) -> None:
    documents = 1_000_000 if SOAK else 60_000
    with server.client() as client:
        for first in range(0, documents, 10_000):
            new = [{"_id": n, "email": f"u{n}", "padding": "x" * 200} for n in range(first, first + 10_000)]
            client["shop"].users.insert_many(new)

    ours.sync_killed_halfway()
    before = int(ours.mark_of("users").split('"')[3])  # {"$numberInt":"20000"}
    assert 0 < before < documents
    report = sync_integration(ours.store, "acme-db", sync_id="second")
    assert report.objects["users"].counts.read == documents - before
    with server.client() as client:
        assert stored(ours.store, "users").keys() == {
            str(each["_id"]) for each in client["shop"].users.find({}, {"_id": 1})
        }
