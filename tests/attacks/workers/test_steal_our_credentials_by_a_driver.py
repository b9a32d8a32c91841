"""A tenant's server asks the driver for what is ours: passwords in the environment, files, this machine's identity, or
the source's password by a method that reveals it. The driver has nothing to give."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bson
import psycopg
import pytest
from pymongo.synchronous.pool import Pool

from churnguard_pipelines.connectors.mongodb import connection as mongodb_connection
from churnguard_pipelines.connectors.mongodb import pool as mongodb_pool
from churnguard_pipelines.connectors.mongodb.connection import Source as MongoDBSource
from churnguard_pipelines.connectors.mysql.connection import connect as connect_to_mysql
from churnguard_pipelines.connectors.mysql.connection import execute
from churnguard_pipelines.connectors.postgresql.connection import connect as connect_to_postgresql
from churnguard_pipelines.connectors.postgresql.connection import server_of_postgresql
from churnguard_pipelines.connectors.postgresql.parameters import parameters
from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.allowance import connected_socket
from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationCredentials, IntegrationType
from tests.attacks.workers.hostile import OK, HostileServer, Victim, greeting, message, packet
from tests.conftest import configuration

PASSWORD = "canary-of-the-source"
OURS = "canary-of-ours"
INSIDE = "10.0.0.5:27017"


def pointed_at(provider: str, port: int, *, password: str | None = PASSWORD, **fields: str) -> IntegrationConfiguration:
    where = {"host": "127.0.0.1", "port": str(port), "database": "product", "tls": "disable"}
    credentials = {"credential_type": "basic_auth", "username": "reader", "password": password}
    return configuration(
        "acme-db", integration_type=IntegrationType.DATABASE, provider_name=provider,
        credentials=IntegrationCredentials.model_validate(credentials | {"custom_fields": where | fields}),
    )  # fmt: skip


def asks_in_clear(victim: Victim) -> None:
    """PostgreSQL's way to have the password itself."""
    victim.hear()
    victim.say(message(b"R", struct.pack("!i", 3)))
    victim.hear()


def test_every_word_of_libpq_that_has_a_default_elsewhere_is_said() -> None:
    """A new release's new word fails here. A service's file fills in only what is not said."""
    made = pointed_at("postgresql", 5432)
    said = parameters(made, server_of_postgresql(made), ["127.0.0.1"], None, None, "", replication=False)
    elsewhere = {each.keyword.decode() for each in psycopg.pq.Conninfo.get_defaults() if each.envvar}
    assert elsewhere - said.keys() == {"service", "connect_timeout"}  # the latter with each connection
    assert said["sslcertmode"] == "disable"
    assert said["gssencmode"] == "disable"


