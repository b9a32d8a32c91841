"""How streams do: their state, how far behind each partition is, what was measured, what a source no longer had."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, protect

revision = "0020"
down_revision = "0019"

# Rows, checkpoints and rejected records of a stream are kept under its id as under an integration's: one namespace.
ONE_NAMESPACE = """
UPDATE control.streams AS stream
   SET stream_id = left(stream_id, 50) || '_' || left(md5(organization_id || ' ' || stream_id), 12)
 WHERE stream_id IN (SELECT integration_id FROM control.integrations)
    OR EXISTS (SELECT FROM control.used_ids AS used
                WHERE kind = 'integration' AND used_id = stream.stream_id
                  AND used.organization_id <> stream.organization_id);
INSERT INTO control.used_ids (kind, used_id, organization_id)
SELECT kind, stream_id, organization_id
  FROM control.streams, (VALUES ('integration'), ('stream')) AS both_kinds (kind)
    ON CONFLICT DO NOTHING;
"""
READ_HERE = ("control.integrations", "control.streams", "control.used_ids")

STATE = """
ALTER TABLE control.streams
    ADD COLUMN state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'failed')),
    ADD COLUMN state_reason text,
    ADD COLUMN state_remedy text,
    ADD COLUMN state_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN revision bigint NOT NULL DEFAULT 1;
"""

TABLES = """
CREATE TABLE ingest.stream_partitions (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    partition text NOT NULL,
    watermark text,
    lag_messages bigint,
    lag_seconds double precision,
    observed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, integration_id, partition)
);
CREATE TABLE ingest.stream_metrics (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    session_id text NOT NULL,
    seconds double precision NOT NULL,
    messages bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    busy_seconds double precision NOT NULL DEFAULT 0,
    buffered double precision NOT NULL DEFAULT 0,
    histogram bigint[] NOT NULL,
    lag_messages bigint,
    PRIMARY KEY (organization_id, integration_id, at, session_id)
);
CREATE INDEX stream_metrics_by_age ON ingest.stream_metrics (at);
CREATE TABLE ingest.stream_losses (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    topic text NOT NULL,
    partition text NOT NULL,
    first_offset text NOT NULL,
    last_offset text NOT NULL,
    reason text NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX stream_losses_by_stream ON ingest.stream_losses (organization_id, integration_id, noted_at);
"""


def upgrade() -> None:
    # They are of every organization: who migrates is held to none of them.
    for table in READ_HERE:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    op.execute(ONE_NAMESPACE)
    for table in READ_HERE:
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(STATE)
    op.execute(TABLES)
    for table, app in (("stream_partitions", READ), ("stream_metrics", READ), ("stream_losses", WRITE)):
        for statement in protect("ingest", table, app=app, operator=WRITE):
            op.execute(statement)
