"""What goes with an integration, or a stream, that is removed."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.store.control.tables import integrations
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.ingest.tables import (
    arrivals,
    breakers,
    change_logs,
    checkpoints,
    materializations,
    plans,
    rejected_records,
    schema_drift,
)
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw import mirror_tables, views
from churnguard_pipelines.store.raw.tables import quoted


def forget(connection: Connection, organization_id: str, integration_id: str) -> None:
    """All of it but the ledger and its rows, in the operator's transaction. Raises ``TableInUse``."""
    as_lanes_take_them = rejected_records, schema_drift, arrivals, checkpoints
    for table in (*as_lanes_take_them, breakers, change_logs, materializations, plans, integrations):
        own = table.c.organization_id == organization_id, table.c.integration_id == integration_id
        connection.execute(sa.delete(table).where(*own))
    views.drop_of(connection, organization_id, integration_id)


_SHARED_TABLES = sa.text("""
SELECT tablename FROM pg_tables
 WHERE schemaname = 'raw' AND tablename NOT IN (SELECT raw_table FROM ingest.source_tables) ORDER BY tablename
""")


def purge_rows(store: Store, organization_id: str, integration_id: str) -> None:
    """What is left of one that was removed; a stream's, too."""
    for mirror in catalogue.forget(store, organization_id, integration_id):
        try:
            with store.owner() as connection:
                mirror_tables.drop(connection, mirror)
        except DatabaseUnavailable:  # somebody keeps it in use: its rows go, as those of a table that others share do
            break
    with store.operator() as connection:  # others' mirrors have none of its rows, and may be locked for long
        tables = connection.scalars(_SHARED_TABLES).all()
    own = {"organization_id": organization_id, "integration_id": integration_id}
    with store.organization(organization_id) as connection:
        for name in tables:
            condition = "organization_id = %(organization_id)s AND integration_id = %(integration_id)s"
            connection.exec_driver_sql(f"DELETE FROM {quoted(name)} WHERE {condition}", own)
