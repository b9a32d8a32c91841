"""Connections to a customer's PostgreSQL: bounded in time, the same settings everywhere, errors in our own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from churnguard_pipelines.connectors.database_credentials import custom_fields
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    InvalidConfiguration,
    PermissionMissing,
    ProviderError,
    ProviderUnavailable,
)
from churnguard_pipelines.model import IntegrationConfiguration

CONNECT_SECONDS = 10
_SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "idle_in_transaction_session_timeout": "0",  # a snapshot stays open while its rows are written
    "lc_messages": "C",
}
_TLS = ("disable", "prefer", "require", "verify-ca", "verify-full")
_REFUSED = ("28P01", "28000")
_REFUSED_WORDS = ("password authentication failed", "no password supplied", "no pg_hba.conf entry", "authentication")


def parameters(integration: IntegrationConfiguration) -> dict[str, Any]:
    """libpq's, the password among them. Raises ``InvalidConfiguration`` naming the field that is missing."""
    credentials = integration.credentials
    given = custom_fields(integration, "PostgreSQL", _TLS)
    wanted = {
        "host": given["host"],
        "port": given.get("port", "5432"),
        "dbname": given["database"],
        "user": credentials.username,
        "password": credentials.password.get_secret_value() if credentials.password else None,
        "sslmode": given["tls"],
        "sslrootcert": given.get("tls_ca"),
        "connect_timeout": CONNECT_SECONDS,
        "application_name": f"churnguard {integration.integration_id}"[:63],
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def connect(integration: IntegrationConfiguration) -> psycopg.Connection[Any]:
    """In autocommit mode. Raises ``AuthenticationFailed``, ``InvalidConfiguration``, ``ProviderUnavailable``."""
    with translated(integration):
        connection = psycopg.connect(**parameters(integration), autocommit=True)
    for name, value in _SETTINGS.items():
        try:
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        except psycopg.errors.InsufficientPrivilege:  # lc_messages is a superuser's
            continue
    return connection


@contextmanager
def translated(integration: IntegrationConfiguration) -> Iterator[None]:
    """The driver's errors become ours."""
    try:
        yield
    except psycopg.Error as error:
        raise _as_ours(integration, error) from None


def _as_ours(integration: IntegrationConfiguration, error: psycopg.Error) -> ProviderError | InvalidConfiguration:
    name, state = integration.integration_id, error.sqlstate
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    said = said.removeprefix("ERROR:").strip()
    if state in _REFUSED or (state is None and any(word in said for word in _REFUSED_WORDS)):
        return AuthenticationFailed(
            f"PostgreSQL refuses the credentials: {said}.",
            integration_id=name,
            remedy="Correct username and password; the server's pg_hba.conf must let this machine in.",
        )
    if state == "3D000" or (state is None and "does not exist" in said and "database" in said):
        return InvalidConfiguration(
            f"PostgreSQL says: {said}.", integration_id=name, remedy="Correct credentials.custom_fields.database."
        )
    if state == "42501":
        return PermissionMissing(
            f"PostgreSQL says: {said}.", integration_id=name, remedy="Grant the user what it lacks."
        )
    return ProviderUnavailable(
        f"PostgreSQL cannot be used: {said}.",
        integration_id=name,
        remedy="Whatever was stored stays; the next sync goes on from there.",
    )
