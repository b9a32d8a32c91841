"""The change stream: every write arrives, in order, and a reader goes on where it ended."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from churnguard_pipelines.connectors.mongodb import MongoDB
from churnguard_pipelines.errors import ProviderUnavailable, SourceChanged
from churnguard_pipelines.mirrors import Change, ChangeBatch
from tests.connectors.mongodb.conftest import Connect, Replica, Source, integration_of, needs_own_server
from tests.sources.flaky import FlakyNetwork
from tests.sources.mongodb import MongoDBServer


def documents(source: Source, name: str) -> dict[str, Any]:
    return {str(document["_id"]): document for document in source[name].find()}


def told(replica: Replica, name: str) -> dict[str, Any]:
    return {key: orjson.loads(row[-1]) for key, row in replica.rows[name].items()}


def changes(connector: MongoDB, position: Any, *names: str) -> list[Change]:
    """All that is there after the position."""
    tables = [table for table in connector.discover() if table.object in names]
    found: list[Change] = []
    with connector.changes(tables, position) as log:
        while (batch := log.read(0.5)) is not None:
            found += batch.changes
    return found


def write_at_random(source: Source, chance: random.Random, writes: int) -> None:
    for _ in range(writes):
        name, key = chance.choice(("users", "teams")), f"k{chance.randrange(80)}"
        match chance.randrange(6):
            case 0 | 1:
                source[name].update_one({"_id": key}, {"$set": {"n": chance.randrange(1000)}}, upsert=True)
            case 2:
                source[name].replace_one({"_id": key}, {"text": "x" * chance.randrange(50)}, upsert=True)
            case 3:
                source[name].delete_one({"_id": key})
            case 4:
                source[name].update_many({"n": {"$gt": chance.randrange(1000)}}, {"$inc": {"n": 1}})
            case _:
                source["ignored"].insert_one({"n": 1})


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_replica_equals_its_source_however_often_the_reader_ends(source: Source, connect: Connect, seed: int) -> None:
    chance = random.Random(seed)
    for name in ("users", "teams", "ignored"):
        source[name].insert_one({"_id": "first", "n": 0, "text": ""})
    connector = connect(sync_mode="real_time")
    tables = [table for table in connector.discover() if table.object != "ignored"]
    replica = Replica(tables)
    replica.position = connector.begin_changes(tables)
    for _ in range(6):
        write_at_random(source, chance, 60)
        with connector.changes(tables, replica.position) as log:
            replica.follow(log, until=lambda: bool(chance.randrange(2)))
    write_at_random(source, chance, 20)
    with connector.changes(tables, replica.position) as log:
        replica.follow(log, until=lambda: True)
    for name in ("users", "teams"):
        now = {key: value for key, value in documents(source, name).items() if key != "first"}
        assert told(replica, name) == now
    assert replica.versions == sorted(replica.versions)


def test_snapshot_and_changes_meet_without_a_gap(source: Source, connect: Connect) -> None:
    """The greater version wins, whichever of the two came first."""
    source.users.insert_many([{"_id": f"k{n}", "n": n} for n in range(200)])
    connector = connect(sync_mode="real_time")
    tables = connector.discover()
    position = connector.begin_changes(tables)
    source.users.update_many({"n": {"$lt": 50}}, {"$set": {"early": True}})
    with connector.snapshot(tables, followed=True) as snapshot:
        source.users.delete_many({"n": {"$gte": 150}})
        source.users.update_many({"n": {"$gte": 100}}, {"$set": {"late": True}})
        rows: dict[str, tuple[int, Any]] = {}
        for piece in snapshot.pieces(tables[0], None):
            for line in b"".join(snapshot.copy(tables[0], piece)).decode().splitlines():
                version, key, *_, document = line.split("\t")
                rows[key] = int(version), orjson.loads(document)
    for change in changes(connector, position, "users"):
        key = change.values[0] if change.values else change.key[0] if change.key else ""
        if change.version >= rows.get(key, (0, None))[0]:
            rows[key] = change.version, orjson.loads(change.values[-1]) if change.values else None
    assert {key: row for key, (_, row) in rows.items() if row is not None} == documents(source, "users")


def test_a_document_that_is_gone_when_its_update_is_read_is_deleted_after_it(source: Source, connect: Connect) -> None:
    source.users.insert_one({"_id": "a", "n": 1})
    connector = connect()
    position = connector.begin_changes([])
    source.users.update_one({"_id": "a"}, {"$set": {"n": 2}})
    source.users.delete_one({"_id": "a"})
    [change] = changes(connector, position, "users")
    assert (change.kind, change.key) == ("delete", ("a",))


def test_a_transaction_has_one_version(source: Source, connect: Connect) -> None:
    source.users.insert_one({"_id": "first"})
    connector = connect()
    position = connector.begin_changes([])
    with source.client.start_session() as session, session.start_transaction():
        source.users.insert_many([{"_id": f"k{n}"} for n in range(3)], session=session)
    source.users.insert_one({"_id": "last"})
    told = changes(connector, position, "users")
    assert len(told) == 4
    assert told[-1].version > told[0].version


def test_a_dropped_collection_is_empty_and_may_come_again(source: Source, connect: Connect) -> None:
    source.users.insert_many([{"_id": "a"}, {"_id": "b"}])
    connector = connect()
    position = connector.begin_changes([])
    source.users.insert_one({"_id": "c"})
    source.users.drop()
    source.users.insert_one({"_id": "d"})
    replica = Replica(connector.discover())
    replica.rows["users"] = {"a": (), "b": ()}
    with connector.changes(connector.discover(), position) as log:
        replica.follow(log, until=lambda: True)
    assert replica.rows["users"].keys() == {"d"}


def test_a_collection_that_takes_anothers_name_is_read(source: Source, connect: Connect) -> None:
    """As `$out` and many a nightly job do it."""
    source.users.insert_many([{"_id": f"old{n}", "n": n} for n in range(5)])
    connector = connect()
    tables = connector.discover()
    position = connector.begin_changes(tables)
    source.users_new.insert_many([{"_id": f"new{n}", "n": n} for n in range(250)])
    source.users_new.rename("users", dropTarget=True)
    source.users.update_one({"_id": "new7"}, {"$set": {"n": -1}})
    replica = Replica(tables)
    with connector.changes(tables, position) as log:
        batches = [log.read(1.0) for _ in range(2)]
    for _ in range(2):  # the reader ends in the middle of the copy, and begins it anew
        with connector.changes(tables, position) as log:
            replica.follow(log, until=lambda: True)
    assert all(batch is None or batch.position["token"] for batch in batches)
    assert told(replica, "users") == documents(source, "users")


def test_a_renamed_collection_is_gone(source: Source, connect: Connect) -> None:
    source.users.insert_one({"_id": "a"})
    source.users_old.insert_one({"_id": "x"})
    connector = connect()
    tables = [table for table in connector.discover() if table.object == "users"]
    position = connector.begin_changes(tables)
    source.users.rename("elsewhere")
    with connector.changes(tables, position) as log:
        batch = log.read(2.0)
        while isinstance(batch, ChangeBatch) and not batch.changes:
            batch = log.read(2.0)
    assert batch is not None
    assert [(change.object, change.kind) for change in batch.changes] == [("users", "truncate")]


def test_a_dropped_database_stops_with_what_to_do(source: Source, connect: Connect) -> None:
    source.users.insert_one({"_id": "a"})
    connector = connect()
    tables = connector.discover()
    position = connector.begin_changes(tables)
    source.users.insert_one({"_id": "b"})
    source.client.drop_database(source.name)
    replica = Replica(tables)
    with (
        pytest.raises(SourceChanged, match=r"dropped.*integrations reset acme-db"),
        connector.changes(tables, position) as log,
    ):
        replica.follow(log, until=lambda: False)
    assert len(replica.versions) == 2  # what came before was told: a row, and that the collection was dropped


def test_an_idle_source_moves_the_position_on(source: Source, connect: Connect) -> None:
    source.users.insert_one({"_id": "a"})
    connector = connect()
    tables = connector.discover()
    position = connector.begin_changes(tables)
    source.others.insert_one({"_id": "b"})
    with connector.changes(tables, position) as log:
        batch = log.read(5.0)
        assert batch is not None
        assert (batch.changes, batch.whole) == ((), True)
        assert batch.position["token"] != position["token"]
        assert batch.position["time"] >= position["time"]


def test_large_documents_arrive(source: Source, connect: Connect) -> None:
    """Old, new and what changed are more than one answer holds."""
    most = 16 * 2**20 - 60
    source.users.insert_one({"_id": "a", "text": "x" * most})
    connector = connect()
    tables = connector.discover()
    position = connector.begin_changes(tables)
    source.users.update_one({"_id": "a"}, {"$set": {"text": "y" * most}})
    [change] = changes(connector, position, "users")
    assert change.values is not None
    assert change.values[1] == "y" * most


def test_moments_and_lag(source: Source, connect: Connect) -> None:
    source.users.insert_one({"_id": "a"})
    connector = connect()
    tables = connector.discover()
    position = connector.begin_changes(tables)
    assert connector.lag(position).seconds == 0
    begun = datetime.now(UTC)
    source.users.insert_one({"_id": "b"})
    old = {**position, "time": position["time"] - (100 << 32)}
    assert (connector.lag(old).seconds or 0) >= 100
    with connector.changes(tables, position) as log:
        batch = log.read(2.0)
        while batch is not None and not batch.changes:
            batch = log.read(2.0)
        assert batch is not None
        assert batch.committed_at is not None
        assert abs((batch.committed_at - begun).total_seconds()) < 2
        assert connector.lag(batch.position).seconds == 0


def test_a_position_of_another_cluster_is_refused(
    source: Source, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SecantusDB does not tell which cluster it is."""
    monkeypatch.setattr("churnguard_pipelines.connectors.mongodb.connection.Source.cluster", lambda source: "this")
    source.users.insert_one({"_id": "a"})
    connector = connect()
    tables = connector.discover()
    position = connector.begin_changes(tables)
    with pytest.raises(SourceChanged, match="belongs to the cluster another"):
        connector.changes(tables, {**position, "cluster": "another"})


