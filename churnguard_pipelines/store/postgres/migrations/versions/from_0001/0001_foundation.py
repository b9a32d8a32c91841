"""Roles, schemas, and the tables of `control` and `ingest`."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import APPEND, READ, WRITE, protect

revision = "0001"
down_revision = None

SCHEMAS = """
CREATE SCHEMA ingest;
CREATE SCHEMA raw;
CREATE SCHEMA analytics;
GRANT USAGE ON SCHEMA control, ingest, raw, analytics TO churnguard_app, churnguard_operator;
DO $$
BEGIN
    IF NOT has_database_privilege('churnguard_app', current_database(), 'TEMPORARY') THEN
        EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO churnguard_app', current_database());
    END IF;
END $$;
"""

CONTROL = """
CREATE TABLE control.organizations (
    organization_id text PRIMARY KEY,
    name text NOT NULL,
    reporting_currency text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE control.integrations (
    integration_id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES control.organizations,
    provider text NOT NULL,
    config jsonb NOT NULL,
    credentials_sealed text NOT NULL,
    status text NOT NULL,
    status_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text
);
CREATE INDEX integrations_by_provider ON control.integrations (provider, organization_id);
CREATE TABLE control.audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail jsonb NOT NULL
);
"""

INGEST = """
CREATE TABLE ingest.checkpoints (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    lane text NOT NULL,
    position jsonb NOT NULL,
    source text NOT NULL,
    version bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, integration_id, lane)
);
CREATE TABLE ingest.rejected_records (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    lane text NOT NULL,
    object text NOT NULL,
    key text,
    reason text NOT NULL,
    payload json NOT NULL,
    fingerprint text NOT NULL,
    sync_id text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz
);
CREATE UNIQUE INDEX rejected_records_open ON ingest.rejected_records
    (organization_id, integration_id, object, fingerprint) WHERE resolved_at IS NULL;
CREATE TABLE ingest.syncs (
    sync_id text PRIMARY KEY,
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    mode text NOT NULL,
    trigger text NOT NULL,
    status text NOT NULL,
    error text,
    quota_left double precision,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
CREATE INDEX syncs_by_integration ON ingest.syncs (integration_id, started_at);
CREATE TABLE ingest.sync_objects (
    organization_id text NOT NULL,
    sync_id text NOT NULL REFERENCES ingest.syncs ON DELETE CASCADE,
    object text NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    read bigint NOT NULL DEFAULT 0,
    written bigint NOT NULL DEFAULT 0,
    stale bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    filtered bigint NOT NULL DEFAULT 0,
    expected bigint,
    calls bigint NOT NULL DEFAULT 0,
    error text,
    checkpoint_before jsonb,
    checkpoint_after jsonb,
    PRIMARY KEY (sync_id, object)
);
CREATE TABLE ingest.quotas (
    organization_id text NOT NULL,
    provider text NOT NULL,
    account text NOT NULL,
    rate double precision NOT NULL,
    capacity double precision NOT NULL,
    tokens double precision NOT NULL,
    refilled_at timestamptz NOT NULL,
    blocked_until timestamptz,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, provider, account)
);
CREATE TABLE ingest.breakers (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    failures integer NOT NULL DEFAULT 0,
    reason text,
    remedy text,
    opened_at timestamptz,
    retry_at timestamptz,
    PRIMARY KEY (organization_id, integration_id)
);
CREATE TABLE ingest.schema_drift (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    object text NOT NULL,
    "column" text NOT NULL,
    kind text NOT NULL,
    detail text NOT NULL,
    examples jsonb NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, integration_id, object, "column", kind)
);
"""

# table -> what (the application, the operator) may do with it. Nobody changes what the audit log says.
RIGHTS = {
    "control.organizations": (READ, WRITE),
    "control.integrations": (READ, WRITE),
    "control.audit_log": (APPEND, APPEND),
    "ingest.checkpoints": (WRITE, WRITE),
    "ingest.rejected_records": (WRITE, WRITE),
    "ingest.syncs": (WRITE, WRITE),
    "ingest.sync_objects": (WRITE, WRITE),
    "ingest.quotas": (WRITE, WRITE),
    "ingest.breakers": (WRITE, WRITE),
    "ingest.schema_drift": (WRITE, WRITE),
}


def upgrade() -> None:
    for script in (SCHEMAS, CONTROL, INGEST):
        op.execute(script)
    for name, (app, operator) in RIGHTS.items():
        schema, table = name.split(".")
        for statement in protect(schema, table, app=app, operator=operator):
            op.execute(statement)
