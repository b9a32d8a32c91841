"""The ledger of syncs: what ran, how far it is, how it ended. All moments are the database's clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import JSONB, insert

from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.records import Counts, Lane, Position
from churnguard_pipelines.store.control.ownership import OF_INTEGRATION, of_integration
from churnguard_pipelines.store.ingest import due, plans
from churnguard_pipelines.store.ingest.heartbeats import beating
from churnguard_pipelines.store.ingest.plans import Planned
from churnguard_pipelines.store.ingest.sync_states import HISTORY, UNFINISHED, is_alive
from churnguard_pipelines.store.ingest.tables import sync_objects, syncs
from churnguard_pipelines.store.postgres.database import Store

HEARTBEAT_SECONDS = 10.0

SyncOutcome = Literal["succeeded", "failed", "partial", "cancelled"]
"""``cancelled``: it was told to end; that is neither good nor bad news of its source."""
SyncStatus = Literal["queued", "running"] | SyncOutcome
ObjectStatus = Literal["pending", "running", "succeeded", "failed", "skipped", "cancelled"]

_COUNTED = ("succeeded", "partial", "failed")
_SUMS = (*Counts.__slots__, "calls")
_NOTED = ("status", "expected", "error", "calls", "checkpoint_before", "checkpoint_after", "rows")
LAST_WORDS = "its process ended without finishing it (killed, or its machine went down)."


@dataclass(frozen=True, slots=True)
class ObjectReport:
    """The report of one object of a sync. ``expected``: the provider's own count of records where known; ``calls``:
    requests made to the provider; ``rows``: how many the integration had when this ended, None if that was not counted.
    ``error``: why it failed; of one that did not, what is to be said of how it was read. ``planned``: before it began.
    """

    status: ObjectStatus
    counts: Counts
    expected: int | None
    calls: int
    error: str | None
    checkpoint_before: Position | None
    checkpoint_after: Position | None
    rows: int | None
    planned: Planned | None = None


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a plan was off: sums over the objects that were read to their end and of which the number was planned.
    None where nothing was."""

    planned_rows: int | None
    rows: int | None
    planned_calls: int | None
    calls: int | None


@dataclass(frozen=True, slots=True)
class SyncReport:
    """The report of a sync. A sync whose process vanished reads as ``failed``. ``quota_left``: the provider's last
    word, if it gives one."""

    sync_id: str
    integration_id: str
    organization_id: str
    mode: str
    trigger: str
    status: SyncStatus
    started_at: datetime
    finished_at: datetime | None
    error: str | None
    quota_left: float | None
    objects: dict[str, ObjectReport]

    @property
    def deviation(self) -> Deviation | None:
        """None without a plan."""
        ended = [(each, each.planned) for each in self.objects.values() if each.planned and each.status == "succeeded"]
        rows = [(plan.rows, item.counts.read) for item, plan in ended if plan.rows is not None]
        calls = [(plan.calls, item.calls) for item, plan in ended if plan.calls is not None]
        return Deviation(*_sums(rows), *_sums(calls)) if rows or calls else None


def _sums(pairs: Sequence[tuple[int, int]]) -> tuple[int | None, int | None]:
    return (sum(planned for planned, _ in pairs), sum(took for _, took in pairs)) if pairs else (None, None)


def queue_sync(store: Store, sync_id: str, integration: IntegrationConfiguration, mode: DataSyncMode | str) -> None:
    """Open the report of a sync that waits for its turn; :func:`start_sync` begins it. Give :func:`send_heartbeats`."""
    with store.operator() as connection:
        connection.execute(
            sa.insert(syncs).values(
                organization_id=integration.organization_id, integration_id=integration.integration_id,
                sync_id=sync_id, mode=str(mode), trigger="manual", status="queued",
            )
        )  # fmt: skip


def send_heartbeats(store: Store, sync_ids: Sequence[str]) -> None:
    """Of those among them that still wait for their turn."""
    waiting = sa.update(syncs).where(syncs.c.sync_id.in_(sync_ids), syncs.c.status == "queued")
    with store.operator() as connection:
        connection.execute(waiting.values(heartbeat_at=sa.func.clock_timestamp()))


def start_sync(
    store: Store,
    sync_id: str,
    integration: IntegrationConfiguration,
    mode: DataSyncMode | str,
    objects: Sequence[str],
    trigger: str = "manual",
) -> None:
    """Open the report of the sync, its objects ``pending``. The same ``sync_id`` again begins it anew.

    ``trigger``: who wanted it, e.g. ``schedule``, ``manual``, or ``HISTORY``. Hold :func:`heartbeat` while it runs.
    """
    owner = {"organization_id": integration.organization_id, "sync_id": sync_id}
    with store.operator() as connection:
        _fail_dead_syncs(connection, integration)
        connection.execute(
            sa.delete(syncs).where(syncs.c.sync_id == sync_id, syncs.c.organization_id == integration.organization_id)
        )
        connection.execute(
            sa.insert(syncs).values(
                **owner, integration_id=integration.integration_id, mode=str(mode), trigger=trigger, status="running"
            )
        )
        planned = plans.take(connection, integration, str(mode)) if trigger != HISTORY else {}
        if objects:
            rows = [(name, planned.get(name, plans.Planned(None, None))) for name in objects]
            connection.execute(
                sa.insert(sync_objects),
                [
                    {**owner, "object": name, "planned_rows": plan.rows, "planned_calls": plan.calls}
                    for name, plan in rows
                ],
            )
        due.note_begin(connection, sync_id)


