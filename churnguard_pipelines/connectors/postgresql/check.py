"""Finds what a PostgreSQL source lacks to be read or followed, with the statement that grants it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from psycopg.sql import Identifier

from churnguard_pipelines.connectors.postgresql.catalog import FoundTable, object_name
from churnguard_pipelines.connectors.postgresql.connection import Connection
from churnguard_pipelines.connectors.postgresql.slot import slot_name
from churnguard_pipelines.connectors.sdk import ObjectAccess
from churnguard_pipelines.connectors.sdk.selection import is_chosen
from churnguard_pipelines.model import IntegrationConfiguration

CHANGES = "change data capture"

_OTHERS = """
SELECT n.nspname, c.relname, c.oid::bigint, r.rolname
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
 WHERE c.oid = ANY(%s) AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE') AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_publication_rel pr JOIN pg_catalog.pg_publication p ON p.oid = pr.prpubid
        WHERE pr.prrelid = c.oid AND p.pubname = %s)
 ORDER BY 1, 2
"""

_HIDDEN = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'))
 ORDER BY 1, 2
"""
_SETTINGS = """
SELECT pg_catalog.current_setting('wal_level'), pg_catalog.current_setting('max_replication_slots')::int,
       pg_catalog.current_setting('max_wal_senders')::int,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots), pg_catalog.pg_is_in_recovery(),
       (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
"""


def examine(
    connection: Connection,
    integration: IntegrationConfiguration,
    found: Mapping[str, FoundTable],
    *,
    followed: bool,
) -> list[ObjectAccess]:
    """A line per table, and, if changes are to be followed, one for what that needs."""
    role = Identifier(str(integration.credentials.username)).as_string(None)
    lines = [_table(table, followed=followed) for table in found.values()]
    for schema, name in connection.execute(_HIDDEN):
        table = Identifier(schema, name).as_string(None)
        grants = (
            f"GRANT USAGE ON SCHEMA {Identifier(schema).as_string(None)} TO {role}; GRANT SELECT ON {table} TO {role}"
        )
        lines.append(ObjectAccess(object_name(schema, name), False, "it may not be read", f"`{grants}`"))
    if followed:
        missing = list(_missing(connection, role))
        wanted = [table.oid for table in found.values() if is_chosen(integration, table.table.object)]
        for table, owner in owners(connection, integration, wanted).items():
            missing.append((f"{table} may be published by its owner {owner} only", f"`GRANT {owner} TO {role}`"))
        problem = "; ".join(what for what, _ in missing) or None
        remedy = " ".join(how for _, how in missing) or None
        lines.append(ObjectAccess(CHANGES, not missing, problem, remedy, whole=True))
    return lines


def owners(connection: Connection, integration: IntegrationConfiguration, oids: Sequence[int]) -> dict[str, str]:
    """Of those tables that the user may not publish and nobody has published for us: by object, quoted."""
    others = connection.execute(_OTHERS, [list(oids), slot_name(integration.integration_id)])
    return {object_name(row[0], row[1]): Identifier(row[3]).as_string(None) for row in others}


def _table(found: FoundTable, *, followed: bool) -> ObjectAccess:
    name = found.table.object
    if found.table.problem:
        return ObjectAccess(name, False, found.table.problem)
    if followed and found.unfollowable:
        return ObjectAccess(
            name, True, f"its changes cannot be followed, so every sync reads it in full: {found.unfollowable}"
        )
    return ObjectAccess(name, True)


def _missing(connection: Connection, role: str) -> Iterator[tuple[str, str]]:
    row = connection.execute(_SETTINGS).fetchone()
    assert row is not None
    level, slots, senders, used, standby, replicates, creates = row
    if level != "logical":
        yield f"wal_level is {level}", "`ALTER SYSTEM SET wal_level = logical` and restart the server."
    if used >= slots:
        yield "no replication slot is left", f"`ALTER SYSTEM SET max_replication_slots = {slots + 4}` and restart."
    if senders < 1:
        yield "max_wal_senders is 0", "`ALTER SYSTEM SET max_wal_senders = 10` and restart."
    if standby:
        yield "it is a standby", "Give the primary's address: a publication cannot be made on a standby."
    if not replicates:
        yield "the user may not replicate", f"`ALTER ROLE {role} REPLICATION`"
    if not creates:
        database = Identifier(connection.info.dbname).as_string(None)
        yield "the user may not make a publication", f"`GRANT CREATE ON DATABASE {database} TO {role}`"
