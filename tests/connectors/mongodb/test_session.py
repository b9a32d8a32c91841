"""A warm session: changes arrive while it lives; collections that a sync finds are followed, by another name too."""

from __future__ import annotations

from typing import Any

from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest.catalogue import get_lag
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.lag_probes import look_at
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import running, sync
from tests.connectors.mongodb.conftest import Configure, Source, needs_own_server
from tests.connectors.mongodb.test_sync import in_source, stored
from tests.sources.flaky import FlakyNetwork
from tests.sources.mongodb import MongoDBServer
from tests.waiting import wait_for


def same(store: Store, source: Source, name: str) -> bool:
    return stored(store, name) == in_source(source, name)


def test_changes_arrive_while_a_session_lives(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_one({"_id": "first", "n": 0})
    register(sync_mode="real_time")
    sync(store)
    worked: list[Any] = []
    with running(store, on_worked=worked.append):
        source.users.insert_many([{"_id": f"u{n}", "n": n} for n in range(500)])
        wait_for(lambda: same(store, source, "users"))
        source.users.update_many({"n": {"$lt": 100}}, {"$set": {"tags": ["x", {"y": 1}]}})
        source.users.delete_many({"n": {"$gte": 400}})
        wait_for(lambda: same(store, source, "users"))
    assert sum(each["acme-db", "users"].read for each in worked if each) == 500 + 101 + 100


def test_a_session_follows_collections_that_a_sync_finds(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_one({"_id": "first"})
    register(sync_mode="real_time")
    sync(store)
    with running(store):
        source.users.insert_one({"_id": "a"})
        wait_for(lambda: same(store, source, "users"))
        source.plans.insert_many([{"_id": f"p{n}", "price": n} for n in range(50)])
        assert statuses(sync(store)) == {"users": "succeeded", "plans": "succeeded"}
        source.plans.update_one({"_id": "p3"}, {"$set": {"price": 7.5}})
        source.plans.insert_one({"_id": "p51", "price": 1})
        wait_for(lambda: same(store, source, "plans"))


def test_a_collection_that_is_replaced_arrives_whole(store: Store, register: Configure, source: Source) -> None:
    """As `$out` does it each night."""
    source.users.insert_many([{"_id": f"old{n}"} for n in range(50)])
    register(sync_mode="real_time")
    sync(store)
    with running(store):
        source.made.insert_many([{"_id": f"new{n}"} for n in range(350)])
        source.made.rename("users", dropTarget=True)
        source.users.insert_one({"_id": "after"})
        wait_for(lambda: same(store, source, "users"))
        source.users.drop()
        wait_for(lambda: stored(store, "users") == {})


@needs_own_server
def test_a_session_over_a_bad_network(
    store: Store, register: Configure, source: Source, source_server: MongoDBServer
) -> None:
    source.users.insert_one({"_id": "first"})
    with FlakyNetwork(source_server.port, 200_000) as network:
        register(sync_mode="real_time", custom={"port": str(network.port)})
        sync(store)
        with running(store):
            for part in range(10):
                source.users.insert_many([{"_id": f"u{part}-{n}", "padding": "x" * 300} for n in range(200)])
            wait_for(lambda: same(store, source, "users"))
        assert network.cut > 2


def test_quiet_ends_a_session(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_one({"_id": "first"})
    register(sync_mode="real_time")
    sync(store)
    with running(store, linger=0.5) as thread:
        thread.join(30)
        assert not thread.is_alive()


def test_lag_is_seen_from_outside(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_one({"_id": "first"})
    register(sync_mode="real_time")
    sync(store)
    lag = look_at(store, get_integration(store, "acme-db"))
    assert lag is not None
    assert lag.seconds == 0
    assert lag == get_lag(store, "acme-db")
