"""The inbox: accepted webhook events wait here, in the order in which they were taken, until they are worked off.

A lane is an integration's events. Several gateways write at once: ``inbox_order`` says how a reader leaves none out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control import audit
from churnguard_pipelines.store.ingest import rejected
from churnguard_pipelines.store.ingest.inbox_order import HOLD_SLOT, UNREAD, Progress
from churnguard_pipelines.store.postgres import locks
from churnguard_pipelines.store.postgres.database import Store

CHANNEL = "churnguard_inbox"
"""Notified with each integration's id after events of it were taken; not in their transaction, because those that
notify commit one after the other. Who is not told, because somebody died in between, looks anyway every few seconds."""
LANE = "inbox"
REJECTED = "webhooks"
"""The object under which whole events are rejected."""
SEEN_DAYS = 30
"""For how long a delivery is known as a duplicate: longer than any provider tries again."""
KEEP_DAYS = 30
READ_BYTES = 16 * 2**20
PIECE_EVENTS, PIECE_BYTES = 500, 2**22  # that are replayed in one transaction
DAYS_AHEAD = 3
_PARTITION = "webhook_inbox_"

TAKE = f"""
WITH {HOLD_SLOT}, taken AS MATERIALIZED (
    SELECT taken.*, held.slot FROM held, unnest(
        %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[]
    ) WITH ORDINALITY
      AS taken (organization_id, provider, integration_id, endpoint_id, event_id, event_type, entity, payload, number)
), fresh AS (
    INSERT INTO ingest.webhook_seen (organization_id, provider, event_id)
    SELECT organization_id, provider, event_id FROM taken ORDER BY organization_id, provider, event_id
    ON CONFLICT DO NOTHING
    RETURNING organization_id, provider, event_id
), judged AS MATERIALIZED (
    SELECT taken.*, fresh.event_id IS NOT NULL AS is_new
      FROM taken LEFT JOIN fresh USING (organization_id, provider, event_id)
), stored AS (
    INSERT INTO ingest.webhook_inbox
           (organization_id, provider, integration_id, endpoint_id, event_id, event_type, entity, payload, slot,
            received_on)
    SELECT organization_id, provider, integration_id, endpoint_id, event_id, event_type, entity, payload, slot,
           (clock_timestamp() AT TIME ZONE 'UTC')::date
      FROM judged WHERE is_new ORDER BY number
)
SELECT organization_id, provider, event_id FROM judged WHERE NOT is_new
"""
"""One group commit. Parameters: a column each of the events, no two with one organization, provider and event id.
Returns those that were known. In a statement of its own, its slot held until the commit. In binary: as text,
each payload would be escaped here and parsed there, which took three quarters of the time."""
TELL = f"SELECT pg_notify('{CHANNEL}', integration_id) FROM unnest(%b::text[]) AS integration_id"
"""Parameter: ids of integrations."""


class InboxEvent(NamedTuple):
    sequence: int
    slot: int
    endpoint_id: str
    event_id: str
    event_type: str
    entity: str
    payload: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """An integration with events that are not worked off yet. ``oldest``: when the first of them was taken."""

    lane: Lane
    provider: str
    events: int
    oldest: datetime


def lane_of(organization_id: str, integration_id: str) -> Lane:
    return Lane(organization_id, integration_id, LANE)


# The first condition on the sequence is the index's; the rows that the others leave out are few.
_READ = sa.text(f"""
SELECT sequence, slot, endpoint_id, event_id, event_type, entity, payload, received_at FROM (
    SELECT *, sum(octet_length(payload)) OVER (ORDER BY sequence) - octet_length(payload) AS before FROM (
        SELECT inbox.* FROM ingest.webhook_inbox AS inbox, (SELECT cast(:position AS jsonb) AS position) AS done
         WHERE organization_id = :organization_id AND integration_id = :integration_id AND inbox.sequence > :sequence
           AND {UNREAD}
         ORDER BY sequence LIMIT :limit) AS next) AS sized
 WHERE before < :bytes ORDER BY sequence
