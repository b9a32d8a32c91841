"""Connections to a customer's PostgreSQL: bounded in time and bytes, only to addresses that the guard has checked, with
the same settings everywhere, and with errors in our own words."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Self, TypeVar

import psycopg
from psycopg.abc import PQGen, PQGenConn
from psycopg.waiting import Ready, Wait

from churnguard_pipelines.connectors.postgresql.parameters import TLS, VERIFYING, parameters
from churnguard_pipelines.connectors.postgresql.proving import proof
from churnguard_pipelines.connectors.sdk.database_credentials import Server, certificate_file, refused, server_of
from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.engine.allowance import (
    ANSWER_BYTES,
    CONNECT_BYTES,
    CONNECT_SECONDS,
    ROW_BYTES,
    SCAN_SECONDS,
    STAYS,
    WRONG_HOST,
    Allowance,
    Exhausted,
    connect_seconds,
    received,
)
from churnguard_pipelines.engine.server_messages import quoted
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    InvalidConfiguration,
    PermissionMissing,
    ProviderError,
    ProviderUnavailable,
    RequestRefused,
)
from churnguard_pipelines.model import IntegrationConfiguration

T = TypeVar("T")

MOST_ADDRESSES = 3
TRANSACTION_TIMEOUT_SINCE = 170_000
# What the server would end by itself of a user's it is not to end of ours, which has allowances of its own: a snapshot
# stays open while its rows are written.
_TIMEOUTS = (
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout",
    "transaction_timeout",
)  # fmt: skip
_SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "row_security": "off",  # rows that a policy hides are an error, not rows that are gone
    "default_transaction_read_only": "off",  # a publication and a slot are made
    "lc_messages": "C",
    **dict.fromkeys(_TIMEOUTS, "0"),
}
_SET_WHAT_THERE_IS = (
    "SELECT pg_catalog.set_config(wanted.name, wanted.value, false) "
    "FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[])) AS wanted (name, value) "
    "JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) = wanted.name "
    "WHERE s.context = 'user' OR pg_catalog.current_setting('is_superuser') = 'on'"  # lc_messages is a superuser's
)
_REPLICATION = (
    "-c search_path= -c datestyle=ISO -c timezone=UTC -c intervalstyle=postgres -c bytea_output=hex "
    "-c extra_float_digits=1 -c wal_sender_timeout=60s -c statement_timeout=0 -c lock_timeout=0 "
    "-c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0"
)
_REFUSED = ("28P01", "28000")
_REFUSED_WORDS = (
    "authentication failed", "authentication method requirement", "no password supplied", "no pg_hba.conf entry",
)  # fmt: skip
_OF_ALL = ("08", "25", "40", "53", "55", "57", "58", "F0")
"""Classes of SQLSTATE that tell of the server or of the moment, and not of what was asked."""
_EVENTS = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: select.POLLIN | select.POLLOUT}


class Connection(psycopg.Connection[Any]):
    """Everything that is waited for has an allowance: one of its own, or that of a longer reading."""

    _reading: Allowance | None = None

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
        """The driver's own, with its deadline, of a bounded number of bytes as well."""
        inner, allowance, seen = super()._connect_gen(conninfo), Allowance(CONNECT_SECONDS, CONNECT_BYTES), 0
        try:
            descriptor, wanted = next(inner)
            while True:
                ready = yield descriptor, wanted
                count = received(descriptor)
                allowance.came(max(count - seen, 0))
                seen = count
                descriptor, wanted = inner.send(ready)
        except StopIteration as end:
            made: Self = end.value
            return made

    @contextmanager
    def reading(self, *, row_by_row: bool) -> Iterator[None]:
        """What is asked in here may take the server its time."""
        self._reading = Allowance(SCAN_SECONDS, ROW_BYTES if row_by_row else ANSWER_BYTES)
        try:
            yield
        finally:
            self._reading = None

    def wait(self, gen: PQGen[T], interval: float = 1.0, timeout: float | None = None) -> T:
        """As the driver's; most rows of a COPY are there already, and are not waited for."""
        try:
            wanted = next(gen)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            return self._wait(gen, wanted, self._reading or Allowance(), interval)
        except BaseException as error:
            if not isinstance(error, psycopg.Error):
                self.pgconn.finish()  # in the midst of an answer it is of no use any more
            raise

    def _wait(self, gen: PQGen[T], wanted: Wait, allowance: Allowance, interval: float) -> T:
        descriptor = self.pgconn.socket
        poll = select.poll()
        poll.register(descriptor, _EVENTS[wanted])
        allowance.begin()
        seen = received(descriptor)
        try:
            while True:
                began = time.monotonic()
                found = poll.poll(1000 * min(interval, allowance.left()))
                allowance.waited(time.monotonic() - began)
                count = received(descriptor)
                allowance.came(max(count - seen, 0))
                seen = count
                wanted = gen.send(_ready(found[0][1], wanted) if found else Ready.NONE)
                poll.modify(descriptor, _EVENTS[wanted])
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def server_of_postgresql(integration: IntegrationConfiguration) -> Server:
    """Raises ``InvalidConfiguration`` naming the field that is missing or wrong."""
    server = server_of(integration, "PostgreSQL", 5432, TLS, VERIFYING)
    if server.tls == "verify-ca" and server.authority is None:
        raise refused(integration, "tls", server.tls, "With verify-ca it needs tls_ca, the authority's certificate.")
    return server


