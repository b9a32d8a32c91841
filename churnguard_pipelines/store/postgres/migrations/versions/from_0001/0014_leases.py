"""Which session works which lane."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, protect

revision = "0014"
down_revision = "0013"

LEASES = """
-- Unlogged: after a crash of the server all lanes are free.
CREATE UNLOGGED TABLE ingest.leases (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    lane text NOT NULL,
    session_id text NOT NULL REFERENCES ingest.sessions ON DELETE CASCADE,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, integration_id, lane)
);
CREATE INDEX leases_by_session ON ingest.leases (session_id);
"""


def upgrade() -> None:
    op.execute(LEASES)
    for statement in protect("ingest", "leases", app=READ, operator=WRITE):
        op.execute(statement)
