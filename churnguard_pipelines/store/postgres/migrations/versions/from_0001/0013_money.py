"""Why a subscription is worth nothing, what could not be valued, and what of the movements only pauses."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, open_to_readers, protect

revision = "0013"
down_revision = "0012"

COLUMNS = """
ALTER TABLE control.organizations ADD COLUMN unpaid_counts boolean NOT NULL DEFAULT false;
ALTER TABLE analytics.subscription_timeline ADD COLUMN cause text;
ALTER TABLE analytics.mrr_movements
    ADD COLUMN paused bigint NOT NULL DEFAULT 0 CHECK (paused <= 0),
    ADD COLUMN resumed bigint NOT NULL DEFAULT 0 CHECK (resumed >= 0);
ALTER TABLE analytics.mrr_movements_by_currency
    ADD COLUMN paused bigint NOT NULL DEFAULT 0 CHECK (paused <= 0),
    ADD COLUMN resumed bigint NOT NULL DEFAULT 0 CHECK (resumed >= 0);
"""
UNVALUED = """
CREATE TABLE analytics.unvalued (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    subscription text NOT NULL,
    problem text NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz,
    PRIMARY KEY (organization_id, integration_id, subscription, problem)
)
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(UNVALUED)
    for statement in (
        *protect("analytics", "unvalued", app=WRITE, operator=READ),
        *open_to_readers("analytics", "unvalued"),
    ):
        op.execute(statement)
