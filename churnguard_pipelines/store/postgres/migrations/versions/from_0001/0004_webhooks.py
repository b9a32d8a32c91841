"""Webhook endpoints, the inbox that their events wait in, and who works on it."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, protect

revision = "0004"
down_revision = "0003"

CONTROL = """
CREATE TABLE control.webhook_endpoints (
    endpoint_id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES control.organizations,
    provider text NOT NULL,
    integration_id text REFERENCES control.integrations ON DELETE CASCADE,
    secrets_sealed text NOT NULL,
    options jsonb NOT NULL DEFAULT '{}',
    allowed_events jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text
);
CREATE INDEX webhook_endpoints_by_address ON control.webhook_endpoints (organization_id, provider);
"""

INGEST = """
CREATE SEQUENCE ingest.webhook_sequence AS bigint;
GRANT USAGE ON SEQUENCE ingest.webhook_sequence TO churnguard_operator;
CREATE TABLE ingest.webhook_inbox (
    organization_id text NOT NULL,
    provider text NOT NULL,
    integration_id text NOT NULL DEFAULT '',
    endpoint_id text NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    entity text NOT NULL,
    payload text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    received_on date NOT NULL,
    sequence bigint NOT NULL DEFAULT nextval('ingest.webhook_sequence')
) PARTITION BY RANGE (received_on);
CREATE INDEX webhook_inbox_by_lane ON ingest.webhook_inbox (integration_id, sequence);
CREATE TABLE ingest.webhook_inbox_other PARTITION OF ingest.webhook_inbox DEFAULT;
CREATE TABLE ingest.webhook_seen (
    organization_id text NOT NULL,
    provider text NOT NULL,
    event_id text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, provider, event_id)
);
CREATE INDEX webhook_seen_by_age ON ingest.webhook_seen USING brin (seen_at);
CREATE TABLE ingest.webhook_counts (
    organization_id text NOT NULL,
    endpoint_id text NOT NULL,
    hour timestamptz NOT NULL,
    outcome text NOT NULL,
    events bigint NOT NULL,
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, endpoint_id, hour, outcome)
);
CREATE TABLE ingest.sessions (
    session_id text PRIMARY KEY,
    kind text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
GRANT SELECT, INSERT, UPDATE, DELETE ON ingest.sessions TO churnguard_operator;
"""

# table -> what (the application, the operator) may do with it
RIGHTS = {
    "control.webhook_endpoints": (READ, WRITE),
    "ingest.webhook_inbox": (READ, WRITE),
    "ingest.webhook_seen": (READ, WRITE),
    "ingest.webhook_counts": (WRITE, WRITE),
}


def upgrade() -> None:
    op.execute(CONTROL)
    op.execute(INGEST)
    for name, (app, operator) in RIGHTS.items():
        schema, table = name.split(".")
        for statement in protect(schema, table, app=app, operator=operator):
            op.execute(statement)
    # Nobody may read a partition but through its parent.
    op.execute("ALTER TABLE ingest.webhook_inbox_other ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE ingest.webhook_inbox_other FORCE ROW LEVEL SECURITY")
