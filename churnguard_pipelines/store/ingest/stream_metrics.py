"""What sessions measured of streams: rows of some seconds, which become rows of a minute after an hour."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.store.control.ownership import of_integration
from churnguard_pipelines.store.ingest.stream_progress import MESSAGES_BEHIND
from churnguard_pipelines.store.ingest.tables import stream_metrics as table
from churnguard_pipelines.store.postgres.database import Store

BOUNDS_MS = tuple(round(2 ** (place / 2), 2) for place in range(-2, 34))
"""Milliseconds: upper bounds of the histogram's classes but the last, from 0.5 to 92,682, each √2 times the former."""
KEEP_DAYS = 8


@dataclass(slots=True)
class Measured:
    """A stream's work in a stretch of time. ``seconds``: how long it is; ``busy_seconds``: how long lanes were at work
    in it, all of them added up; ``buffered``: how full the source's buffer was at most, 0 to 1; ``histogram``: messages
    by how long theirs took to be stored, classes by :data:`BOUNDS_MS`."""

    organization_id: str
    stream_id: str
    seconds: float = 0.0
    messages: int = 0
    bytes: int = 0
    rejected: int = 0
    busy_seconds: float = 0.0
    buffered: float = 0.0
    histogram: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))

    def add(self, messages: int, size: int, rejected: int, seconds: float, buffered: float) -> None:
        """A batch that was stored within so many seconds."""
        self.messages += messages
        self.bytes += size
        self.rejected += rejected
        self.busy_seconds += seconds
        self.buffered = max(self.buffered, buffered)
        self.histogram[bisect_left(BOUNDS_MS, seconds * 1000)] += messages


@dataclass(frozen=True, slots=True)
class Point:
    """A stream's measured seconds from ``at`` on; as :class:`Measured`. Times to process are those of a message's
    batch, from when it was read until it was stored; None where there was no message. ``lag_messages``: those that were
    known to wait at its end, None if nobody knew."""

    at: datetime
    seconds: float
    messages: int
    bytes: int
    rejected: int
    busy_seconds: float
    buffered: float
    histogram: Sequence[int]
    lag_messages: int | None = None

    @property
    def messages_per_second(self) -> float:
        return self.messages / self.seconds if self.seconds else 0.0

    @property
    def error_rate(self) -> float | None:
        return self.rejected / self.messages if self.messages else None

    @property
    def average_ms(self) -> float | None:
        if not self.messages:
            return None
        middles = [BOUNDS_MS[0] / 2, *((low + high) / 2 for low, high in pairwise(BOUNDS_MS))]
        middles.append(BOUNDS_MS[-1])
        return sum(count * middle for count, middle in zip(self.histogram, middles, strict=True)) / self.messages

    def quantile_ms(self, share: float) -> float | None:
        """The upper bound of the class that it lies in."""
        left = share * sum(self.histogram)
        if not left:
            return None
        for count, bound in zip(self.histogram, (*BOUNDS_MS, BOUNDS_MS[-1]), strict=True):
            left -= count
            if left <= 0:
                return bound
        return BOUNDS_MS[-1]


_RECORD = sa.text(f"""
INSERT INTO ingest.stream_metrics (organization_id, integration_id, session_id, seconds, messages, bytes, rejected,
                                   busy_seconds, buffered, histogram, lag_messages)
SELECT organization_id, stream_id, :session_id, seconds, messages, bytes, rejected, busy_seconds, buffered, histogram,
       (SELECT {MESSAGES_BEHIND} FROM ingest.stream_partitions AS partition
         WHERE partition.organization_id = told.organization_id AND partition.integration_id = told.stream_id)
  FROM jsonb_to_recordset(cast(:told AS jsonb)) AS told (
       organization_id text, stream_id text, seconds double precision, messages bigint, bytes bigint, rejected bigint,
       busy_seconds double precision, buffered double precision, histogram bigint[])
  JOIN control.streams USING (organization_id, stream_id)
""")


def record(store: Store, session_id: str, measured: Sequence[Measured]) -> None:
    """In one statement, for any number of streams, with their lag as it was seen last. One that was removed meanwhile
    gets none."""
    if measured:
        told = json.dumps([asdict(each) for each in measured])
        with store.operator() as connection:
            connection.execute(_RECORD, {"session_id": session_id, "told": told})


def recent(store: Store, seconds: float = 60.0, organization_id: str | None = None) -> dict[str, Point]:
    """By stream what was measured within the last seconds, added up over sessions; nothing of those that were quiet."""
    since = sa.func.clock_timestamp() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    statement = sa.select(table).where(table.c.at > since)
    if organization_id is not None:
        statement = statement.where(table.c.organization_id == organization_id)
    by_stream: dict[str, list[sa.Row[tuple[object, ...]]]] = {}
    with store.operator() as connection:
        for row in connection.execute(statement.order_by(table.c.at)):
            by_stream.setdefault(row.integration_id, []).append(row)
    return {stream_id: _added(rows, seconds, rows[0].at) for stream_id, rows in by_stream.items()}


