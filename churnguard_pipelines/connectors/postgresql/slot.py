"""An integration's replication slot in its PostgreSQL: made, found free, dropped, and how far behind it is."""

from __future__ import annotations

import hashlib
import re
import time
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from churnguard_pipelines.connectors.postgresql.connection import Connection
from churnguard_pipelines.engine.server_messages import quoted
from churnguard_pipelines.errors import PermissionMissing, ProviderUnavailable
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Position

SLOT_WAIT = 20.0  # for a reader before us, whose connection the server may not have missed yet


def slot_name(integration_id: str) -> str:
    """Of the slot and of the publication: letters, digits and underscores, 63 at most."""
    readable = re.sub(r"[^a-z0-9]+", "_", integration_id.lower()).strip("_")
    digest = hashlib.sha256(integration_id.encode()).hexdigest()[:8]
    return f"churnguard_{readable[:40]}_{digest}"


def lsn(number: int) -> str:
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def number(lsn: str) -> int:
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def log_end(connection: Connection) -> int:
    """Up to where the server, or the one that it is a standby of, has safely written its log."""
    row = connection.execute(
        "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() "
        "ELSE pg_catalog.pg_current_wal_flush_lsn() END)::text"
    ).fetchone()
    assert row is not None
    return number(row[0])


def drop_slot(connection: Connection, integration: IntegrationConfiguration) -> None:
    """Raises ``ProviderUnavailable`` if something reads from it and does not stop."""
    if free_slot(connection, integration) is not None:
        connection.execute("SELECT pg_catalog.pg_drop_replication_slot(%s)", [slot_name(integration.integration_id)])


def free_slot(connection: Connection, integration: IntegrationConfiguration) -> tuple[str, int] | None:
    """The slot's ``wal_status`` and confirmed position once nobody reads from it; None if there is no slot."""
    deadline = time.monotonic() + SLOT_WAIT
    while True:
        row = connection.execute(
            "SELECT active_pid, wal_status, confirmed_flush_lsn::text FROM pg_catalog.pg_replication_slots "
            "WHERE slot_name = %s AND database = pg_catalog.current_database()",
            [slot_name(integration.integration_id)],
        ).fetchone()
        if row is None:
            return None
        if row[0] is None:
            return row[1], number(row[2])
        if time.monotonic() > deadline:
            raise _taken(integration, row[0])
        time.sleep(0.2)  # nothing tells when a slot becomes free


def create_slot(connection: Connection, integration: IntegrationConfiguration) -> Position:
    try:
        with connection.reading(row_by_row=False):  # it waits for transactions under way
            row = connection.execute(
                "SELECT lsn::text FROM pg_catalog.pg_create_logical_replication_slot(%s, 'pgoutput')",
                [slot_name(integration.integration_id)],
            ).fetchone()
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise PermissionMissing(
            f"PostgreSQL keeps no changes{quoted(integration, str(error))}.",
            integration_id=integration.integration_id,
            remedy="Run `ALTER SYSTEM SET wal_level = logical` and restart the server.",
        ) from None
    except psycopg.errors.ConfigurationLimitExceeded:
        raise PermissionMissing(
            "PostgreSQL has no replication slot left.",
            integration_id=integration.integration_id,
            remedy="Raise max_replication_slots and restart the server, or drop a slot that nothing uses.",
        ) from None
    except psycopg.errors.InsufficientPrivilege:
        raise PermissionMissing(
            "the user may not replicate.",
            integration_id=integration.integration_id,
            remedy=f"Run `ALTER ROLE {Identifier(str(integration.credentials.username)).as_string(None)} REPLICATION`.",
        ) from None
    assert row is not None
    return {"lsn": row[0]}


def _taken(integration: IntegrationConfiguration, pid: int) -> ProviderUnavailable:
    name = slot_name(integration.integration_id)
    return ProviderUnavailable(
        f"the replication slot {name} is in use by the server's process {pid}.",
        integration_id=integration.integration_id,
        remedy=f"If that is no reader of ours: `SELECT pg_terminate_backend({pid})`.",
    )


def current_lag(connection: Connection, integration: IntegrationConfiguration, position: Position) -> Any:
    """(bytes behind, bytes the slot may still fall behind or None, its wal_status or None, the server's limit)."""
    statement = SQL(
        "SELECT greatest(pg_catalog.pg_current_wal_lsn() - {at}::pg_lsn, 0)::bigint, s.safe_wal_size, s.wal_status "
        "FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = {name}"
    ).format(at=Literal(position["lsn"]), name=Literal(slot_name(integration.integration_id)))
    return connection.execute(statement).fetchone()
