"""Whole collections by ranges of ids, increments by a cursor field, through pipelines, with files of GridFS."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import gridfs
import orjson
import pytest
from bson import Binary, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp

from churnguard_pipelines.connectors.mongodb import MongoDB
from churnguard_pipelines.connectors.mongodb import reading as mongodb_reading
from churnguard_pipelines.connectors.mongodb import snapshot as mongodb_snapshot
from churnguard_pipelines.mirrors import SourceTable
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.mongodb.conftest import (
    Configure,
    Connect,
    Replica,
    Source,
    integration_of,
    needs_own_server,
)
from tests.sources.flaky import FlakyNetwork
from tests.sources.mongodb import MongoDBServer

NOON = datetime(2024, 5, 1, 12)  # noqa: DTZ001  the driver's way to say UTC


def rows(data: bytes) -> list[list[str]]:
    return [line.split("\t") for line in data.decode().splitlines()]


def ids(data: bytes) -> list[str]:
    return [row[1] for row in rows(data)]


def table_of(connector: MongoDB, name: str) -> SourceTable:
    return next(table for table in connector.discover() if table.object == name)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongodb_reading, "AT_ONCE", 4)
    monkeypatch.setattr(mongodb_snapshot, "PIECE_BATCHES", 1)


def test_ranges_lose_no_type_of_id(source: Source, connect: Connect, small_pieces: None) -> None:
    source.mixed.insert_many(
        {"_id": key, "n": 1}
        for key in (
            1, 2.5, Int64(2**40), Decimal128("7"), "a", "b", "", ObjectId(), ObjectId(), True, False, NOON, {"a": 1},
            {"a": "x"}, MinKey(), MaxKey(), Timestamp(1, 1), b"x", Binary(b"y" * 16, 4),
        )
    )  # fmt: skip
    connector = connect()
    table = table_of(connector, "mixed")
    with connector.snapshot([table], followed=False) as snapshot:
        pieces = list(snapshot.pieces(table, None))
        read = [ids(b"".join(snapshot.copy(table, piece))) for piece in pieces]
        again = list(snapshot.pieces(table, pieces[2].begin))
    assert [len(piece) for piece in read] == [4, 4, 4, 4, 3]
    assert len({key for piece in read for key in piece}) == 19
    assert again == pieces[2:]
    assert all(left.end == right.begin for left, right in pairwise(pieces))
    assert orjson.loads(orjson.dumps(pieces[1].begin)) == pieces[1].begin


def test_an_empty_collection_has_one_piece(source: Source, connect: Connect) -> None:
    source.create_collection("nothing")
    connector = connect()
    table = table_of(connector, "nothing")
    with connector.snapshot([table], followed=False) as snapshot:
        [piece] = snapshot.pieces(table, None)
        assert (piece.begin, piece.end) == (None, None)
        assert b"".join(snapshot.copy(table, piece)) == b""
    assert [column.name for column in table.columns] == ["_id", "document"]


def test_several_threads_read_one_snapshot(source: Source, connect: Connect, small_pieces: None) -> None:
    source.users.insert_many([{"n": n} for n in range(40)])
    connector = connect()
    table = table_of(connector, "users")
    found: list[str] = []
    with connector.snapshot([table], followed=True) as snapshot:
        workers = [
            threading.Thread(target=lambda piece=piece: found.extend(ids(b"".join(snapshot.copy(table, piece)))))
            for piece in snapshot.pieces(table, None)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert sorted(found) == sorted(str(document["_id"]) for document in source.users.find())


def test_large_documents_make_small_pieces(source: Source, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    source.users.insert_many([{"n": n} for n in range(6)])
    connector = connect()
    table = table_of(connector, "users")
    monkeypatch.setattr(mongodb_reading, "AT_ONCE", 2)
    monkeypatch.setattr(mongodb_snapshot, "PIECE_BYTES", 1)
    with connector.snapshot([table], followed=False) as snapshot:
        assert len(list(snapshot.pieces(table, None))) == 3


def increment(connector: MongoDB, name: str, column: str, after: str | None) -> tuple[set[str], str | None]:
    table = table_of(connector, name)
    found: set[str] = set()
    greatest = None
    with connector.snapshot([table], followed=False) as snapshot:
        for part, cursor in snapshot.increment(table, column, after):
            found |= set(ids(part))
            greatest = cursor
    return found, greatest


@pytest.mark.parametrize(
    ("values", "greatest", "later"),
    [
        ([1, 5, 9], "9", [9, 10]),
        ([1.5, 5.5, 9.25], "9.25", [9.25, 1e300]),
        ([Decimal128("1.1"), 2, Decimal128("9.10")], "9.10", [Decimal128("9.1"), 9.2]),
        (["a", "m", "z"], "z", ["z", "ü"]),
        ([ObjectId("0" * 24), ObjectId("a" * 24), ObjectId("b" * 24)], "b" * 24,
         [ObjectId("b" * 24), ObjectId("f" * 24)]),
        (
            [NOON - timedelta(hours=2), NOON - timedelta(hours=1), NOON],
            "2024-05-01T12:00:00+00:00",
            [NOON - timedelta(minutes=4), NOON, NOON + timedelta(1), DatetimeMS(253402300799999)],
        ),
    ],
    ids=["int", "double", "decimal", "string", "objectId", "date"],
)  # fmt: skip
def test_increments(source: Source, connect: Connect, values: list[Any], greatest: str, later: list[Any]) -> None:
    source.users.insert_many([{"_id": f"v{n}", "at": value} for n, value in enumerate(values)])
    connector = connect()
    assert increment(connector, "users", "at", None) == ({"v0", "v1", "v2"}, greatest)
    source.users.insert_many([{"_id": f"l{n}", "at": value} for n, value in enumerate(later)])
    source.users.insert_many([{"_id": "none", "at": None}, {"_id": "missing"}])
    found, after = increment(connector, "users", "at", greatest)
    assert found == {"v2", "none", "missing", *(f"l{n}" for n in range(len(later)))}
    assert after is not None


def test_a_cursor_of_another_type_is_read_each_time(source: Source, connect: Connect) -> None:
    source.users.insert_many([{"_id": f"v{n}", "at": n} for n in range(300)])
    connector = connect()
    table = table_of(connector, "users")
    source.users.insert_many([{"_id": "text", "at": "1"}, {"_id": "date", "at": NOON}, {"_id": "list", "at": ["x"]}])
    with connector.snapshot([table], followed=False) as snapshot:
        [(part, greatest)] = snapshot.increment(table, "at", "299")
    assert set(ids(part)) == {"v299", "text", "date", "list"}
    assert greatest == "299"


def test_keys_are_all(source: Source, connect: Connect) -> None:
    source.users.insert_many([{"_id": key} for key in ("a", 2, ObjectId("c" * 24))])
    connector = connect()
    table = table_of(connector, "users")
    with connector.snapshot([table], followed=False) as snapshot:
        keys = b"".join(snapshot.keys(table)).decode().splitlines()
    assert sorted(keys) == sorted(["a", "2", "c" * 24])
    assert {row[0] for row in connector.fetch(table, [("a",), ("2",), ("gone",)])} == {
        "a", "2",
    }  # fmt: skip


PIPELINE = {
    "users": [
        {"$match": {"internal": {"$ne": True}}},
        {"$unset": "secret"},
        {"$set": {"twice": {"$add": ["$n", "$n"]}}},
    ]
}


def test_pipelines_hold_for_every_way_of_reading(source: Source, connect: Connect) -> None:
    source.users.insert_many([{"_id": f"u{n}", "n": n, "secret": "x", "internal": n % 2 == 0} for n in range(10)])
    connector = connect(custom={"pipelines": orjson.dumps(PIPELINE).decode()})
    table = table_of(connector, "users")
    assert [column.name for column in table.columns] == ["_id", "n", "internal", "twice", "document"]
    with connector.snapshot([table], followed=False) as snapshot:
        [piece] = snapshot.pieces(table, None)
        whole = rows(b"".join(snapshot.copy(table, piece)))
        keys = b"".join(snapshot.keys(table)).decode().split()
        [(part, greatest)] = snapshot.increment(table, "twice", "14")
    assert [row[1] for row in whole] == keys == ["u1", "u3", "u5", "u7", "u9"]
    assert whole[0][4] == "2"
    assert "secret" not in whole[0][-1]
    assert (ids(part), greatest) == (["u7", "u9"], "18")


def test_pipelines_hold_for_changes(source: Source, connect: Connect) -> None:
    source.users.insert_many([{"_id": f"u{n}", "n": n, "secret": "x", "internal": n % 2 == 0} for n in range(4)])
    connector = connect(custom={"pipelines": orjson.dumps(PIPELINE).decode()})
    table = table_of(connector, "users")
    replica = Replica([table])
    replica.rows["users"] = {"u1": (), "u3": ()}
    position = connector.begin_changes([table])
    source.users.update_one({"_id": "u1"}, {"$set": {"internal": True}})  # does not match any more
    source.users.update_one({"_id": "u2"}, {"$set": {"internal": False}})  # matches now
    source.users.update_one({"_id": "u3"}, {"$set": {"n": 30}})
    source.users.insert_one({"_id": "u9", "n": 1, "internal": True})
    with connector.changes([table], position) as log:
        replica.follow(log, until=lambda: True)
    assert {key: row[3] for key, row in replica.rows["users"].items()} == {"u2": 4, "u3": 60}
    assert all("secret" not in row[-1] for row in replica.rows["users"].values())


@pytest.mark.parametrize("wanted", [True, False])
def test_files_of_gridfs(store: Store, register: Configure, source: Source, wanted: bool) -> None:
    bucket = gridfs.GridFSBucket(source, "docs", chunk_size_bytes=1000)
    contents = {"small": b"\x00\xff" * 10, "empty": b"", "chunks": bytes(range(256)) * 20}
    for name, content in contents.items():
        bucket.upload_from_stream(name, content, metadata={"by": "ann"})
    torn = bucket.upload_from_stream("torn", b"x" * 3000)
    source["docs.chunks"].delete_one({"files_id": torn, "n": 1})
    large = bucket.upload_from_stream("large", b"x")
    source["docs.files"].update_one({"_id": large}, {"$set": {"length": 17 * 2**20}})
    register(sync_mode="real_time", custom={"gridfs_content": "true"} if wanted else {})
    assert statuses(sync(store)) == {"docs.files": "succeeded"}
    bucket.upload_from_stream("late", b"late")
    sync(store)
    columns = ("filename", "content") if wanted else ("filename", "metadata")
    found = dict(mirrored(store, "docs_files", *columns))
    if wanted:
        expected = contents | {"late": b"late"}
        assert found == {name: f"\\x{content.hex()}" for name, content in expected.items()} | {
            "torn": None, "large": None,
        }  # fmt: skip
    else:
        assert found["small"] == '{"by": "ann"}'


@needs_own_server
def test_a_copy_over_a_bad_network_goes_on_where_it_was_cut(
    store: Store, register: Configure, source: Source, source_server: MongoDBServer
) -> None:
    source.users.insert_many([{"_id": f"u{n:05}", "padding": "x" * 400} for n in range(12_000)])
    with FlakyNetwork(source_server.port, 1_500_000) as network:
        register(custom={"port": str(network.port)})
        report = sync(store)
    assert network.cut > 2
    assert report.objects["users"].counts.read == 12_000
    assert len(mirrored(store, "users", "_id")) == 12_000


@needs_own_server
def test_a_copy_over_a_network_that_brings_nothing_ends(
    store: Store, register: Configure, source: Source, source_server: MongoDBServer
) -> None:
    """No answer to a question for documents, of some 450 kB, passes whole."""
    source.users.insert_many([{"_id": f"u{n:05}", "padding": "x" * 400} for n in range(12_000)])
    with FlakyNetwork(source_server.port, 400_000) as network:
        register(custom={"port": str(network.port)})
        report = sync(store)
    assert report.status == "failed"
    assert "MongoDB cannot be used" in str(report.objects["users"].error)
    assert mirrored(store, "users", "_id") == []
    register()
    assert sync(store).status == "succeeded"
    assert len(mirrored(store, "users", "_id")) == 12_000


@needs_own_server
def test_a_server_that_restarts_during_a_copy(own_server: MongoDBServer, small_pieces: None) -> None:
    """The marks of one snapshot hold in another."""
    with own_server.client() as client:
        client["product"].users.insert_many([{"_id": n} for n in range(20)])
        connector = MongoDB(integration_of(own_server, "product"))
        table = table_of(connector, "users")
        found: list[str] = []
        with connector.snapshot([table], followed=True) as snapshot:
            first = snapshot.version
            pieces = snapshot.pieces(table, None)
            piece = next(pieces)
            found += ids(b"".join(snapshot.copy(table, piece)))
            own_server.kill()
        own_server.start()
        with connector.snapshot([table], followed=True) as snapshot:
            assert snapshot.version >> 32 >= first >> 32  # seconds: a killed SecantusDB counts anew within one
            for each in snapshot.pieces(table, piece.end):
                found += ids(b"".join(snapshot.copy(table, each)))
        connector.close()
    assert len(found) == len(set(found)) == 20