def connect(integration: IntegrationConfiguration) -> Connection:
    """In autocommit mode. Raises ``AuthenticationFailed``, ``InvalidConfiguration``, ``ProviderUnavailable``."""
    with translated(integration, connecting=True):
        connection = _connect(integration)
    with translated(integration):
        try:
            # First of all: nothing that follows may mean somebody else's function.
            connection.execute("SELECT pg_catalog.set_config('search_path', '', false)")
            connection.execute(_SET_WHAT_THERE_IS, [list(_SETTINGS), list(_SETTINGS.values())])
        except BaseException:
            connection.close()
            raise
    return connection


def connect_for_replication(integration: IntegrationConfiguration) -> Connection:
    """Raises ``psycopg.Error`` besides what :func:`connect` raises."""
    connection = _connect(integration, _REPLICATION, replication=True)
    try:
        if connection.info.server_version >= TRANSACTION_TIMEOUT_SINCE:
            connection.execute("SET transaction_timeout = 0")
        if connection.info.parameter_status("server_encoding") == "SQL_ASCII":  # else it ends at bytes of no encoding
            connection.execute("SET client_encoding = 'SQL_ASCII'")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def translated(integration: IntegrationConfiguration, *, connecting: bool = False) -> Iterator[None]:
    """The driver's errors become ours."""
    try:
        yield
    except psycopg.Error as error:
        raise _as_ours(integration, error, connecting=connecting) from None
    except Exhausted as error:
        raise error.as_ours(integration, "PostgreSQL", WRONG_HOST if connecting else STAYS) from None


def _connect(integration: IntegrationConfiguration, options: str = "", *, replication: bool = False) -> Connection:
    server = server_of_postgresql(integration)
    guard = guard_of(integration)
    addresses = guard.resolve(server.host, server.port)[:MOST_ADDRESSES]
    credentials = integration.credentials
    password = credentials.password.get_secret_value() if credentials.password else ""
    way = proof(server, addresses, str(credentials.username), password) if guard.restricted else None
    with certificate_file(server.authority) if server.authority else nullcontext() as authority:
        wanted = parameters(integration, server, addresses, authority, way, options, replication=replication)
        return Connection.connect(**wanted, autocommit=True, connect_timeout=max(1, round(connect_seconds())))


def _ready(events: int, wanted: Wait) -> Ready:
    """A connection that is broken is ready for all that is wanted: the driver meets the error."""
    if events & ~(select.POLLIN | select.POLLOUT):
        return Ready(int(wanted))
    return Ready((Ready.R if events & select.POLLIN else 0) | (Ready.W if events & select.POLLOUT else 0))


def _as_ours(
    integration: IntegrationConfiguration, error: psycopg.Error, *, connecting: bool
) -> ProviderError | InvalidConfiguration:
    name, state = integration.integration_id, error.sqlstate
    text = str(error).strip() or type(error).__name__
    quote = quoted(integration, text.splitlines()[0].removeprefix("ERROR:"))
    if state in _REFUSED or (state is None and any(word in text for word in _REFUSED_WORDS)):
        return AuthenticationFailed(
            f"PostgreSQL refuses the credentials{quote}.",
            integration_id=name,
            remedy="Correct username and password; the server's pg_hba.conf must let this machine in. A server that "
            "asks for the password in clear gets it with `tls: verify-full` only.",
        )
    if state == "3D000" or (state is None and "does not exist" in text and "database" in text):
        return InvalidConfiguration(
            f"PostgreSQL has no such database{quote}.",
            integration_id=name,
            remedy="Correct credentials.custom_fields.database.",
        )
    if state == "42501":
        return PermissionMissing(
            f"PostgreSQL refuses permission{quote}.",
            integration_id=name,
            remedy=f"`churnguard integrations test {name}` has the statement that grants it.",
        )
    if state is not None and not state.startswith(_OF_ALL):
        return RequestRefused(
            f"PostgreSQL does not answer what it is asked{quote}.",
            integration_id=name,
            remedy="The next sync asks again.",
        )
    if connecting and state is None:
        return ProviderUnavailable(f"PostgreSQL cannot be reached{quote}.", integration_id=name, remedy=WRONG_HOST)
    return ProviderUnavailable(f"PostgreSQL cannot be used{quote}.", integration_id=name, remedy=STAYS)
