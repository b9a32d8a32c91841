"""How an organization's server lets us in: found out before libpq hears of it, for each way that PostgreSQL knows."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import NamedTuple, cast

import pytest
from psycopg.sql import SQL, Identifier, Literal

from churnguard_pipelines.connectors.postgresql.connection import connect
from churnguard_pipelines.errors import AuthenticationFailed, ProviderUnavailable
from churnguard_pipelines.model import IntegrationConfiguration
from tests.attacks.workers.test_steal_our_credentials_by_a_driver import pointed_at
from tests.sources.certificates import of_address
from tests.sources.homes import temporary_home
from tests.sources.postgresql import PostgreSQLServer

PASSWORDS = {
    "ascii": "canary password",
    "composed": "pässwörd",
    "taken apart": "pa\u0308sswo\u0308rd",  # SASLprep makes it the composed one
    "soft hyphen and wide space": "a\u00adb\u3000c",
    "from right to left": "\u05d0x",  # which SASLprep refuses: it is taken as it is
    "unassigned": "\u0378",
}
HBA = """
local all all trust
host all owner all scram-sha-256
host all trusted all trust
host all old all md5
host all clear all password
host all shut all reject
host all all all scram-sha-256
"""


class Customer(NamedTuple):
    """``tls_port``: where TLS ends before the server, whose build has none; ``authority``: its certificate."""

    server: PostgreSQLServer
    tls_port: int
    authority: str


@pytest.fixture(scope="module")
def customer() -> Iterator[Customer]:
    """A role for each way of letting in."""
    with temporary_home() as home:
        server = PostgreSQLServer(home)
        server.write("pg_hba.conf", HBA)
        server.start()
        with server.connect() as connection:
            for name, password in PASSWORDS.items():
                role, secret = Identifier(name), Literal(password)
                connection.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, secret))
            for name in ("trusted", "clear", "shut"):
                connection.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(Identifier(name)))
            digest = hashlib.md5(b"secretold").hexdigest()  # noqa: S324 - the server's own way
            connection.execute(SQL("CREATE ROLE old LOGIN PASSWORD {}").format(Literal(f"md5{digest}")))
        key, authority = of_address()
        (home / "both.pem").write_text(key + authority)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(home / "both.pem")
        with socket.create_server(("127.0.0.1", 0)) as front:
            threading.Thread(target=_terminate_tls, args=[front, context, server.port], daemon=True).start()
            yield Customer(server, front.getsockname()[1], authority)
            front.shutdown(socket.SHUT_RDWR)
        server.stop()


@pytest.fixture(autouse=True)
def _loopback_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", "localhost,127.0.0.1")


def asked(
    customer: Customer, user: str, password: str, tls: str = "disable", **fields: str
) -> IntegrationConfiguration:
    port = customer.server.port if tls in ("disable", "prefer") else customer.tls_port
    made = pointed_at("postgresql", port, password=password, database="postgres", tls=tls, **fields)
    credentials = made.credentials.model_copy(update={"username": user})
    return made.model_copy(update={"configured_by": "organization", "credentials": credentials})


def who(integration: IntegrationConfiguration) -> str:
    with connect(integration) as connection:
        found = connection.execute("SELECT current_user").fetchone()
    assert found
    return str(found[0])


@pytest.mark.parametrize("name", PASSWORDS)
def test_scram_takes_every_password(customer: Customer, name: str) -> None:
    assert who(asked(customer, name, PASSWORDS[name])) == name
    with pytest.raises(AuthenticationFailed):
        who(asked(customer, name, PASSWORDS[name] + "x"))


def test_a_password_is_the_same_composed_or_taken_apart(customer: Customer) -> None:
    assert who(asked(customer, "composed", PASSWORDS["taken apart"])) == "composed"


@pytest.mark.parametrize("tls", ["disable", "prefer", "require", "verify-ca", "verify-full"])
@pytest.mark.parametrize("user", ["trusted", "old", "ascii"])
def test_every_way_works_over_every_kind_of_connection(customer: Customer, user: str, tls: str) -> None:
    password = PASSWORDS.get(user, "secret")
    authority = {"tls_ca": customer.authority} if tls.startswith("verify") else {}
    assert who(asked(customer, user, password, tls, **authority)) == user


def test_a_password_goes_in_clear_to_a_server_whose_certificate_was_verified_only(customer: Customer) -> None:
    assert who(asked(customer, "clear", "secret", "verify-full", tls_ca=customer.authority)) == "clear"
    with pytest.raises(AuthenticationFailed):
        who(asked(customer, "clear", "secret", "require"))


def test_who_prefers_tls_has_it_where_it_is(customer: Customer) -> None:
    there = customer._replace(server=cast("PostgreSQLServer", SimpleNamespace(port=customer.tls_port)))
    with connect(asked(there, "ascii", PASSWORDS["ascii"], "prefer")) as connection:
        assert connection.pgconn.ssl_in_use


def test_who_requires_tls_goes_nowhere_without_it(customer: Customer) -> None:
    with pytest.raises(ProviderUnavailable):
        who(asked(customer._replace(tls_port=customer.server.port), "ascii", PASSWORDS["ascii"], "require"))


@pytest.mark.parametrize("user", ["shut", "nobody"])
def test_whom_the_server_does_not_let_in_hears_so(customer: Customer, user: str) -> None:
    with pytest.raises(AuthenticationFailed):
        who(asked(customer, user, "secret"))


def test_a_certificate_of_somebody_else_ends_it(customer: Customer) -> None:
    with pytest.raises(ProviderUnavailable):
        who(asked(customer, "ascii", PASSWORDS["ascii"], "verify-full", tls_ca=of_address()[1]))
    with pytest.raises(ProviderUnavailable):  # its certificate is for the address
        who(asked(customer, "ascii", PASSWORDS["ascii"], "verify-full", tls_ca=customer.authority, host="localhost"))
    assert who(asked(customer, "ascii", PASSWORDS["ascii"], "verify-ca", tls_ca=customer.authority, host="localhost"))


def _terminate_tls(front: socket.socket, context: ssl.SSLContext, port: int) -> None:
    def serve(outer: socket.socket) -> None:
        with suppress(OSError), outer:
            outer.recv(8)  # the wish for TLS
            outer.sendall(b"S")
            with (
                context.wrap_socket(outer, server_side=True) as clear,
                socket.create_connection(("127.0.0.1", port)) as inner,
            ):
                threading.Thread(target=_copy, args=[inner, clear], daemon=True).start()
                _copy(clear, inner)

    with suppress(OSError):
        while True:
            connection, _ = front.accept()
            threading.Thread(target=serve, args=[connection], daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
