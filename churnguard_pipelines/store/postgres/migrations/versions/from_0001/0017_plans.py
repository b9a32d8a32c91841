"""What a sync was planned to take, to be compared with what it took."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, protect

revision = "0017"
down_revision = "0016"

PLANS = """
CREATE TABLE ingest.plans (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    mode text NOT NULL,
    objects jsonb NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, integration_id)
);
ALTER TABLE ingest.sync_objects ADD COLUMN planned_rows bigint, ADD COLUMN planned_calls bigint;
"""


def upgrade() -> None:
    op.execute(PLANS)
    for statement in protect("ingest", "plans", app=READ, operator=WRITE):
        op.execute(statement)
