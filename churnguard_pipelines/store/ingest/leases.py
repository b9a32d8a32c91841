"""Which session works which lane. A lease holds as long as its session shows signs of life."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest.sessions import DEAD_AFTER_SECONDS
from churnguard_pipelines.store.postgres.database import Store

HELD = f"""
SELECT FROM ingest.sessions AS holder WHERE holder.session_id = lease.session_id AND holder.finished_at IS NULL
   AND holder.heartbeat_at > clock_timestamp() - interval '{DEAD_AFTER_SECONDS} seconds'
"""
"""Of a row called ``lease``: whether its session lives."""

_WANTED = """
unnest(cast(:organizations AS text[]), cast(:integrations AS text[]), cast(:lanes AS text[]))
    AS wanted (organization_id, integration_id, lane)
"""
_CLEAR = sa.text(f"""
WITH dead AS (
    SELECT organization_id, integration_id, lane FROM ingest.leases AS lease
      JOIN {_WANTED} USING (organization_id, integration_id, lane)
     WHERE NOT EXISTS ({HELD}) FOR UPDATE OF lease SKIP LOCKED)
DELETE FROM ingest.leases AS lease USING dead
 WHERE lease.organization_id = dead.organization_id AND lease.integration_id = dead.integration_id
   AND lease.lane = dead.lane
""")
_TAKE = sa.text(f"""
INSERT INTO ingest.leases (organization_id, integration_id, lane, session_id)
SELECT organization_id, integration_id, lane, :session_id FROM {_WANTED} ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING RETURNING organization_id, integration_id, lane
""")
_OF_OTHERS = sa.text(f"""
SELECT organization_id, integration_id, lane FROM ingest.leases AS lease JOIN ingest.sessions USING (session_id)
 WHERE session_id <> :session_id AND kind = :kind AND EXISTS ({HELD})
""")
_LEAVE = sa.text(f"""
DELETE FROM ingest.leases AS lease USING {_WANTED}
 WHERE session_id = :session_id AND lease.organization_id = wanted.organization_id
   AND lease.integration_id = wanted.integration_id AND lease.lane = wanted.lane
""")


def take(store: Store, session_id: str, lanes: Collection[Lane]) -> set[Lane]:
    """Those of these lanes that no living session had; they are ``session_id``'s now."""
    if not lanes:
        return set()
    values = _columns(lanes)
    with store.operator() as connection:  # of its own: another session may wait for what is deleted, and has such, too
        connection.execute(_CLEAR, values)
    with store.operator() as connection:
        rows = connection.execute(_TAKE, values | {"session_id": session_id})
        return {Lane(*row) for row in rows}


def of_others(store: Store, session_id: str, kind: str) -> set[Lane]:
    """The lanes that other living sessions of this kind have."""
    with store.operator() as connection:
        return {Lane(*row) for row in connection.execute(_OF_OTHERS, {"session_id": session_id, "kind": kind})}


def leave(store: Store, session_id: str, lanes: Collection[Lane]) -> None:
    """Others may have these lanes; those that are not ``session_id``'s are left alone."""
    if lanes:
        with store.operator() as connection:
            connection.execute(_LEAVE, _columns(lanes) | {"session_id": session_id})


def _columns(lanes: Collection[Lane]) -> dict[str, list[str]]:
    return {
        "organizations": [lane.organization_id for lane in lanes],
        "integrations": [lane.integration_id for lane in lanes],
        "lanes": [lane.name for lane in lanes],
    }
