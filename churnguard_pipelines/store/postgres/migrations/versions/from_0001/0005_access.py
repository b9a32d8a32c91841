"""API keys: who may use the dashboard and the API."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, protect

revision = "0005"
down_revision = "0004"

TABLE = """
CREATE TABLE control.api_keys (
    key_id text PRIMARY KEY,
    name text NOT NULL,
    secret_hash text NOT NULL,
    organization_id text REFERENCES control.organizations,
    role text NOT NULL CHECK (role IN ('admin', 'viewer')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
)
"""


def upgrade() -> None:
    op.execute(TABLE)
    for statement in protect("control", "api_keys", app=READ, operator=WRITE):
        op.execute(statement)
