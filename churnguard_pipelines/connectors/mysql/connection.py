"""Connections to a customer's MySQL or MariaDB: bounded in time, one set of settings, errors in our own words."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import pymysql
from pymysql.constants.CR import CR_SSL_CONNECTION_ERROR

from churnguard_pipelines.connectors.mysql.protocol import Connection
from churnguard_pipelines.connectors.sdk.database_credentials import Server, refused, server_of, tls_context
from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.engine.allowance import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    STAYS,
    WRONG_HOST,
    Exhausted,
    connected_socket,
)
from churnguard_pipelines.engine.server_messages import quoted as quoted_words
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
    RequestRefused,
)
from churnguard_pipelines.model import IntegrationConfiguration

_TLS = ("disable", "prefer", "require", "verify-ca", "verify-full")
_VERIFYING = ("verify-ca", "verify-full")
_REFUSED = (1044, 1045, 1698, 1862, 3118)  # 1044: no access to the database
_FORBIDDEN = (1142, 1143, 1227, 1370)
_UNKNOWN_DATABASE = 1049
_ALTERED = 1412
_SETTINGS = (
    "SET NAMES utf8mb4",
    "SET SESSION sql_mode = '', time_zone = '+00:00', autocommit = 1",
    # A snapshot stays open while its rows are written. What the source sets for its own users does not end it.
    "SET SESSION wait_timeout = 86400, net_write_timeout = 3600, sql_select_limit = 18446744073709551615"
    " /*!80000 , max_execution_time = 0 */"
    " /*M!100300 , max_statement_time = 0, idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0 */",
)


def server_of_mysql(integration: IntegrationConfiguration) -> Server:
    """Raises ``InvalidConfiguration`` naming the field that is missing or wrong."""
    server = server_of(integration, "MySQL", 3306, _TLS, _VERIFYING)
    if server.tls == "verify-ca" and server.authority is None:
        raise refused(integration, "tls", server.tls, "With verify-ca it needs tls_ca, the authority's certificate.")
    return server


def connect(integration: IntegrationConfiguration, *, database: bool = True) -> Connection:
    """In autocommit mode. Raises ``AuthenticationFailed``, ``InvalidConfiguration``, ``ProviderUnavailable``."""
    server = server_of_mysql(integration)
    with translated(integration, connecting=True):
        connection = _connected(integration, server, database=database)
    with translated(integration):
        try:
            for statement in _SETTINGS:
                execute(connection, statement)
        except BaseException:
            close_quietly(connection)
            raise
    return connection


def execute(connection: Connection, statement: str, *, scan: bool = False) -> list[tuple[Any, ...]]:
    """All rows. Nothing in the statement is a placeholder. ``scan``: it may take the server its time."""
    with connection.reading(row_by_row=False) if scan else nullcontext(), connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def close_quietly(connection: Connection) -> None:
    """Without waiting for what the server still wants to send."""
    forget_rows(connection)
    with suppress(Exception):
        connection._force_close()  # type: ignore[attr-defined]


def forget_rows(connection: Connection) -> None:
    """Of a connection that is lost: the driver must not try to read the rest of them."""
    result = getattr(connection, "_result", None)
    if result is not None:
        result.unbuffered_active = False


@contextmanager
def translated(integration: IntegrationConfiguration, *, connecting: bool = False) -> Iterator[None]:
    """The driver's errors become ours."""
    try:
        yield
    except (pymysql.Error, OSError) as error:
        raise as_ours(integration, error, connecting=connecting) from None
    except Exhausted as error:
        raise error.as_ours(integration, "MySQL", WRONG_HOST if connecting else STAYS) from None


def as_ours(integration: IntegrationConfiguration, error: Exception, *, connecting: bool = False) -> ChurnGuardError:
    name = integration.integration_id
    code = error.args[0] if error.args and isinstance(error.args[0], int) else None
    text = str(error.args[1] if len(error.args) > 1 else error).strip().rstrip(".") or type(error).__name__
    quote = quoted_words(integration, text)
    if code in _REFUSED:
        return AuthenticationFailed(
            f"MySQL refuses the credentials{quote}.",
            integration_id=name,
            remedy="Correct username and password; the user must be allowed from this machine, and see the database.",
        )
    if code == _UNKNOWN_DATABASE:
        return InvalidConfiguration(
            f"MySQL has no such database{quote}.",
            integration_id=name,
            remedy="Correct credentials.custom_fields.database.",
        )
    if code in _FORBIDDEN:
        return PermissionMissing(
            f"MySQL refuses permission{quote}.",
            integration_id=name,
            remedy=f"`churnguard integrations test {name}` has the statement that grants it.",
        )
    if code == _ALTERED:
        return ProviderUnavailable(
            "a table was altered while it was read.", integration_id=name, remedy="The next sync goes on from there."
        )
    if isinstance(error, pymysql.ProgrammingError | pymysql.DataError | pymysql.NotSupportedError):
        return RequestRefused(
            f"MySQL does not answer what it is asked{quote}.", integration_id=name, remedy="The next sync asks again."
        )
    if connecting:
        return ProviderUnavailable(f"MySQL cannot be reached{quote}.", integration_id=name, remedy=WRONG_HOST)
    return ProviderUnavailable(f"MySQL cannot be used{quote}.", integration_id=name, remedy=STAYS)


def _connected(integration: IntegrationConfiguration, server: Server, *, database: bool) -> Connection:
    """``prefer``: with TLS if the server has it."""
    addresses = guard_of(integration).resolve(server.host, server.port)
    context = None
    if server.tls != "disable":
        context = tls_context(server.authority, verify=server.tls in _VERIFYING)
        context.check_hostname = server.tls == "verify-full"
    try:
        return _opened(integration, server, addresses, context, database=database)
    except pymysql.OperationalError as error:
        if server.tls != "prefer" or error.args[0] != CR_SSL_CONNECTION_ERROR:
            raise
        return _opened(integration, server, addresses, None, database=database)


def _opened(
    integration: IntegrationConfiguration,
    server: Server,
    addresses: Sequence[str],
    context: ssl.SSLContext | None,
    *,
    database: bool,
) -> Connection:
    credentials = integration.credentials
    connection = Connection(
        verified=context is not None and server.tls in _VERIFYING,
        encrypted=context is not None and server.tls in ("require", *_VERIFYING),
        host=server.host,  # whom a certificate has to name
        port=server.port,
        database=server.database if database else None,
        user=credentials.username,
        password=credentials.password.get_secret_value() if credentials.password else "",
        ssl=context,
        ssl_disabled=context is None,
        charset="utf8mb4",
        autocommit=None,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=CONNECT_SECONDS,
        write_timeout=ANSWER_SECONDS,
        program_name=f"churnguard {integration.integration_id}",
        local_infile=False,
        read_default_file=None,
        defer_connect=True,
    )
    connection.begin_with(connected_socket(addresses, server.port))
    return connection