@contextmanager
def heartbeat(store: Store, sync_id: str, interval: float = HEARTBEAT_SECONDS) -> Iterator[None]:
    """The sync shows signs of life meanwhile."""

    def beat() -> None:
        with store.operator() as connection:
            alive = {"heartbeat_at": sa.func.clock_timestamp()}
            connection.execute(sa.update(syncs).where(syncs.c.sync_id == sync_id).values(alive))

    with beating(f"sync {sync_id}", beat, interval):
        yield


def finish_sync(store: Store, sync_id: str, status: SyncOutcome, error: str | None = None) -> datetime | None:
    """Close the report and add it to its hour; returns when. None: it is closed already, and keeps what it says."""
    finished = sa.update(syncs).where(syncs.c.sync_id == sync_id, syncs.c.status.in_(UNFINISHED))
    values = {"status": status, "error": error, "finished_at": sa.func.clock_timestamp()}
    with store.operator() as connection:
        closed_at: datetime | None = connection.scalar(finished.values(values).returning(syncs.c.finished_at))
        if closed_at is not None:
            _roll_up(connection, [sync_id])
            due.note_end(connection, sync_id, status)
    return closed_at


def note_failure(store: Store, lane: Lane, sync_id: str, trigger: str, error: str) -> None:
    """The report of a sync that failed before it could open one, so that the ledger knows of it, and health does."""
    with store.operator() as connection:
        report = insert(syncs).values(
            sync_id=sync_id, organization_id=lane.organization_id, integration_id=lane.integration_id,
            mode="", trigger=trigger, status="running",
        )  # fmt: skip
        if connection.execute(report.on_conflict_do_nothing()).rowcount:
            due.note_begin(connection, sync_id)
    finish_sync(store, sync_id, "failed", error)


_NOTE_ROWS = """
    UPDATE ingest.{table} AS known SET rows = :rows FROM ingest.syncs AS sync
     WHERE sync.sync_id = :sync_id AND known.object = :object AND CAST(:rows AS bigint) IS NOT NULL
       AND known.organization_id = sync.organization_id AND known.integration_id = sync.integration_id"""
_SET_OBJECT = sa.text(f"""
WITH of_an_api AS ({_NOTE_ROWS.format(table="objects")}),
     of_a_database AS ({_NOTE_ROWS.format(table="source_tables")})
UPDATE ingest.sync_objects
   SET {", ".join(f"{name} = coalesce(:{name}, {name})" for name in _NOTED)}
 WHERE sync_id = :sync_id AND object = :object
""").bindparams(*(sa.bindparam(name, type_=JSONB(none_as_null=True)) for name in _NOTED if "checkpoint" in name))


def set_object(
    store: Store,
    sync_id: str,
    object: str,
    *,
    status: ObjectStatus | None = None,
    expected_records: int | None = None,
    error: str | None = None,
    calls: int | None = None,
    checkpoint_before: Position | None = None,
    checkpoint_after: Position | None = None,
    rows: int | None = None,
) -> None:
    """Note what is given; None leaves it as it is. ``calls``: in total, not since last time."""
    values: dict[str, Any] = {
        "sync_id": sync_id,
        "object": object,
        "status": status,
        "expected": expected_records,
        "error": error,
        "calls": calls,
        "checkpoint_before": None if checkpoint_before is None else dict(checkpoint_before),
        "checkpoint_after": None if checkpoint_after is None else dict(checkpoint_after),
        "rows": rows,
    }
    with store.operator() as connection:
        connection.execute(_SET_OBJECT, values)


def set_quota_left(store: Store, sync_id: str, quota_left: float | None) -> None:
    with store.operator() as connection:
        connection.execute(sa.update(syncs).where(syncs.c.sync_id == sync_id).values(quota_left=quota_left))


_ADD_PROGRESS = sa.text(f"""
UPDATE ingest.sync_objects SET {", ".join(f"{name} = {name} + :{name}" for name in Counts.__slots__)}
 WHERE sync_id = :sync_id AND object = :object
""")


def add_progress(connection: Connection, sync_id: str, object: str, counts: Counts) -> None:
    """Add to the object's counts in the caller's transaction, so that they stand exactly if the records stand."""
    added = {name: getattr(counts, name) for name in Counts.__slots__}
    if any(added.values()):
        connection.execute(_ADD_PROGRESS, {"sync_id": sync_id, "object": object, **added})


