"""How many rows each object of an integration has, so that an overview need not look through the ledger of syncs."""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.execute("ALTER TABLE ingest.objects ADD COLUMN rows bigint")
    op.execute("""
        UPDATE ingest.objects AS known SET rows = counted.rows
          FROM (SELECT DISTINCT ON (sync.organization_id, integration_id, object)
                       sync.organization_id, integration_id, object, rows
                  FROM ingest.syncs AS sync JOIN ingest.sync_objects USING (sync_id) WHERE rows IS NOT NULL
                 ORDER BY sync.organization_id, integration_id, object, started_at DESC) AS counted
         WHERE known.organization_id = counted.organization_id AND known.integration_id = counted.integration_id
           AND known.object = counted.object
    """)
