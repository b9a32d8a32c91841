"""Whether a source is known to have lost messages, or only nobody can tell."""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.execute("ALTER TABLE ingest.stream_losses ADD COLUMN certain boolean NOT NULL DEFAULT true")