def find_sync(store: Store, sync_id: str) -> SyncReport | None:
    return _report(store, sa.select(syncs, is_alive().label("alive")).where(syncs.c.sync_id == sync_id))


def get_sync(store: Store, sync_id: str) -> SyncReport:
    """Raises ``NotFound``."""
    if (report := find_sync(store, sync_id)) is None:
        raise NotFound(f"there is no sync {sync_id!r}.")
    return report


def latest_sync(store: Store, integration_id: str) -> SyncReport | None:
    """The one that started last."""
    statement = sa.select(syncs, is_alive().label("alive")).where(of_integration(syncs, integration_id))
    return _report(store, statement.order_by(syncs.c.started_at.desc()).limit(1))


def last_success(store: Store, integration_id: str, object: str) -> datetime | None:
    """When a sync that read this object to its end began; what the provider had then is here."""
    statement = (
        sa.select(sa.func.max(syncs.c.started_at))
        .join(sync_objects, sync_objects.c.sync_id == syncs.c.sync_id)
        .where(
            of_integration(syncs, integration_id),
            syncs.c.trigger != HISTORY,
            sync_objects.c.object == object,
            sync_objects.c.status == "succeeded",
        )
    )
    with store.operator() as connection:
        latest: datetime | None = connection.scalar(statement)
    return latest


def usual_seconds(store: Store, integration_id: str) -> float | None:
    """What the latest successful syncs took, in the median; None before the first."""
    statement = sa.text(
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at)) FROM ("
        f"SELECT started_at, finished_at FROM ingest.syncs WHERE {OF_INTEGRATION} AND status = 'succeeded' "
        "AND trigger <> :history ORDER BY started_at DESC LIMIT 5) AS latest"
    )
    with store.operator() as connection:
        seconds = connection.scalar(statement, {"integration_id": integration_id, "history": HISTORY})
    return None if seconds is None else float(seconds)


def _report(store: Store, statement: sa.Select[Any]) -> SyncReport | None:
    with store.operator() as connection:
        row = connection.execute(statement).one_or_none()
        if row is None:
            return None
        objects = connection.execute(sa.select(sync_objects).where(sync_objects.c.sync_id == row.sync_id)).all()
    dead = row.status in UNFINISHED and not row.alive
    return SyncReport(
        row.sync_id,
        row.integration_id,
        row.organization_id,
        row.mode,
        row.trigger,
        "failed" if dead else row.status,
        row.started_at,
        row.heartbeat_at if dead else row.finished_at,
        LAST_WORDS if dead else row.error,
        row.quota_left,
        {item.object: _object_report(item, dead) for item in objects},
    )


def _object_report(row: sa.Row[Any], dead: bool) -> ObjectReport:
    counts = Counts(**{name: getattr(row, name) for name in Counts.__slots__})
    died = dead and row.status == "running"
    return ObjectReport(
        "failed" if died else row.status,
        counts,
        row.expected,
        row.calls,
        LAST_WORDS if died else row.error,
        row.checkpoint_before,
        row.checkpoint_after,
        row.rows,
        None
        if row.planned_rows is None and row.planned_calls is None
        else Planned(row.planned_rows, row.planned_calls),
    )


def _fail_dead_syncs(connection: Connection, integration: IntegrationConfiguration) -> None:
    dead = sa.update(syncs).where(
        syncs.c.organization_id == integration.organization_id,
        syncs.c.integration_id == integration.integration_id,
        syncs.c.status.in_(UNFINISHED),
        sa.not_(is_alive()),
    )
    values = {"status": "failed", "error": LAST_WORDS, "finished_at": syncs.c.heartbeat_at}
    _roll_up(connection, connection.scalars(dead.values(values).returning(syncs.c.sync_id)).all())


_ROLL_UP = sa.text(f"""
INSERT INTO ingest.sync_hours AS hours
       (organization_id, integration_id, hour, succeeded, partial, failed, {", ".join(_SUMS)}, seconds)
SELECT organization_id, integration_id, date_trunc('hour', finished_at, 'UTC'),
       count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'partial'),
       count(*) FILTER (WHERE status = 'failed'), {", ".join(f"sum({name})" for name in _SUMS)},
       sum(extract(epoch FROM finished_at - started_at))
  FROM ingest.syncs, LATERAL (
       SELECT {", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in _SUMS)}
         FROM ingest.sync_objects WHERE sync_objects.sync_id = syncs.sync_id) AS page
 WHERE sync_id = ANY(:sync_ids) GROUP BY 1, 2, 3
    ON CONFLICT (organization_id, integration_id, hour) DO UPDATE SET
       {", ".join(f"{name} = hours.{name} + excluded.{name}" for name in (*_COUNTED, *_SUMS, "seconds"))}
""")


def _roll_up(connection: Connection, sync_ids: Sequence[str]) -> None:
    """What these syncs did is added to their hours; so numbers over days need no look at the reports themselves."""
    if sync_ids:
        connection.execute(_ROLL_UP, {"sync_ids": list(sync_ids)})
