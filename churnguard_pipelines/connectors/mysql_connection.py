"""Connections to a customer's MySQL or MariaDB: bounded in time, one set of settings, errors in our own words."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
from pymysql.cursors import Cursor

from churnguard_pipelines.connectors.database_credentials import custom_fields, refused
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
)
from churnguard_pipelines.model import IntegrationConfiguration

CONNECT_SECONDS = 10
ANSWER_SECONDS = 600  # the first row of a large sort may take its time
_TLS = ("disable", "prefer", "require", "verify-full")
_REFUSED = (1044, 1045, 1698, 1862, 3118)  # 1044: no access to the database
_FORBIDDEN = (1142, 1143, 1227, 1370)
_UNKNOWN_DATABASE = 1049
_ALTERED = 1412
_SETTINGS = (
    "SET NAMES utf8mb4",
    "SET SESSION sql_mode = '', time_zone = '+00:00', autocommit = 1",
    "SET SESSION wait_timeout = 86400, net_write_timeout = 3600",  # a snapshot stays open while its rows are written
)


def parameters(integration: IntegrationConfiguration) -> dict[str, Any]:
    """PyMySQL's, the password among them. Raises ``InvalidConfiguration`` naming the field that is missing or wrong."""
    credentials = integration.credentials
    given = custom_fields(integration, "MySQL", _TLS)
    port = given.get("port", "3306")
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise refused(integration, "port", port, "It is a number, 3306 as a rule.")
    return {
        "host": given["host"],
        "port": int(port),
        "database": given["database"],
        "user": credentials.username,
        "password": credentials.password.get_secret_value() if credentials.password else "",
        "ssl": _tls(integration, given["tls"], given.get("tls_ca")),
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": ANSWER_SECONDS,
        "write_timeout": ANSWER_SECONDS,
        "program_name": f"churnguard {integration.integration_id}",
    }


def connect(integration: IntegrationConfiguration, *, database: bool = True) -> pymysql.Connection[Cursor]:
    """In autocommit mode. Raises ``AuthenticationFailed``, ``InvalidConfiguration``, ``ProviderUnavailable``."""
    wanted = parameters(integration)
    if not database:
        del wanted["database"]
    with translated(integration):
        connection = _connect(wanted)
        for statement in _SETTINGS:
            execute(connection, statement)
    return connection


def execute(connection: pymysql.Connection[Cursor], statement: str) -> list[tuple[Any, ...]]:
    """All rows. Nothing in the statement is a placeholder."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def hang_up(connection: pymysql.Connection[Any]) -> None:
    """Without waiting for what the server still wants to send."""
    forget_rows(connection)
    with suppress(Exception):
        connection._force_close()  # type: ignore[attr-defined]


def forget_rows(connection: pymysql.Connection[Any]) -> None:
    """Of a connection that is lost: the driver must not try to read the rest of them."""
    result = getattr(connection, "_result", None)
    if result is not None:
        result.unbuffered_active = False


@contextmanager
def translated(integration: IntegrationConfiguration) -> Iterator[None]:
    """The driver's errors become ours."""
    try:
        yield
    except (pymysql.Error, OSError) as error:
        raise as_ours(integration, error) from None


def as_ours(integration: IntegrationConfiguration, error: Exception) -> ChurnGuardError:
    name = integration.integration_id
    code = error.args[0] if error.args and isinstance(error.args[0], int) else None
    said = str(error.args[1] if len(error.args) > 1 else error).strip().rstrip(".") or type(error).__name__
    if code in _REFUSED:
        return AuthenticationFailed(
            f"MySQL refuses the credentials: {said}.",
            integration_id=name,
            remedy="Correct username and password; the user must be allowed from this machine, and see the database.",
        )
    if code == _UNKNOWN_DATABASE:
        return InvalidConfiguration(
            f"MySQL says: {said}.", integration_id=name, remedy="Correct credentials.custom_fields.database."
        )
    if code in _FORBIDDEN:
        return PermissionMissing(f"MySQL says: {said}.", integration_id=name, remedy="Grant the user what it lacks.")
    if code == _ALTERED:
        return ProviderUnavailable(
            "a table was altered while it was read.", integration_id=name, remedy="The next sync goes on from there."
        )
    return ProviderUnavailable(
        f"MySQL cannot be used: {said}.",
        integration_id=name,
        remedy="Whatever was stored stays; the next sync goes on from there.",
    )


def _connect(wanted: dict[str, Any]) -> pymysql.Connection[Cursor]:
    """``prefer``: with TLS if the server has it."""
    ssl_context = wanted.pop("ssl")
    if ssl_context != "prefer":
        return pymysql.connect(**wanted, ssl=ssl_context or None, ssl_disabled=ssl_context is None)
    try:
        return pymysql.connect(**wanted, ssl=_unverified())
    except pymysql.OperationalError as error:
        if "SSL" not in str(error):
            raise
        return pymysql.connect(**wanted, ssl_disabled=True)


def _tls(integration: IntegrationConfiguration, tls: str, authority: str | None) -> Any:
    if tls == "disable":
        return None
    if tls == "prefer":
        return tls
    if tls == "require":
        return _unverified()
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise InvalidConfiguration(
            f"credentials.custom_fields.tls_ca cannot be read: {error}.",
            integration_id=integration.integration_id,
            remedy="It is the path of a file with the authority's certificate.",
        ) from None


def _unverified() -> ssl.SSLContext:
    """As libpq's `require`: against listeners, not against somebody in the server's place."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
