"""What goes wrong with a customer's MongoDB: one clear message, and what to do."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
import pytest
from bson import Timestamp

from churnguard_pipelines.connectors.mongodb import MongoDB
from churnguard_pipelines.connectors.mongodb.check import Oplog, share_used
from churnguard_pipelines.connectors.mongodb.documents import key_text, key_value
from churnguard_pipelines.connectors.mongodb.increment import condition
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
)
from churnguard_pipelines.mirror_types import Base
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.mongodb.conftest import Configure, Connect, Source, integration_of, needs_own_server
from tests.sources.mongodb import PASSWORD, USER, MongoDBServer


@needs_own_server
def test_a_wrong_password_is_named_and_not_shown(source: Source, connect: Connect) -> None:
    with pytest.raises(AuthenticationFailed, match=r"refuses the credentials.*auth_database") as raised:
        connect(password="wrong-canary").discover()
    assert "canary" not in str(raised.value)


@needs_own_server
def test_nobody_there(source: Source, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("churnguard_pipelines.connectors.mongodb.connection.CONNECT_SECONDS", 0.5)
    with pytest.raises(ProviderUnavailable, match=r"Connection refused.*Correct the host and port") as raised:
        connect(custom={"port": str(free_port())}).discover()
    assert "Topology" not in str(raised.value)


@needs_own_server
def test_a_server_without_tls(source: Source, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("churnguard_pipelines.connectors.mongodb.connection.CONNECT_SECONDS", 1)
    monkeypatch.setattr("churnguard_pipelines.connectors.mongodb.connection._PROBE_SECONDS", 0.5)
    source.users.insert_one({"_id": 1})
    assert connect(custom={"tls": "prefer"}).discover()
    with pytest.raises(ProviderUnavailable):
        connect(custom={"tls": "require"}).discover()


@pytest.mark.parametrize(
    ("custom", "said"),
    [
        ({"host": ""}, "custom_fields.host is missing"),
        ({"database": ""}, "custom_fields.database is missing"),
        ({"port": "x"}, "custom_fields.port cannot be 'x'"),
        ({"tls": "maybe"}, "custom_fields.tls cannot be 'maybe'.*disable, prefer"),
        ({"connection_string": "mongodb://u:p@ss@h/db", "database": ""}, "connection_string is not.*%40"),
        ({"connection_string": "mongodb://u:canary@h", "database": ""}, "custom_fields.database is missing"),
        ({"connection_string": "http://u:canary@h", "database": "d"}, "connection_string is not"),
        ({"pipelines": "["}, "pipelines is not JSON"),
        ({"pipelines": "[]"}, "pipelines is not a JSON object"),
        ({"pipelines": '{"users": {}}'}, "pipelines has no list of stages for users"),
        ({"pipelines": '{"users": [{"$lookup": {}}]}'}, r"the stage \$lookup, which may not stand there"),
        ({"pipelines": '{"users": [{"$out": "x"}]}'}, r"the stage \$out"),
        ({"pipelines": '{"users": [{"$project": {"_id": 0}}]}'}, "alters _id, the key"),
        ({"pipelines": '{"users": [{"$set": {"_id": 1}}]}'}, "alters _id, the key"),
        ({"pipelines": '{"users": [{"$unset": ["a", "_id"]}]}'}, "alters _id, the key"),
        ({"pipelines": '{"users": [{"$match": 1}]}'}, r"a \$match without an object"),
    ],
)
def test_a_wrong_field_is_named(custom: dict[str, str], said: str) -> None:
    fields = {"host": "127.0.0.1", "port": "1", "database": "d", "tls": "disable"} | custom
    server = type("Server", (), {"fields": lambda self, database: fields})()
    connector = MongoDB(integration_of(server, "d"))
    with pytest.raises(InvalidConfiguration, match=said) as raised:
        connector.discover()
    assert "canary" not in str(raised.value)


@needs_own_server
def test_a_connection_string_stands_for_host_and_port(source: Source, source_server: MongoDBServer) -> None:
    source.users.insert_one({"_id": 1})
    secret = f"{USER}:{PASSWORD}@127.0.0.1:{source_server.port}"
    custom = {"connection_string": f"mongodb://{secret}/{source.name}?authSource=admin&directConnection=true"}
    server = type("Server", (), {"fields": lambda self, database: custom})()
    connector = MongoDB(integration_of(server, source.name, user=None, password=None))
    assert [table.object for table in connector.discover()] == ["users"]
    connector.close()


@needs_own_server
def test_a_user_that_may_read_little(
    store: Store, register: Configure, source: Source, source_server: MongoDBServer
) -> None:
    source.users.insert_one({"_id": 1})
    name = f"reader_{source.name}"
    source.client.admin.command("createUser", name, pwd=PASSWORD, roles=[])
    register(user=name, sync_mode="real_time")
    with pytest.raises(PermissionMissing) as raised:
        check_connection(store, "acme-db")
    granted = f'`db.getSiblingDB("admin").grantRolesToUser("{name}", [{{role: "read", db: "{source.name}"}}])`'
    assert raised.value.remedy == granted
    source.client.admin.command("grantRolesToUser", name, roles=[{"role": "read", "db": source.name}])
    report = check_connection(store, "acme-db")
    assert report.complete, report.objects
    assert {item.object for item in report.objects} == {"users", "change data capture"}
    assert report.identity is not None
    assert report.identity.endswith(f"/{source.name}")


def test_what_cannot_be_read_says_why(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_one({"_id": 1})
    source.create_collection("active", viewOn="users", pipeline=[])
    source.create_collection("readings", timeseries={"timeField": "at"})
    source["fs.files"].insert_one({"_id": 1})
    source["fs.chunks"].insert_one({"_id": 1})
    register()
    report = check_connection(store, "acme-db")
    lines = {item.object: item for item in report.objects}
    assert lines.keys() == {"users", "active", "readings", "fs.files"}
    assert lines["users"].readable
    assert "a view of users" in (lines["active"].problem or "")
    assert "a time series" in (lines["readings"].problem or "")


@needs_own_server
def test_a_server_alone_can_be_read_and_not_followed(
    own_server: MongoDBServer,
) -> None:
    own_server.stop()
    own_server.start("--standalone")
    with own_server.client() as client:
        client["product"].users.insert_one({"_id": 1})
        connector = MongoDB(integration_of(own_server, "product", sync_mode="real_time"))
        [table] = connector.discover()
        reason = connector.unfollowable(table)
        [line] = [line for line in connector.check().objects if line.object == "change data capture"]
        with connector.snapshot([table], followed=False) as snapshot:
            [piece] = snapshot.pieces(table, None)
            assert b"".join(snapshot.copy(table, piece)).count(b"\n") == 1
        connector.close()
    assert reason is not None
    assert "rs.initiate()" in reason
    assert not line.readable
    assert "rs.initiate()" in (line.remedy or "")


def test_discovery_sees_fields_of_both_ends(source: Source, connect: Connect) -> None:
    source.users.insert_many(
        [{"_id": n, "first" if n < 100 else "last" if n > 900 else "middle": n} for n in range(1000)]
    )
    source.teams.insert_one({"_id": 1, "name": None, "size": 1.5})
    source["system.js"].insert_one({"_id": "f"})
    users, teams = reversed(connect().discover())
    assert [column.name for column in users.columns] == ["_id", "first", "middle", "last", "document"]
    assert (users.key, users.rows, users.keyless) == (("_id",), 1000, False)
    assert [(column.name, str(column.type)) for column in teams.columns] == [
        ("_id", "text"), ("size", "double precision"), ("document", "jsonb"),
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["a", "", "null", "true", "0" * 24, "{", "[", '"', "a\0", None, True, 1.5, 2**40])
def test_a_key_and_its_text(value: Any) -> None:
    assert key_value(key_text(value)) == value
    assert type(key_value(key_text(value))) is type(value) or value == 2**40


@pytest.mark.parametrize(
    ("kind", "after"),
    [(Base.BIGINT, "x"), (Base.TIMESTAMPTZ, "infinity"), (Base.DOUBLE, "NaN"), (Base.UUID, "1")],
)
def test_a_cursor_that_says_nothing_reads_all(kind: Base, after: str) -> None:
    assert condition("at", kind, after) == {}


def test_how_much_of_the_oplog_is_used_up() -> None:
    oplog = Oplog(Timestamp(1000, 1), Timestamp(2000, 1), 4000.0)  # a quarter full
    assert share_used(oplog, 2000) == 0.0
    assert share_used(oplog, 1500) == 0.125
    assert share_used(oplog, 999) == 1.0
    assert share_used(oplog, 3000) == 0.0


def test_the_driver_is_not_imported_at_start() -> None:
    program = "import sys, churnguard_pipelines.connectors.mongodb; print('pymongo' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_positions_are_json(source: Source, connect: Connect) -> None:
    position = connect().begin_changes([])
    assert orjson.loads(orjson.dumps(position)) == position
