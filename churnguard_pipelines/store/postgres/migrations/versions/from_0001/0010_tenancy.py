"""Locks that an organization's role cannot take, and ids that stay with whoever used them first."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import APPEND, READ, protect

revision = "0010"
down_revision = "0009"

LOCKS = """
CREATE TABLE control.locks (name text PRIMARY KEY);
INSERT INTO control.locks VALUES ('inbox writers'), ('inbox days'), ('raw tables');
GRANT SELECT, UPDATE ON control.locks TO churnguard_operator;
"""

# Those in use come first, then what the audit log and the ledger know of ids that were removed.
USED_IDS = """
CREATE TABLE control.used_ids (
    kind text NOT NULL,
    used_id text NOT NULL,
    organization_id text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, used_id)
);
INSERT INTO control.used_ids (kind, used_id, organization_id)
     SELECT 'integration', integration_id, organization_id FROM control.integrations
  UNION SELECT 'webhook endpoint', endpoint_id, organization_id FROM control.webhook_endpoints
  UNION SELECT 'stream', stream_id, organization_id FROM control.streams
  UNION SELECT 'ingestion rule', rule_id, organization_id FROM control.ingestion_rules;
INSERT INTO control.used_ids (kind, used_id, organization_id)
     SELECT DISTINCT ON (action, subject) replace(split_part(action, '.', 1), '_', ' '), subject, organization_id
       FROM control.audit_log
      WHERE action IN ('integration.add', 'webhook_endpoint.add', 'stream.add', 'ingestion_rule.add')
        AND organization_id IS NOT NULL
      ORDER BY action, subject, id
         ON CONFLICT DO NOTHING;
INSERT INTO control.used_ids (kind, used_id, organization_id)
     SELECT DISTINCT ON (integration_id) 'integration', integration_id, organization_id
       FROM ingest.syncs ORDER BY integration_id, started_at
         ON CONFLICT DO NOTHING;
"""
READ_HERE = (
    "control.integrations",
    "control.webhook_endpoints",
    "control.streams",
    "control.ingestion_rules",
    "control.audit_log",
    "ingest.syncs",
)


def upgrade() -> None:
    op.execute(LOCKS)
    # The ids are of every organization: who migrates is held to none of them.
    for table in READ_HERE:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    op.execute(USED_IDS)
    for table in READ_HERE:
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    for statement in protect("control", "used_ids", app=READ, operator=APPEND):
        op.execute(statement)
