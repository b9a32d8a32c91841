"""Messages for the servers of streams that listen, until the session that is connected has sent them."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import WRITE, protect

revision = "0021"
down_revision = "0020"

TABLE = """
CREATE TABLE ingest.stream_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    message text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX stream_outbox_by_stream ON ingest.stream_outbox (organization_id, integration_id, id);
"""


def upgrade() -> None:
    op.execute(TABLE)
    for statement in protect("ingest", "stream_outbox", app=WRITE, operator=WRITE):
        op.execute(statement)
