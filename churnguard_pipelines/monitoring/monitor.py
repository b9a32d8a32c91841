"""Takes the picture of the installation that dashboards show, at most once per interval and one at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.monitoring.dagster_state import DagsterState, read_dagster_state
from churnguard_pipelines.monitoring.health import Health, judge
from churnguard_pipelines.monitoring.streams import StreamHealth, judge_stream, read_stream_vitals
from churnguard_pipelines.monitoring.vitals import read_vitals
from churnguard_pipelines.monitoring.work import Work, read_work
from churnguard_pipelines.store.ingest.sync_states import is_alive
from churnguard_pipelines.store.ingest.tables import sync_objects, syncs
from churnguard_pipelines.store.postgres.database import Store

TREND_DAYS = 30
MOST_INTERVALS = 2
"""That a picture may be old; who asks then waits for the next one."""
SETTLED = timedelta(hours=1)
"""After its end nothing is added to a day any more: what ends in it is counted in one transaction."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Day:
    """What one organization's integrations did on a day (UTC). ``failed``: syncs that did not succeed in whole;
    ``events``: webhook events that were taken, ``events_rejected``: those of them that could not be worked off."""

    organization_id: str
    day: date
    read: int = 0
    written: int = 0
    rejected: int = 0
    succeeded: int = 0
    failed: int = 0
    events: int = 0
    events_rejected: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """A sync under way. ``per_second``: records it has read, on average since it began."""

    organization_id: str
    integration_id: str
    read: int
    per_second: float


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources that the installation uses. Of the database. ``bytes``: all that the installation stores in it."""

    bytes: int
    connections: int
    connections_at_most: int


@dataclass(frozen=True, slots=True)
class Picture:
    """The state of the installation at one moment. ``last_day``: the same sums as a :class:`Day`, over the last 24
    hours; ``days``: the last 30 days; ``dagster``: None if nothing is known of it."""

    as_of: datetime
    integrations: Sequence[Health]
    streams: Sequence[StreamHealth]
    last_day: Sequence[Day]
    days: Sequence[Day]
    running: Sequence[Running]
    resources: Resources
    work: Work
    dagster: DagsterState | None


class Monitor:
    """Keeps the latest picture of the installation, and has a new one taken when somebody asks and it is ``interval``
    seconds old. Who asks gets the latest meanwhile, but waits for the new one where there is none, where it is older
    than ``MOST_INTERVALS``, or where the attempt to replace it failed: then he learns why. Thread safe. ``monotonic``:
    a clock."""

    def __init__(self, store: Store, interval: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store, self._interval, self._monotonic = store, interval, monotonic
        self._lock = threading.Lock()
        self._latest: Picture | None = None
        self._begun = 0.0
        self._next: Future[Picture] | None = None

    def picture(self) -> Picture:
        """Raises whatever prevents that one is taken, e.g. ``DatabaseUnavailable``."""
        with self._lock:
            latest, age = self._latest, self._monotonic() - self._begun
            if latest is not None and age < self._interval:
                return latest
            taken = self._being_taken()
            if latest is not None and age < MOST_INTERVALS * self._interval:
                return latest
        return taken.result()

    @contextmanager
    def kept_fresh(self) -> Iterator[Future[Picture]]:
        """One is taken at once, which is what is given, and another as soon as it is ``interval`` seconds old, so that
        whoever asks waits for none."""
        ended = threading.Event()

        def keep() -> None:
            while not ended.wait(self._interval):
                with self._lock:
                    self._being_taken()

        with self._lock:
            first = self._being_taken()
        threading.Thread(target=keep, name="pictures", daemon=True).start()
        try:
            yield first
        finally:
            ended.set()

    def _being_taken(self) -> Future[Picture]:
        if self._next is None:
            self._next = Future()
            threading.Thread(target=self._take, args=[self._next], name="picture", daemon=True).start()
        return self._next

    def _take(self, taken: Future[Picture]) -> None:
        begun = self._monotonic()
        picture: Picture | None = None
        try:
            picture = take_picture(self._store, self._latest)
        except Exception as error:
            _log.warning("the numbers of the dashboard cannot be read: %s", error)
            taken.set_exception(error)
        else:
            taken.set_result(picture)
        finally:
            with self._lock:
                self._latest, self._begun, self._next = picture, begun, None


_SUMS = """
SELECT organization_id, {day} AS day, sum(read)::bigint AS read, sum(written)::bigint AS written,
       sum(rejected)::bigint AS rejected, sum(succeeded)::bigint AS succeeded, sum(failed)::bigint AS failed,
       sum(events)::bigint AS events, sum(events_rejected)::bigint AS events_rejected
  FROM (SELECT organization_id, hour, read, written, rejected, succeeded, partial + failed AS failed, 0 AS events,
               0 AS events_rejected
          FROM ingest.sync_hours
         UNION ALL
        SELECT organization_id, hour, 0, 0, 0, 0, 0, CASE WHEN outcome = 'accepted' THEN events ELSE 0 END,
               CASE WHEN outcome = 'rejected' THEN events ELSE 0 END
          FROM ingest.webhook_counts WHERE outcome IN ('accepted', 'rejected')) AS hours
 WHERE hour >= {since} GROUP BY 1, 2 ORDER BY 1, 2
