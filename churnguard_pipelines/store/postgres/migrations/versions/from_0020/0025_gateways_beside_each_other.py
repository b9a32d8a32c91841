"""Gateways write to the inbox beside each other, each commit in a slot of its own, and share the rates they grant.

The version before goes on as it did: it writes in slot 0, under its one lock, and reads by the lane ``webhooks``. The
lane ``inbox`` begins where that one stands.
"""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"

SLOTS = """
CREATE TABLE ingest.inbox_slots (slot smallint PRIMARY KEY);
INSERT INTO ingest.inbox_slots SELECT generate_series(1, 8);
GRANT SELECT, UPDATE ON ingest.inbox_slots TO churnguard_operator;
ALTER TABLE ingest.webhook_inbox ADD COLUMN slot smallint NOT NULL DEFAULT 0;
"""

LANES = """
ALTER TABLE ingest.checkpoints NO FORCE ROW LEVEL SECURITY;
INSERT INTO ingest.checkpoints (organization_id, integration_id, lane, position, source, version)
SELECT organization_id, integration_id, 'inbox', position, source, version
  FROM ingest.checkpoints WHERE lane = 'webhooks';
ALTER TABLE ingest.checkpoints FORCE ROW LEVEL SECURITY;
"""

# What a crash of the server loses of it is a minute's rates.
RATES = """
CREATE UNLOGGED TABLE ingest.rates (name text PRIMARY KEY, full_at timestamptz NOT NULL);
GRANT SELECT, INSERT, UPDATE, DELETE ON ingest.rates TO churnguard_operator;
"""


def upgrade() -> None:
    for script in (SLOTS, LANES, RATES):
        op.execute(script)
