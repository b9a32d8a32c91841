"""How many records came by events, and how many only a sync brought."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import WRITE, protect

revision = "0019"
down_revision = "0018"

ARRIVALS = """
CREATE TABLE ingest.arrivals (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    object text NOT NULL,
    path text NOT NULL,
    day date NOT NULL,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    brought bigint NOT NULL DEFAULT 0,
    missed bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (organization_id, integration_id, object, path, day)
);
"""


def upgrade() -> None:
    op.execute(ARRIVALS)
    for statement in protect("ingest", "arrivals", app=WRITE, operator=WRITE):
        op.execute(statement)
