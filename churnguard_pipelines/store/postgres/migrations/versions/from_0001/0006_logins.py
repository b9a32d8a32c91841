"""Logins of the dashboard: what a session cookie stands for."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

# A login is of a key, or of a person whom an identity provider knows.
LOGINS = """
CREATE TABLE control.logins (
    token_hash text PRIMARY KEY,
    key_id text REFERENCES control.api_keys ON DELETE CASCADE,
    person text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    CHECK ((key_id IS NULL) <> (person IS NULL))
);
GRANT SELECT, INSERT, UPDATE, DELETE ON control.logins TO churnguard_operator;
"""


def upgrade() -> None:
    op.execute(LOGINS)
