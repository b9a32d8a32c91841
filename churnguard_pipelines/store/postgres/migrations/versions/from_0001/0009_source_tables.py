"""What the customers' databases hold: their tables with their mirrors, and how far behind their change logs are."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, protect

revision = "0009"
down_revision = "0008"

TABLES = """
CREATE TABLE ingest.source_tables (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    object text NOT NULL,
    raw_table text NOT NULL UNIQUE,
    definition jsonb NOT NULL,
    problem text,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, integration_id, object)
);
CREATE TABLE ingest.change_logs (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    lag_bytes bigint,
    lag_seconds double precision,
    horizon double precision,
    detail jsonb NOT NULL DEFAULT '{}',
    looked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, integration_id)
);
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("source_tables", "change_logs"):
        for statement in protect("ingest", table, app=READ, operator=WRITE):
            op.execute(statement)
