"""What a row of ``ingest.syncs`` tells: whether the sync is still at work, and whether schedules go by it."""

from __future__ import annotations

import sqlalchemy as sa

from churnguard_pipelines.store.ingest.tables import syncs

HISTORY = "history"
"""The trigger of a sync that re-reads a window of the past; schedules do not go by it."""
UNFINISHED = ("queued", "running")
DEAD_AFTER_SECONDS = 60
ALIVE = (
    f"sync.status IN ('queued', 'running') "
    f"AND sync.heartbeat_at > clock_timestamp() - interval '{DEAD_AFTER_SECONDS} seconds'"
)
"""The same as :func:`is_alive` of a row that is called ``sync``."""


def is_alive() -> sa.ColumnElement[bool]:
    """It runs or waits for its turn, and its process has shown a sign of life lately."""
    oldest = sa.func.clock_timestamp() - sa.func.make_interval(0, 0, 0, 0, 0, 0, DEAD_AFTER_SECONDS)
    return sa.and_(syncs.c.status.in_(UNFINISHED), syncs.c.heartbeat_at > oldest)