"""
_UTC_DAY = "(hour AT TIME ZONE 'UTC')::date"
_DAYS = sa.text(_SUMS.format(day=_UTC_DAY, since="CAST(:since AS timestamptz)"))
_LAST_DAY = sa.text(
    _SUMS.format(
        day="(clock_timestamp() AT TIME ZONE 'UTC')::date",
        since="date_trunc('hour', now(), 'UTC') - interval '23 hours'",
    )
)
_RESOURCES = sa.text(
    "SELECT pg_database_size(current_database()) AS bytes, "
    # pg_stat_activity would not tell a login without privileges which of the others' are connections
    "(SELECT sum(numbackends)::int FROM pg_stat_database) AS connections, "
    "current_setting('max_connections')::int AS connections_at_most"
)


def take_picture(store: Store, former: Picture | None = None) -> Picture:
    """``former``: the one before, whose days that were over by then are not summed up again."""
    with store.operator() as connection:
        as_of: datetime = connection.scalar(sa.text("SELECT clock_timestamp()"))
        days = _days(connection, as_of, former)
        last_day = [Day(**row) for row in connection.execute(_LAST_DAY).mappings()]
        running = [Running(**row) for row in connection.execute(_running()).mappings()]
        resources = Resources(**connection.execute(_RESOURCES).mappings().one())
        work = read_work(connection)
    integrations = [judge(vitals) for vitals in read_vitals(store)]
    streams = [judge_stream(vitals) for vitals in read_stream_vitals(store)]
    dagster = read_dagster_state(store.dagster_database_url)
    return Picture(as_of, integrations, streams, last_day, days, running, resources, work, dagster)


def _days(connection: Connection, as_of: datetime, former: Picture | None) -> list[Day]:
    """By organization and day."""
    first = as_of.astimezone(UTC).date() - timedelta(days=TREND_DAYS - 1)
    over = (former.as_of - SETTLED).astimezone(UTC).date() if former else first
    known = [each for each in former.days if first <= each.day < over] if former else []
    since = datetime.combine(max(first, over), datetime.min.time(), UTC)
    found = [Day(**row) for row in connection.execute(_DAYS, {"since": since}).mappings()]
    return sorted([*known, *found], key=lambda each: (each.organization_id, each.day))


def _running() -> sa.Select[Any]:
    read = sa.func.coalesce(sa.func.sum(sync_objects.c.read), 0).cast(sa.BigInteger)
    seconds = sa.func.greatest(sa.extract("epoch", sa.func.clock_timestamp() - syncs.c.started_at), 1)
    return (
        sa.select(
            syncs.c.organization_id,
            syncs.c.integration_id,
            read.label("read"),
            (read / seconds).cast(sa.Double).label("per_second"),
        )
        .outerjoin_from(syncs, sync_objects, sync_objects.c.sync_id == syncs.c.sync_id)
        .where(is_alive(), syncs.c.status == "running")
        .group_by(syncs.c.sync_id)
        .order_by(syncs.c.organization_id, syncs.c.integration_id)
    )
