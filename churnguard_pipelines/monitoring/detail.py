"""One integration from close by: its objects, and the syncs it had lately."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from churnguard_pipelines.records import Drift
from churnguard_pipelines.store.control.ownership import of_integration
from churnguard_pipelines.store.ingest.drift import list_drift
from churnguard_pipelines.store.ingest.sync_states import HISTORY, UNFINISHED, is_alive
from churnguard_pipelines.store.ingest.tables import sync_objects, syncs
from churnguard_pipelines.store.postgres.database import Store


@dataclass(frozen=True, slots=True)
class ObjectState:
    """The state of one object of an integration. ``status``, ``read``, ``written``, ``error``: of the latest sync;
    ``rows``: how many the latest that counted them left; ``fresh_at``: what the provider had then is here."""

    name: str
    status: str
    read: int
    written: int
    error: str | None
    rows: int | None
    fresh_at: datetime | None
    drift: tuple[Drift, ...]


@dataclass(frozen=True, slots=True)
class PastSync:
    """A sync of the recent past. ``finished_at``: None while it runs, or if its process vanished: then it is
    ``failed``."""

    sync_id: str
    mode: str
    trigger: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    error: str | None
    read: int
    written: int
    rejected: int
    deleted: int
    calls: int


_OBJECTS = sa.text(f"""
SELECT object AS name, (array_agg(page.status ORDER BY started_at DESC))[1] AS status,
       (array_agg(page.read ORDER BY started_at DESC))[1] AS read,
       (array_agg(page.written ORDER BY started_at DESC))[1] AS written,
       (array_agg(page.error ORDER BY started_at DESC))[1] AS error,
       (array_agg(page.rows ORDER BY started_at DESC) FILTER (WHERE page.rows IS NOT NULL))[1] AS rows,
       max(started_at) FILTER (WHERE page.status = 'succeeded') AS fresh_at
  FROM ingest.syncs JOIN ingest.sync_objects AS page USING (sync_id)
 WHERE integration_id = :integration_id AND syncs.organization_id = (
       SELECT organization_id FROM control.integrations WHERE control.integrations.integration_id = :integration_id)
   AND trigger <> '{HISTORY}' GROUP BY object ORDER BY object
""")


def objects_of(store: Store, integration_id: str) -> list[ObjectState]:
    """Those that a sync has looked at."""
    drift = list_drift(store, integration_id)
    with store.operator() as connection:
        rows = connection.execute(_OBJECTS, {"integration_id": integration_id}).all()
    return [ObjectState(**row._asdict(), drift=tuple(drift.get(row.name, ()))) for row in rows]


def recent_syncs(store: Store, integration_id: str, limit: int = 20) -> list[PastSync]:
    """Newest first."""
    dead = sa.and_(syncs.c.status.in_(UNFINISHED), sa.not_(is_alive()))
    columns = [syncs.c[name] for name in ("sync_id", "mode", "trigger", "started_at", "finished_at", "error")]
    sums = [
        sa.func.coalesce(sa.func.sum(sync_objects.c[name]), 0).cast(sa.BigInteger).label(name)
        for name in ("read", "written", "rejected", "deleted", "calls")
    ]
    statement = (
        sa.select(
            *columns, sa.case((dead, "failed"), else_=syncs.c.status).label("status"), *sums,
        )
        .outerjoin_from(syncs, sync_objects, sync_objects.c.sync_id == syncs.c.sync_id)
        .where(of_integration(syncs, integration_id))
        .group_by(syncs.c.sync_id)
        .order_by(syncs.c.started_at.desc())
        .limit(limit)
    )  # fmt: skip
    with store.operator() as connection:
        return [PastSync(**row._asdict()) for row in connection.execute(statement)]