def history(store: Store, stream_id: str, seconds: float = 3600.0, points: int = 60) -> list[Point]:
    """Of one stream, oldest first: ``points`` stretches of equal length, of which the last ends now, those in which
    nothing came among them; none if nothing came in any."""
    width = timedelta(seconds=seconds / points)
    statement = sa.select(table, sa.func.now().label("now")).where(
        of_integration(table, stream_id), table.c.at > sa.func.now() - points * width
    )
    stretches: list[list[sa.Row[tuple[object, ...]]]] = [[] for _ in range(points)]
    now: datetime | None = None
    with store.operator() as connection:
        for row in connection.execute(statement.order_by(table.c.at)):
            now = row.now
            stretches[-1 - max((now - row.at) // width, 0)].append(row)
    if now is None:
        return []
    begun = now - points * width
    return [_added(rows, seconds / points, begun + place * width) for place, rows in enumerate(stretches)]


_LATEST = sa.text("""
SELECT coalesce(sum(messages), 0)::bigint, coalesce(sum(rejected), 0)::bigint FROM (
    SELECT messages, rejected, sum(messages) OVER (ORDER BY at DESC, session_id) - messages AS newer
      FROM ingest.stream_metrics
     WHERE organization_id = :organization_id AND integration_id = :stream_id AND messages > 0 AND at > (
           SELECT state_since FROM control.streams WHERE organization_id = :organization_id AND stream_id = :stream_id)
     ORDER BY at DESC, session_id LIMIT :messages) AS told
 WHERE newer < :messages
""")


def latest(connection: Connection, organization_id: str, stream_id: str, messages: int) -> tuple[int, int]:
    """How many of its last messages are known, about so many at most, and how many of these were rejected: since it was
    resumed, if it ever was."""
    values = {"organization_id": organization_id, "stream_id": stream_id, "messages": messages}
    known, rejected = connection.execute(_LATEST, values).one()
    return known, rejected


_ROLL = sa.text("""
WITH old AS (
    DELETE FROM ingest.stream_metrics
     WHERE session_id <> '' AND at < date_trunc('minute', clock_timestamp()) - interval '1 hour'
 RETURNING *, date_trunc('minute', at) AS minute),
sums AS (
    SELECT organization_id, integration_id, minute, sum(messages) AS messages, sum(bytes) AS bytes,
           sum(rejected) AS rejected, sum(busy_seconds) AS busy_seconds, max(buffered) AS buffered,
           max(lag_messages) AS lag_messages
      FROM old GROUP BY 1, 2, 3),
classes AS (
    SELECT organization_id, integration_id, minute, place, sum(count) AS count
      FROM old, unnest(histogram) WITH ORDINALITY AS class (count, place) GROUP BY 1, 2, 3, 4),
histograms AS (
    SELECT organization_id, integration_id, minute, array_agg(count::bigint ORDER BY place) AS histogram
      FROM classes GROUP BY 1, 2, 3)
INSERT INTO ingest.stream_metrics AS kept (organization_id, integration_id, at, session_id, seconds, messages, bytes,
                                           rejected, busy_seconds, buffered, histogram, lag_messages)
SELECT organization_id, integration_id, minute, '', 60, messages, bytes, rejected, busy_seconds, buffered, histogram,
       lag_messages
  FROM sums JOIN histograms USING (organization_id, integration_id, minute)
    ON CONFLICT DO NOTHING
""")
_FORGET = sa.text("DELETE FROM ingest.stream_metrics WHERE at < clock_timestamp() - make_interval(days => :days)")


def roll(store: Store) -> None:
    """What is older than an hour is kept by the minute, and that for some days."""
    with store.operator() as connection:
        connection.execute(_ROLL)
        connection.execute(_FORGET, {"days": KEEP_DAYS})


def _added(rows: Sequence[sa.Row[tuple[object, ...]]], seconds: float, at: datetime) -> Point:
    def total(name: str) -> float:
        return float(sum(getattr(row, name) for row in rows))

    return Point(
        at,
        seconds,
        int(total("messages")),
        int(total("bytes")),
        int(total("rejected")),
        total("busy_seconds"),
        max((row.buffered for row in rows), default=0.0),
        [sum(counts) for counts in zip(*(row.histogram for row in rows), strict=True)],
        next((row.lag_messages for row in reversed(rows) if row.lag_messages is not None), None),
    )
