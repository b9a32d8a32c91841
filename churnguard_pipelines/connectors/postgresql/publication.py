"""The publication that says which tables' changes an integration's replication slot receives."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from churnguard_pipelines.connectors.postgresql.catalog import FoundTable
from churnguard_pipelines.connectors.postgresql.connection import Connection
from churnguard_pipelines.connectors.postgresql.following import GENERATED_ARE_PUBLISHED
from churnguard_pipelines.connectors.postgresql.slot import slot_name
from churnguard_pipelines.errors import PermissionMissing
from churnguard_pipelines.model import IntegrationConfiguration


def publish(connection: Connection, integration: IntegrationConfiguration, found: Sequence[FoundTable]) -> list[str]:
    """The publication holds these tables and no others; returns the names of those that it did not hold before.

    Raises ``PermissionMissing`` with the statement to run.
    """
    name = Identifier(slot_name(integration.integration_id))
    listed = connection.execute(
        "SELECT (SELECT pg_catalog.array_agg(r.prrelid::bigint ORDER BY r.prrelid) "
        "FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid), "
        "coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 's') = 's' "  # older versions do not have it
        "FROM pg_catalog.pg_publication p WHERE p.pubname = %s",
        [slot_name(integration.integration_id)],
    ).fetchone()
    wanted = sorted(table.oid for table in found)
    held = (listed[0] or []) if listed is not None else []
    tables = SQL(", ").join(table.relation for table in found)
    options = SQL("publish_via_partition_root = true")
    if connection.info.server_version >= GENERATED_ARE_PUBLISHED:
        options = SQL("publish_via_partition_root = true, publish_generated_columns = stored")
    statements: list[Composed] = []
    if listed is None:
        clause = SQL(" FOR TABLE {}").format(tables) if found else SQL("")
        statements.append(SQL("CREATE PUBLICATION {}{} WITH ({})").format(name, clause, options))
    elif not found:
        statements.append(SQL("DROP PUBLICATION {}").format(name))
    else:
        if not listed[1] and any(table.generated for table in found):
            statements.append(SQL("ALTER PUBLICATION {} SET ({})").format(name, options))
        if held != wanted:
            statements.append(SQL("ALTER PUBLICATION {} SET TABLE {}").format(name, tables))
    try:
        for statement in statements:
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        told = "; ".join(statement.as_string(None) for statement in statements)
        raise PermissionMissing(
            "the user may not publish the tables' changes.",
            integration_id=integration.integration_id,
            remedy=f"Run as the tables' owner or a superuser: `{told}`.",
        ) from None
    return [table.table.object for table in found if table.oid not in held]


def drop_publication(connection: Connection, integration: IntegrationConfiguration) -> None:
    name = Identifier(slot_name(integration.integration_id))
    connection.execute(SQL("DROP PUBLICATION IF EXISTS {}").format(name))
