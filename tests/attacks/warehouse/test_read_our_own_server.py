"""A source that is the very server in which ChurnGuard keeps everybody's data, by whatever way it is reached."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationCredentials, IntegrationType
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.source import opened_database
from tests.conftest import configuration

OWN = "the server that ChurnGuard keeps its own data in"


def source_at(store: Store, host: str, port: str, by: str, database: str | None = None) -> IntegrationConfiguration:
    ours = conninfo_to_dict(store.database_url)
    where = {"host": host, "port": port, "database": database or str(ours["dbname"]), "tls": "disable"}
    credentials = {"credential_type": "basic_auth", "username": ours["user"], "password": ours.get("password")}
    return configuration(
        "acme-db", integration_type=IntegrationType.DATABASE, provider_name="postgresql",
        credentials=IntegrationCredentials.model_validate(credentials | {"custom_fields": where}), configured_by=by,
    )  # fmt: skip


@pytest.fixture
def forwarder(store: Store) -> Iterator[int]:
    """A loopback port that leads to our server's socket, as a tunnel or a pooler would."""
    ours = conninfo_to_dict(store.database_url)
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(f"{ours['host']}/.s.PGSQL.{ours.get('port', 5432)}")
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=carry, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield int(listener.getsockname()[1])
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize("host", ["/proc/self/cwd/.churnguard/postgresql/socket", "@churnguard", "127.0.0.1", "::1"])
def test_an_organization_names_no_socket_and_no_address_of_this_machine(store: Store, host: str) -> None:
    with (
        pytest.raises(InvalidConfiguration, match=r"no host with a public address|host cannot be"),
        opened_database(store, source_at(store, host, "5432", "organization")) as connector,
    ):
        connector.discover()


def test_a_socket_by_way_of_proc_is_refused_before_it_is_opened(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very path of the attack, leading to the real socket."""
    socket_folder = Path(str(conninfo_to_dict(store.database_url)["host"]))
    (tmp_path / ".churnguard" / "postgresql").mkdir(parents=True)
    (tmp_path / ".churnguard" / "postgresql" / "socket").symlink_to(socket_folder)
    monkeypatch.chdir(tmp_path)
    host = "/proc/self/cwd/.churnguard/postgresql/socket"
    with (
        pytest.raises(InvalidConfiguration, match="no host with a public address"),
        opened_database(store, source_at(store, host, "5432", "organization")) as connector,
    ):
        connector.discover()


@pytest.mark.parametrize("database", [None, "postgres"])
def test_an_organization_whose_way_to_it_is_open_is_refused_by_what_it_is(
    store: Store, forwarder: int, monkeypatch: pytest.MonkeyPatch, database: str | None
) -> None:
    """Any database of it."""
    monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", "127.0.0.1")
    made = source_at(store, "127.0.0.1", str(forwarder), "organization", database)
    with pytest.raises(InvalidConfiguration, match=OWN), opened_database(store, made) as connector:
        connector.discover()


def test_an_operator_may_read_another_database_of_it_but_not_ours(store: Store, forwarder: int) -> None:
    ours = source_at(store, "127.0.0.1", str(forwarder), "operator")
    with pytest.raises(InvalidConfiguration, match=OWN), opened_database(store, ours) as connector:
        connector.discover()
    other = source_at(store, "127.0.0.1", str(forwarder), "operator", "postgres")
    with opened_database(store, other) as connector:
        assert isinstance(connector.discover(), list)


def test_the_change_log_and_snapshots_of_it_are_refused_too(
    store: Store, forwarder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", "127.0.0.1")
    made = source_at(store, "127.0.0.1", str(forwarder), "organization")
    with opened_database(store, made) as connector:
        for wanted in (lambda: connector.changes([], {"lsn": "0/0"}), lambda: connector.snapshot([], followed=False)):
            with pytest.raises(InvalidConfiguration, match=OWN):
                wanted()
    with psycopg.connect(store.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
