"""What the ledger's pages add up to, hour by hour, and how many rows a sync left behind."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import protect

revision = "0007"
down_revision = "0006"

SYNC_HOURS = """
CREATE TABLE ingest.sync_hours (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    hour timestamptz NOT NULL,
    succeeded bigint NOT NULL DEFAULT 0,
    partial bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    read bigint NOT NULL DEFAULT 0,
    written bigint NOT NULL DEFAULT 0,
    stale bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    filtered bigint NOT NULL DEFAULT 0,
    calls bigint NOT NULL DEFAULT 0,
    seconds double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (organization_id, integration_id, hour)
);
INSERT INTO ingest.sync_hours
SELECT organization_id, integration_id, date_trunc('hour', finished_at, 'UTC'),
       count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'partial'),
       count(*) FILTER (WHERE status = 'failed'), sum(read), sum(written), sum(stale), sum(rejected), sum(deleted),
       sum(filtered), sum(calls), sum(extract(epoch FROM finished_at - started_at))
  FROM ingest.syncs, LATERAL (
       SELECT coalesce(sum(read), 0) AS read, coalesce(sum(written), 0) AS written, coalesce(sum(stale), 0) AS stale,
              coalesce(sum(rejected), 0) AS rejected, coalesce(sum(deleted), 0) AS deleted,
              coalesce(sum(filtered), 0) AS filtered, coalesce(sum(calls), 0) AS calls
         FROM ingest.sync_objects WHERE sync_objects.sync_id = syncs.sync_id) AS page
 WHERE status <> 'running' AND finished_at IS NOT NULL GROUP BY 1, 2, 3;
ALTER TABLE ingest.sync_objects ADD COLUMN rows bigint;
CREATE INDEX syncs_running ON ingest.syncs (integration_id) WHERE status = 'running';
"""


def upgrade() -> None:
    # The pages are of every organization: who migrates is held to none of them.
    for table in ("syncs", "sync_objects"):
        op.execute(f"ALTER TABLE ingest.{table} NO FORCE ROW LEVEL SECURITY")
    op.execute(SYNC_HOURS)
    for table in ("syncs", "sync_objects"):
        op.execute(f"ALTER TABLE ingest.{table} FORCE ROW LEVEL SECURITY")
    for statement in protect("ingest", "sync_hours"):
        op.execute(statement)