@pytest.mark.parametrize("password", [PASSWORD, None])
def test_postgresql_gets_no_password_in_clear_nor_any_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, password: str | None
) -> None:
    with HostileServer(asks_in_clear) as server:
        (tmp_path / ".pgpass").write_text(f"*:*:*:*:{OURS}\n")
        (tmp_path / ".pgpass").chmod(0o600)
        for name, value in {
            "HOME": str(tmp_path), "PGPASSWORD": OURS, "PGOPTIONS": f"-c a.b={OURS}", "PGAPPNAME": OURS, "PGUSER": OURS,
            "PGHOSTADDR": "127.0.0.2", "PGREQUIREAUTH": "password",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        with pytest.raises(ChurnGuardError):
            connect_to_postgresql(pointed_at("postgresql", server.port, password=password))
    assert b"reader" in server.received
    assert OURS.encode() not in server.received
    assert PASSWORD.encode() not in server.received


@pytest.mark.parametrize("name", ["postgresql://evil.example/x", "host=evil.example port=1", "a=b", "it's \\ one"])
def test_a_database_named_like_a_connection_string_is_just_a_name(name: str) -> None:
    with HostileServer(asks_in_clear) as server, pytest.raises(ChurnGuardError):
        connect_to_postgresql(pointed_at("postgresql", server.port, database=name))
    assert f"database\0{name}\0".encode() in server.received


@pytest.mark.parametrize("provider", ["postgresql", "mysql", "mongodb"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1,10.0.0.5", "@abstract", "mongodb://10.0.0.5/", "a b", "a\0b", "evil.example/x", "/a,/b"]
)
def test_a_host_is_one_host(provider: str, host: str) -> None:
    from churnguard_pipelines.connectors import connector

    with pytest.raises(InvalidConfiguration, match="host"):
        connector(provider).check_fields(pointed_at(provider, 5432, host=host))


def asks_for_it_by(method: bytes, question: bytes = b"") -> Any:
    """MySQL's way: the server chooses how a client proves itself, and may change its mind."""

    def treat(victim: Victim) -> None:
        victim.say(greeting())
        victim.hear()
        victim.say(packet(2, b"\xfe" + method + b"\0" + (question or b"12345678901234567890\0")))
        victim.hear()
        if method == b"caching_sha2_password":
            victim.say(packet(4, b"\x01\x04"))  # "I do not know you yet: send it"
            victim.hear()

    return treat


@pytest.mark.parametrize(
    ("method", "question"),
    [
        (b"mysql_clear_password", b""), (b"dialog", b"\x01Password: "), (b"sha256_password", b""),
        (b"caching_sha2_password", b""), (b"mysql_old_password", b""), (b"authentication_webauthn_client", b""),
    ],
)  # fmt: skip
def test_mysql_gets_no_password_and_hands_out_no_key_for_it(method: bytes, question: bytes) -> None:
    with (
        HostileServer(asks_for_it_by(method, question)) as server,
        pytest.raises(ChurnGuardError, match="verify-full"),
    ):
        connect_to_mysql(pointed_at("mysql", server.port))
    assert b"reader" in server.received
    assert PASSWORD.encode() not in server.received
    assert not server.received.endswith((packet(5, b"\x02"), packet(3, b"\x01"))), "it asked for the server's key"


def test_a_mysql_that_greets_with_a_revealing_method_gets_no_password_either() -> None:
    def treat(victim: Victim) -> None:
        victim.say(greeting(b"sha256_password"))
        victim.hear()
        victim.hear()

    with HostileServer(treat) as server, pytest.raises(ChurnGuardError):
        connect_to_mysql(pointed_at("mysql", server.port, tls="prefer"))
    assert PASSWORD.encode() not in server.received


def test_mysql_gets_no_file_of_ours(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text(OURS)

    def treat(victim: Victim) -> None:
        victim.say(greeting())
        victim.hear()
        victim.say(packet(2, OK))
        while b"UNIX" not in victim.hear():
            victim.say(packet(1, OK))
        victim.say(packet(1, b"\xfb" + str(secret).encode()))
        victim.hear()

    with HostileServer(treat) as server:
        connection = connect_to_mysql(pointed_at("mysql", server.port))
        with pytest.raises(Exception, match="asks for a file"):
            execute(connection, "SELECT UNIX_TIMESTAMP()")
    assert OURS.encode() not in server.received


@pytest.mark.parametrize(
    "option",
    [
        "authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:k8s", "authMechanism=MONGODB-AWS",
        "authMechanism=PLAIN", "authMechanism=GSSAPI", "authMechanism=MONGODB-X509",
        "authMechanismProperties=ENVIRONMENT:azure,TOKEN_RESOURCE:x", "tlsCertificateKeyFile=/etc/shadow",
        "tlsCAFile=/etc/shadow", "tlsCRLFile=/etc/shadow", "tlscertificatekeyfile=/etc/shadow", "proxyHost=10.0.0.5",
        "srvServiceName=x", "srvAllowedHostsSuffix=x", "compressors=zlib", "unheard_of=1", "%74lsCAFile=/etc/shadow",
    ],
)  # fmt: skip
def test_an_option_that_turns_our_machine_against_us_is_refused_by_name(option: str) -> None:
    text = f"mongodb://reader:{PASSWORD}@db.example/product?replicaSet=rs0&{option}"
    with pytest.raises(InvalidConfiguration, match="connection_string has") as caught:
        MongoDBSource(pointed_at("mongodb", 1, connection_string=text))
    assert option.partition("=")[0].lower() in str(caught.value).lower()
    assert PASSWORD not in str(caught.value)


def primary_elsewhere(victim: Victim) -> None:
    """A MongoDB that says it is a member of a set whose primary is a server of ours."""
    while True:
        request = victim.hear()
        port = victim.connection.getsockname()[1]
        hello = bson.encode(
            {
                "ok": 1, "setName": "rs0", "secondary": True, "ismaster": False, "hosts": [f"127.0.0.1:{port}", INSIDE],
                "primary": INSIDE, "me": f"127.0.0.1:{port}", "minWireVersion": 0, "maxWireVersion": 21,
                "maxBsonObjectSize": 2**24, "maxMessageSizeBytes": 2**31 - 1, "setVersion": 1,
            }
        )  # fmt: skip
        body = bytes(4) + b"\0" + hello
        victim.say(struct.pack("<iiii", 16 + len(body), 1, int.from_bytes(request[4:8], "little"), 2013) + body)


def test_members_that_a_server_names_are_judged_like_the_one_that_was_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    connected: list[str] = []

    def resolve(guard: AddressGuard, host: str, port: int) -> list[str]:
        asked.append(host)
        return judge(guard, host, port)

    def connect_to(addresses: Sequence[str], port: int) -> socket.socket:
        connected.extend(addresses)
        return connected_socket(addresses, port)

    judge = AddressGuard.resolve
    monkeypatch.setattr(AddressGuard, "resolve", resolve)
    monkeypatch.setattr(mongodb_pool, "connected_socket", connect_to)
    monkeypatch.setattr(mongodb_connection, "CONNECT_SECONDS", 2.0)
    monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", "127.0.0.1")
    with HostileServer(primary_elsewhere) as server:
        text = f"mongodb://127.0.0.1:{server.port}/product?replicaSet=rs0"
        made = pointed_at("mongodb", 1, connection_string=text).model_copy(update={"configured_by": "organization"})
        source = MongoDBSource(made)
        with pytest.raises(ChurnGuardError):
            source.hello()
        source.close()
    assert INSIDE.partition(":")[0] in asked, "the driver makes its sockets in a way that the guard does not see"
    assert set(connected) == {"127.0.0.1"}


def test_no_message_is_as_long_as_a_server_says() -> None:
    assert issubclass(mongodb_pool.guarded_pool(AddressGuard("acme-db", restricted=True)), Pool)
    connection = mongodb_pool._Connection.__new__(mongodb_pool._Connection)
    connection.max_message_size = 2**31 - 1
    assert connection.max_message_size == mongodb_pool.MOST_MESSAGE_BYTES


@pytest.mark.parametrize("by", ["operator", "organization"])
def test_what_a_server_says_is_told_to_operators_only(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """One line of it, of a bounded length."""

    def says(victim: Victim) -> None:
        victim.hear()
        victim.say(message(b"E", b"SFATAL\0C57P03\0M" + b"SECRET-INSIDE\n\x1b[31m" + b"y" * 9000 + b"\0\0"))

    monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", "127.0.0.1")
    with HostileServer(says) as server:
        made = pointed_at("postgresql", server.port).model_copy(update={"configured_by": by})
        with pytest.raises(ChurnGuardError) as caught:
            connect_to_postgresql(made)
    assert ("SECRET-INSIDE" in str(caught.value)) == (by == "operator")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    "text",
    [
        "mongodb+srv://reader:p%40ss@cluster0.example.net/product?retryWrites=true&w=majority&appName=Cluster0",
        "mongodb://reader:pw@a.example:27017,b.example:27018/?replicaSet=rs0&authSource=admin&tls=true&ssl=true",
        "mongodb://[::1]:27017/product?directConnection=true",
    ],
)
def test_what_providers_print_is_taken(text: str) -> None:
    assert MongoDBSource(pointed_at("mongodb", 1, connection_string=text)).name == "product"
