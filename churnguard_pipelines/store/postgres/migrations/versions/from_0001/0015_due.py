"""When each integration syncs next, and what Dagster was told of each object."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, protect

revision = "0015"
down_revision = "0014"

DUE = """
ALTER TABLE control.integrations
    ADD COLUMN next_due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN failed_syncs integer NOT NULL DEFAULT 0;
UPDATE control.integrations AS integration SET next_due_at = latest.started_at + make_interval(
           secs => coalesce((config #>> '{sync_config,sync_frequency}')::int, 3600))
  FROM (SELECT organization_id, integration_id, max(started_at) AS started_at FROM ingest.syncs
         WHERE trigger <> 'history' GROUP BY 1, 2) AS latest
 WHERE latest.organization_id = integration.organization_id AND latest.integration_id = integration.integration_id;
CREATE INDEX integrations_by_due ON control.integrations (provider, next_due_at);
"""
# ``written`` and ``deleted``: since it was told of last.
MATERIALIZATIONS = """
CREATE TABLE ingest.materializations (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    object text NOT NULL,
    status text NOT NULL,
    told_at timestamptz,
    read bigint NOT NULL DEFAULT 0,
    written bigint NOT NULL DEFAULT 0,
    stale bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (organization_id, integration_id, object)
);
"""


def upgrade() -> None:
    op.execute(DUE)
    op.execute(MATERIALIZATIONS)
    for statement in protect("ingest", "materializations", app=READ, operator=WRITE):
        op.execute(statement)
