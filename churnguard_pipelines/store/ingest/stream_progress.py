"""How far each partition of a stream is, and what its source no longer had when it was to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.ownership import of_integration
from churnguard_pipelines.store.control.tables import streams
from churnguard_pipelines.store.ingest.tables import stream_losses, stream_metrics, stream_partitions
from churnguard_pipelines.store.postgres.database import Store


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """``watermark``: where the partition ends, as its source says it; ``lag_messages``: those beyond what is stored,
    None if the source does not count them; ``lag_seconds``: how old the first of them is, 0 if there is none, None if
    nobody knows."""

    partition: str
    watermark: str | None
    lag_messages: int | None
    lag_seconds: float | None
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class StoredLoss:
    """Messages that a source no longer had: ``first_offset`` to ``last_offset``. ``certain``: there were some; else
    nobody can tell."""

    topic: str
    partition: str
    first_offset: str
    last_offset: str
    reason: str
    certain: bool
    noted_at: datetime


@dataclass(frozen=True, slots=True)
class Observed:
    """What a look at a source says of one partition; as :class:`PartitionLag`."""

    lane: Lane
    watermark: str | None
    lag_messages: int | None
    lag_seconds: float | None


_OBSERVE = sa.text("""
INSERT INTO ingest.stream_partitions AS known
       (organization_id, integration_id, partition, watermark, lag_messages, lag_seconds)
SELECT seen.* FROM unnest(cast(:organizations AS text[]), cast(:streams AS text[]), cast(:partitions AS text[]),
           cast(:watermarks AS text[]), cast(:messages AS bigint[]), cast(:seconds AS double precision[]))
           AS seen (organization_id, stream_id, partition, watermark, lag_messages, lag_seconds)
  JOIN control.streams AS stream USING (organization_id, stream_id) ORDER BY 1, 2, 3
    ON CONFLICT (organization_id, integration_id, partition) DO UPDATE
   SET watermark = excluded.watermark, lag_messages = excluded.lag_messages, lag_seconds = excluded.lag_seconds,
       observed_at = clock_timestamp()
""")
_FORGET_GONE = sa.text("""
DELETE FROM ingest.stream_partitions AS known
 USING unnest(cast(:organizations AS text[]), cast(:streams AS text[])) AS seen (organization_id, stream_id)
 WHERE known.organization_id = seen.organization_id AND known.integration_id = seen.stream_id
   AND known.observed_at < clock_timestamp() - make_interval(secs => :gone_after)
""")
GONE_AFTER = 300.0
"""Seconds after which a partition that is not seen any more, while others of its stream are, is none."""


def observe(store: Store, observed: Sequence[Observed]) -> None:
    """Of any number of streams, all partitions of each. One that was removed meanwhile gets none."""
    if not observed:
        return
    owners = {
        "organizations": [each.lane.organization_id for each in observed],
        "streams": [each.lane.integration_id for each in observed],
    }
    seen = {
        "partitions": [each.lane.name for each in observed],
        "watermarks": [each.watermark for each in observed],
        "messages": [each.lag_messages for each in observed],
        "seconds": [each.lag_seconds for each in observed],
    }
    with store.operator() as connection:
        connection.execute(_OBSERVE, owners | seen)
        connection.execute(_FORGET_GONE, owners | {"gone_after": GONE_AFTER})


def lags(store: Store, stream_id: str) -> list[PartitionLag]:
    """By partition."""
    columns = (stream_partitions.c[name] for name in PartitionLag.__dataclass_fields__)
    statement = sa.select(*columns).where(of_integration(stream_partitions, stream_id))
    with store.operator() as connection:
        return [PartitionLag(*row) for row in connection.execute(statement.order_by(stream_partitions.c.partition))]


MESSAGES_BEHIND = "CASE WHEN bool_and(lag_messages IS NOT NULL) THEN sum(lag_messages)::bigint END"
SECONDS_BEHIND = """CASE bool_or(lag_messages IS DISTINCT FROM 0)
    WHEN true THEN max(lag_seconds) FILTER (WHERE lag_messages IS DISTINCT FROM 0)
    WHEN false THEN 0::double precision END"""
"""Of all partitions of a stream: the messages that it is behind, NULL if the source of one does not count them, and how
old the oldest of them is, NULL if nobody knows of any."""


def lag_of_all(store: Store, organization_id: str | None = None) -> dict[str, tuple[int | None, float | None]]:
    """By stream the messages that it is behind, and how old the oldest of them is. Of none that is paused: nobody looks
    how far that is."""
    table = stream_partitions.c
    own = sa.and_(streams.c.organization_id == table.organization_id, streams.c.stream_id == table.integration_id)
    statement = (
        sa.select(table.integration_id, sa.literal_column(MESSAGES_BEHIND), sa.literal_column(SECONDS_BEHIND))
        .join_from(stream_partitions, streams, own)
        .where(streams.c.state != "paused")
    )
    if organization_id is not None:
        statement = statement.where(table.organization_id == organization_id)
    with store.operator() as connection:
        rows = connection.execute(statement.group_by(table.integration_id)).all()
    return {stream_id: (messages, seconds) for stream_id, messages, seconds in rows}


def note_loss(
    connection: Connection,
    lane: Lane,
    topic: str,
    partition: str,
    first: str,
    last: str,
    reason: str,
    certain: bool = True,
) -> None:
    """In the transaction that moves the position beyond it."""
    values = {
        "organization_id": lane.organization_id,
        "integration_id": lane.integration_id,
        "topic": topic,
        "partition": partition,
        "first_offset": first,
        "last_offset": last,
        "reason": reason,
        "certain": certain,
    }
    connection.execute(sa.insert(stream_losses).values(values))


def losses(store: Store, stream_id: str, limit: int = 100) -> list[StoredLoss]:
    """Newest first."""
    columns = (stream_losses.c[name] for name in StoredLoss.__dataclass_fields__)
    statement = sa.select(*columns).where(of_integration(stream_losses, stream_id))
    with store.operator() as connection:
        return [
            StoredLoss(*row) for row in connection.execute(statement.order_by(stream_losses.c.id.desc()).limit(limit))
        ]


def forget_losses(store: Store, days: int) -> int:
    """Returns how many notes were older."""
    old = stream_losses.c.noted_at < sa.func.clock_timestamp() - sa.func.make_interval(0, 0, 0, days)
    with store.operator() as connection:
        return connection.execute(sa.delete(stream_losses).where(old)).rowcount


def forget(connection: Connection, organization_id: str, stream_id: str) -> None:
    for table in (stream_partitions, stream_metrics, stream_losses):
        own = table.c.organization_id == organization_id, table.c.integration_id == stream_id
        connection.execute(sa.delete(table).where(*own))