""")


def read(connection: Connection, lane: Lane, progress: Progress, limit: int) -> list[InboxEvent]:
    """The lane's next events, in order: at least one, and no more than about ``READ_BYTES``. In a transaction of its
    organization."""
    own = {"organization_id": lane.organization_id, "integration_id": lane.integration_id}
    stands = {"sequence": progress.sequence, "position": json.dumps(progress.position)}
    return [
        InboxEvent(*row) for row in connection.execute(_READ, {**own, **stands, "limit": limit, "bytes": READ_BYTES})
    ]


# From one lane of the index to the next: integrations that have no events are not looked at.
_WAITING = sa.text(f"""
WITH RECURSIVE lanes AS (
    SELECT min(integration_id) AS integration_id FROM ingest.webhook_inbox
     UNION ALL
    SELECT (SELECT min(inbox.integration_id) FROM ingest.webhook_inbox AS inbox
             WHERE inbox.integration_id > lanes.integration_id)
      FROM lanes WHERE lanes.integration_id IS NOT NULL
)
SELECT integration.organization_id, integration.integration_id, integration.provider, next.received_at,
       (SELECT count(*) FROM (
            SELECT FROM ingest.webhook_inbox AS inbox
             WHERE inbox.organization_id = integration.organization_id
               AND inbox.integration_id = integration.integration_id AND {UNREAD}
             LIMIT :limit) AS first)
  FROM lanes JOIN control.integrations AS integration USING (integration_id)
  LEFT JOIN LATERAL (
       SELECT position FROM ingest.checkpoints
        WHERE organization_id = integration.organization_id AND integration_id = integration.integration_id
          AND lane = :lane) AS done ON true
  CROSS JOIN LATERAL (
       SELECT received_at FROM ingest.webhook_inbox AS inbox
        WHERE inbox.organization_id = integration.organization_id
          AND inbox.integration_id = integration.integration_id AND {UNREAD}
        ORDER BY inbox.sequence LIMIT 1) AS next
 WHERE integration.status NOT IN ('paused', 'inactive')
 ORDER BY next.received_at
""")


def waiting(store: Store, limit: int = 10_000) -> list[Waiting]:
    """Integrations with work, the longest waiting first; ``events`` is counted up to ``limit``."""
    with store.operator() as connection:
        rows = connection.execute(_WAITING, {"lane": LANE, "limit": limit}).all()
    return [Waiting(lane_of(row[0], row[1]), row[2], row[4], row[3]) for row in rows]


def replay(
    store: Store,
    integration: IntegrationConfiguration,
    *,
    actor: str,
    event_ids: Sequence[str] | None = None,
    event_types: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Put events that are still kept at the end of their lane once more; returns how many. In pieces, each of which
    stays: other deliveries go on in between.

    Doing it twice changes nothing that once did not: the newer version of a record wins. One that was rejected waits no
    longer, or is rejected once more.
    """
    chosen = "organization_id = :organization_id AND integration_id = :integration_id"
    own = {"organization_id": integration.organization_id, "integration_id": integration.integration_id}
    values: dict[str, Any] = dict(own)
    for name, condition, value in (
        ("ids", "event_id = ANY(:ids)", None if event_ids is None else list(event_ids)),
        ("types", "event_type = ANY(:types)", None if event_types is None else list(event_types)),
        ("since", "received_at >= :since", since),
        ("until", "received_at < :until", until),
    ):
        if value is not None:
            chosen += f" AND {condition}"
            values[name] = value
    columns = "organization_id, provider, integration_id, endpoint_id, event_id, event_type, entity, payload"
    choose = sa.text(
        "SELECT sequence, event_id, octet_length(payload) FROM ("
        f"SELECT DISTINCT ON (event_id) event_id, sequence, payload FROM ingest.webhook_inbox WHERE {chosen} "
        "ORDER BY event_id, sequence) AS once ORDER BY sequence"
    )
    copy = sa.text(
        f"WITH {HOLD_SLOT}, chosen AS MATERIALIZED ("
        f"SELECT {columns}, sequence AS number, held.slot FROM held, ingest.webhook_inbox AS inbox "
        "WHERE organization_id = :organization_id AND integration_id = :integration_id "
        f"AND sequence = ANY(:sequences)) INSERT INTO ingest.webhook_inbox ({columns}, slot, received_on) "
        f"SELECT {columns}, slot, (clock_timestamp() AT TIME ZONE 'UTC')::date FROM chosen ORDER BY number"
    )
    with store.operator() as connection:
        found = [tuple(row) for row in connection.execute(choose, values)]
    lane, events = lane_of(integration.organization_id, integration.integration_id), 0
    for piece in _pieces(found):
        with store.operator() as connection:
            # With them, as a session may reject them again; before a slot is held, as the organization may hold these.
            rejected.mark_stored(connection, lane, REJECTED, piece.values())
            events += connection.execute(copy, {**own, "sequences": list(piece)}).rowcount
    with store.operator() as connection:
        detail = {name: str(value) for name, value in values.items() if name not in own} | {"events": events}
        audit.record(
            connection, actor, "webhooks.replay", integration.integration_id, detail,
            organization_id=integration.organization_id,
        )  # fmt: skip
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, integration.integration_id)))
    return events


