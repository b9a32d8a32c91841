"""Integrations that somebody is about to add on the page: sealed, for one login, for a while."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"

TABLE = """
CREATE TABLE control.drafts (
    draft_id text PRIMARY KEY,
    owner_hash text NOT NULL,
    sealed text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON control.drafts TO churnguard_operator;
"""


def upgrade() -> None:
    op.execute(TABLE)
