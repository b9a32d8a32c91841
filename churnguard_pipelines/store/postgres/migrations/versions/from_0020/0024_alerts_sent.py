"""Where alerts are sent, what is not to be sent for a while, and what was told where."""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0023"

TABLES = """
CREATE TABLE control.alert_destinations (
    destination_id text PRIMARY KEY,
    url_sealed text NOT NULL,
    shown text NOT NULL,
    least_severity text NOT NULL,
    after_seconds integer NOT NULL,
    problem text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text
);
CREATE TABLE control.alert_silences (
    silence_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject text,
    trouble text,
    until timestamptz NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text
);
CREATE TABLE control.alerts_told (
    destination_id text NOT NULL REFERENCES control.alert_destinations ON DELETE CASCADE,
    subject text NOT NULL,
    trouble text NOT NULL,
    told_at timestamptz,
    over_since timestamptz,
    claimed_until timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    PRIMARY KEY (destination_id, subject, trouble)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON control.alert_destinations, control.alert_silences, control.alerts_told
   TO churnguard_operator;
"""


def upgrade() -> None:
    op.execute(TABLES)
