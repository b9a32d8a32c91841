"""What each subscription was worth when: what the movements of `analytics` are added up from."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, protect

revision = "0003"
down_revision = "0002"

TABLE = """
CREATE TABLE analytics.subscription_timeline (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    subscription text NOT NULL,
    customer text NOT NULL,
    currency text NOT NULL,
    valid_from timestamptz NOT NULL,
    valid_to timestamptz,
    mrr bigint NOT NULL,
    evidence text NOT NULL,
    PRIMARY KEY (organization_id, integration_id, subscription, valid_from)
)
"""


def upgrade() -> None:
    op.execute(TABLE)
    for statement in protect("analytics", "subscription_timeline", app=WRITE, operator=READ):
        op.execute(statement)