@needs_own_server
@pytest.mark.parametrize("code", [280, 286])
def test_a_log_that_was_cut_says_what_to_do(source: Source, connect: Connect, code: int) -> None:
    source.users.insert_one({"_id": "a"})
    connector = connect()
    tables = connector.discover()
    position = connector.begin_changes(tables)
    fail = {"failCommands": ["getMore", "aggregate"], "errorCode": code, "appName": "churnguard acme-db"}
    source.client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=fail)
    with (
        pytest.raises(SourceChanged, match=r"integrations reset acme-db.*replSetResizeOplog"),
        connector.changes(tables, position) as log,
    ):
        log.read(1.0)


@needs_own_server
def test_a_server_that_is_killed_comes_back_without_loss(own_server: MongoDBServer) -> None:
    with own_server.client() as client:
        source = client["product"]
        source.users.insert_one({"_id": "first", "n": 0})
        connector = MongoDB(integration_of(own_server, "product", sync_mode="real_time"))
        tables = connector.discover()
        replica = Replica(tables)
        replica.position = connector.begin_changes(tables)
        for round in range(4):
            source.users.insert_many([{"_id": f"{round}-{n}", "n": n} for n in range(300)])
            with connector.changes(tables, replica.position) as log:
                replica.follow(log, until=lambda: True)
                source.users.update_many({"n": {"$lt": 20}}, {"$inc": {"n": 1}})
                own_server.kill()
                own_server.start()
                source.users.delete_many({"n": {"$gt": 290}})
                replica.follow(log, until=lambda: True)
        now = documents(source, "users")
        del now["first"]
        replica.rows["users"].pop("first", None)
        assert told(replica, "users") == now
        connector.close()


@needs_own_server
def test_a_bad_network_loses_nothing(source: Source, source_server: MongoDBServer) -> None:
    source.users.insert_one({"_id": "first", "n": 0, "padding": ""})
    with FlakyNetwork(source_server.port, 150_000) as network:
        fields = {"port": str(network.port)}
        connector = MongoDB(integration_of(source_server, source.name, custom=fields))
        tables = connector.discover()
        replica = Replica(tables)
        replica.position = connector.begin_changes(tables)
        for n in range(0, 2000, 200):
            source.users.insert_many([{"_id": f"k{n + m}", "n": m, "padding": "x" * 300} for m in range(200)])
        while True:
            try:
                with connector.changes(tables, replica.position) as log:
                    replica.follow(log, until=lambda: True)
                break
            except ProviderUnavailable:
                continue
        connector.close()
    assert network.cut > 2
    assert len(replica.rows["users"]) == 2000
