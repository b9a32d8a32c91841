"""What people configure beside integrations: streams, and REST endpoints to read."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, protect

revision = "0008"
down_revision = "0007"

TABLES = """
CREATE TABLE control.streams (
    stream_id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES control.organizations,
    config jsonb NOT NULL,
    secrets_sealed text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text
);
CREATE TABLE control.ingestion_rules (
    rule_id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES control.organizations,
    config jsonb NOT NULL,
    secrets_sealed text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text
);
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("streams", "ingestion_rules"):
        for statement in protect("control", table, app=READ, operator=WRITE):
            op.execute(statement)
