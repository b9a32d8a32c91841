"""How many rows each object of an integration has, so that an overview need not look through the ledger of syncs."""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.execute("ALTER TABLE ingest.objects ADD COLUMN rows bigint")
