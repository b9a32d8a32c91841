"""The same of databases' tables; and of both what the syncs before have counted."""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"

COUNTED = """
UPDATE ingest.{table} AS known SET rows = counted.rows
  FROM (SELECT DISTINCT ON (sync.organization_id, integration_id, object)
               sync.organization_id, integration_id, object, rows
          FROM ingest.syncs AS sync JOIN ingest.sync_objects USING (sync_id) WHERE rows IS NOT NULL
         ORDER BY sync.organization_id, integration_id, object, started_at DESC) AS counted
 WHERE known.organization_id = counted.organization_id AND known.integration_id = counted.integration_id
   AND known.object = counted.object AND known.rows IS NULL
"""
KNOWN = ("objects", "source_tables")
READ_HERE = (*KNOWN, "syncs", "sync_objects")


def upgrade() -> None:
    op.execute("ALTER TABLE ingest.source_tables ADD COLUMN rows bigint")
    # They are of every organization: who migrates is held to none of them.
    for table in READ_HERE:
        op.execute(f"ALTER TABLE ingest.{table} NO FORCE ROW LEVEL SECURITY")
    for table in KNOWN:
        op.execute(COUNTED.format(table=table))
    for table in READ_HERE:
        op.execute(f"ALTER TABLE ingest.{table} FORCE ROW LEVEL SECURITY")