def _pieces(found: Iterable[tuple[int, str, int]]) -> Iterator[dict[int, str]]:
    """Sequences with their events' ids, of such with the bytes of each, in pieces that are copied in a moment, while a
    slot is held."""
    piece: dict[int, str] = {}
    total = 0
    for sequence, event_id, size in found:
        if piece and (len(piece) == PIECE_EVENTS or total + size > PIECE_BYTES):
            yield piece
            piece, total = {}, 0
        piece[sequence] = event_id
        total += size
    if piece:
        yield piece


def count(store: Store, outcomes: Iterable[tuple[str, str, str, int]]) -> None:
    """Add to the hourly counts: (organization, endpoint, outcome, events)."""
    rows = sorted(outcomes)
    if not rows:
        return
    statement = (
        "INSERT INTO ingest.webhook_counts AS counted (organization_id, endpoint_id, hour, outcome, events) "
        "SELECT organization_id, endpoint_id, date_trunc('hour', clock_timestamp()), outcome, events "
        "FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) "
        "AS new (organization_id, endpoint_id, outcome, events) "
        "ON CONFLICT (organization_id, endpoint_id, hour, outcome) DO UPDATE "
        "SET events = counted.events + excluded.events, last_at = clock_timestamp()"
    )
    with store.operator() as connection:
        connection.exec_driver_sql(statement, tuple(list(column) for column in zip(*rows, strict=True)))


def seen_by(
    store: Store, organization_id: str, integration_id: str, endpoint_id: str, limit: int = 20
) -> tuple[dict[str, int], list[tuple[str, str, datetime]]]:
    """An endpoint's events by outcome, and the latest it took, newest first: (id, type, when)."""
    counts = sa.text(
        "SELECT outcome, sum(events)::bigint FROM ingest.webhook_counts "
        "WHERE organization_id = :organization_id AND endpoint_id = :id GROUP BY outcome"
    )
    latest = sa.text(
        "SELECT event_id, event_type, received_at FROM ingest.webhook_inbox "
        "WHERE organization_id = :organization_id AND integration_id = :integration_id AND endpoint_id = :id "
        "ORDER BY sequence DESC LIMIT :limit"
    )
    with store.organization(organization_id) as connection:
        own = {"organization_id": organization_id, "id": endpoint_id}
        outcomes = {row[0]: row[1] for row in connection.execute(counts, own)}
        rows = connection.execute(latest, own | {"integration_id": integration_id, "limit": limit})
        return outcomes, [(row[0], row[1], row[2]) for row in rows]


def keep_partitions(store: Store, today: date | None = None) -> None:
    """Make the partitions of today and the days after it; cheap if they are there."""
    first = today or datetime.now(UTC).date()
    with store.operator() as connection:
        locks.take(connection, locks.Shared.INBOX_DAYS)
        there = set(_partitions(connection))
        for day in (first + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)):
            if day not in there:
                connection.execute(sa.text("SELECT ingest.make_inbox_day(:day)"), {"day": day})


def forget(store: Store, today: date | None = None) -> int:
    """Drop whole days that are older than ``KEEP_DAYS`` and worked off, and what tells duplicates after ``SEEN_DAYS``.

    Returns how many days were dropped.
    """
    limit = (today or datetime.now(UTC).date()) - timedelta(days=KEEP_DAYS)
    behind = min((item.oldest.astimezone(UTC).date() for item in waiting(store, limit=1)), default=date.max)
    with store.operator() as connection:
        locks.take(connection, locks.Shared.INBOX_DAYS)
        # It locks the whole inbox for a moment; if it has to wait for that, deliveries wait behind it.
        connection.execute(sa.text("SET LOCAL lock_timeout = '2s'"))
        old = [day for day in _partitions(connection) if day < min(limit, behind)]
        for day in old:
            connection.execute(sa.text("SELECT ingest.drop_inbox_day(:day)"), {"day": day})
    with store.operator() as connection:
        connection.execute(
            sa.text("DELETE FROM ingest.webhook_seen WHERE seen_at < clock_timestamp() - make_interval(days => :days)"),
            {"days": SEEN_DAYS},
        )
        connection.execute(
            sa.text("DELETE FROM ingest.webhook_counts WHERE hour < clock_timestamp() - make_interval(days => :days)"),
            {"days": 3 * KEEP_DAYS},
        )
    return len(old)


def _partitions(connection: Connection) -> list[date]:
    statement = sa.text(
        "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid "
        "WHERE inhparent = 'ingest.webhook_inbox'::regclass"
    )
    names = (name.removeprefix(_PARTITION) for name in connection.scalars(statement))
    return sorted(date.fromisoformat(name) for name in names if name.isdigit())
