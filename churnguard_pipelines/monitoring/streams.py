"""The vital signs of every stream, and what they say: a state, reasons, and an alert where somebody is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from churnguard_pipelines.monitoring.health import HealthStatus, Severity, Sign, counted, span, waiting
from churnguard_pipelines.monitoring.vitals import MOST_COUNTED, Waits
from churnguard_pipelines.store.control.streams import StreamState
from churnguard_pipelines.store.ingest import stream_metrics
from churnguard_pipelines.store.ingest.leases import HELD
from churnguard_pipelines.store.ingest.stream_metrics import Point
from churnguard_pipelines.store.ingest.stream_progress import MESSAGES_BEHIND, SECONDS_BEHIND
from churnguard_pipelines.store.postgres.database import Store

RECENTLY = 60.0
"""Seconds that rates are of."""
BEHIND_WARN_AT, BEHIND_CRITICAL_AT = timedelta(minutes=5), timedelta(hours=1)
REJECTED_CRITICAL_AT = 0.5
LOSS_DAYS = 7
"""A loss that is older has been seen."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What a source no longer had when it was to be read, of the last days: how often, up to ``MOST_COUNTED``, and the
    latest."""

    count: int
    topic: str
    partition: str
    first_offset: str
    last_offset: str
    reason: str
    noted_at: datetime


@dataclass(frozen=True, slots=True)
class StreamVitals:
    """The vital signs of one stream. ``reason``, ``remedy``: why it is not active, or does not get on; ``since``: when
    it became what it is; ``followed``: a session has a lane of it; ``lag_messages``, ``lag_seconds``: how far the
    source was ahead when it was looked at last, None if nobody looks or knows; ``lag_before``: ten minutes ago;
    ``recent``: what was measured in the last minute, None if nothing came."""

    now: datetime
    organization_id: str
    stream_id: str
    name: str
    kind: str
    state: StreamState
    reason: str | None
    remedy: str | None
    since: datetime
    followed: bool
    lag_messages: int | None
    lag_seconds: float | None
    lag_before: int | None
    recent: Point | None
    rejected: Waits | None
    lost: Losses | None


@dataclass(frozen=True, slots=True)
class StreamHealth:
    vitals: StreamVitals
    status: HealthStatus
    signs: tuple[Sign, ...]

    @property
    def alerts(self) -> list[Sign]:
        """The worst first."""
        raised = [sign for sign in self.signs if sign.severity is not None]
        return sorted(raised, key=lambda sign: (sign.severity is not Severity.CRITICAL, sign.since or self.vitals.now))


def judge_stream(vitals: StreamVitals) -> StreamHealth:
    """One that a person paused expects nothing."""
    if vitals.state is StreamState.PAUSED and vitals.reason is None:
        return StreamHealth(vitals, HealthStatus.PAUSED, ())
    signs = tuple(look(vitals) for look in _SIGNS)
    severities = {sign.severity for sign in signs}
    if Severity.CRITICAL in severities:
        status = HealthStatus.UNHEALTHY
    else:
        status = HealthStatus.DEGRADED if Severity.WARNING in severities else HealthStatus.HEALTHY
    return StreamHealth(vitals, status, signs)


def _state(vitals: StreamVitals) -> Sign:
    if vitals.state is StreamState.ACTIVE and vitals.reason is None:
        return Sign("stream", 1, "it is read")
    if vitals.state is StreamState.ACTIVE:  # what is tried again
        since = max(vitals.since, vitals.now - timedelta(seconds=vitals.lag_seconds or 0))
        return Sign("stream", 0.5, f"it does not get on: {vitals.reason}", Severity.WARNING, since, vitals.remedy)
    what = "it paused itself" if vitals.state is StreamState.PAUSED else "it failed"
    cause = f"{what}: {vitals.reason or 'nobody knows why'}"
    return Sign("stream", 0, cause, Severity.CRITICAL, vitals.since, vitals.remedy)


def _lag(vitals: StreamVitals) -> Sign:
    """By the age of the oldest message that waits: a number of messages is much for one stream and little for another.
    One that catches up needs nobody at once."""
    if vitals.lag_seconds is None or vitals.state is not StreamState.ACTIVE:
        return Sign("stream_lag", None, "not known")
    behind = timedelta(seconds=vitals.lag_seconds)
    rate = vitals.recent.messages_per_second if vitals.recent else 0.0
    waiting = "messages" if vitals.lag_messages is None else f"{vitals.lag_messages:,} messages"
    cause = f"{waiting} wait, the oldest for {span(behind)}; {rate:,.0f} a second are stored"
    if behind < BEHIND_WARN_AT:
        return Sign("stream_lag", 1, cause if behind else "nothing waits")
    stands_still = not (vitals.recent and vitals.recent.messages)
    grows = vitals.lag_before is None or (vitals.lag_messages or 0) >= vitals.lag_before
    critical = stands_still or (behind >= BEHIND_CRITICAL_AT and grows)
    cause += "" if vitals.lag_before is None else f"; ten minutes ago {vitals.lag_before:,} did"
    remedy = (
        f"See that Dagster's daemon runs, and what the latest {vitals.kind}_stream_session says."
        if stands_still
        else "More partitions are read beside each other; a larger batch_size costs less for each message."
    )
    since = max(vitals.now - behind + BEHIND_WARN_AT, vitals.since)
    return Sign("stream_lag", 0, cause, Severity.CRITICAL if critical else Severity.WARNING, since, remedy)


def _rejections(vitals: StreamVitals) -> Sign:
    rate, waits = vitals.recent.error_rate if vitals.recent else None, vitals.rejected
    lately = "" if rate is None else f"; {rate:.1%} of those of the last minute"
    if waits is None:
        return Sign("rejected_records", None if rate is None else 1 - rate, f"no rejected message waits{lately}")
    severe = rate is not None and rate >= REJECTED_CRITICAL_AT
    return Sign(
        "rejected_records", 0.5, f"{waiting(waits, 'rejected message')}{lately}",
        Severity.CRITICAL if severe else Severity.WARNING, waits.since,
        f"`churnguard rejected list {vitals.stream_id}` shows why; "
        f"`churnguard rejected replay {vitals.stream_id}` takes them in again.",
    )  # fmt: skip


def _loss(vitals: StreamVitals) -> Sign:
    lost = vitals.lost
    if lost is None:
        return Sign("stream_loss", 1, "nothing was lost")
    times = counted(Waits(lost.count, lost.noted_at))
    cause = (
        f"its source no longer had messages that were to be read, {times} times in {LOSS_DAYS} days; the latest: "
        f"{lost.first_offset} to {lost.last_offset} of {lost.partition} ({lost.reason})"
    )
    remedy = "Have the source keep more, or see why the stream stood still. What is gone, only who sent it can bring."
    return Sign("stream_loss", 0.5, cause, Severity.WARNING, lost.noted_at, remedy)


_SIGNS: Sequence[Callable[[StreamVitals], Sign]] = (_state, _lag, _rejections, _loss)

_STREAMS = sa.text(f"""
SELECT clock_timestamp() AS now, stream.organization_id, stream_id, config ->> 'name' AS name,
       config ->> 'stream_type' AS kind, state, state_reason AS reason, state_remedy AS remedy, state_since AS since,
       EXISTS (SELECT FROM ingest.leases AS lease WHERE lease.organization_id = stream.organization_id
                  AND lease.integration_id = stream.stream_id AND EXISTS ({HELD})) AS followed,
       lag.messages AS lag_messages, lag.seconds AS lag_seconds, earlier.lag_messages AS lag_before,
       rejected.waiting, rejected.oldest,
       lost.count AS losses, lost.topic, lost.partition, lost.first_offset, lost.last_offset,
       lost.reason AS lost_for, lost.noted_at
  FROM control.streams AS stream
 CROSS JOIN LATERAL (
       SELECT {MESSAGES_BEHIND} AS messages, {SECONDS_BEHIND} AS seconds FROM ingest.stream_partitions AS part
        WHERE part.organization_id = stream.organization_id AND part.integration_id = stream.stream_id
          AND stream.state <> 'paused') AS lag
  LEFT JOIN LATERAL (
       SELECT lag_messages FROM ingest.stream_metrics AS measured
        WHERE measured.organization_id = stream.organization_id AND measured.integration_id = stream.stream_id
          AND at BETWEEN now() - interval '20 minutes' AND now() - interval '10 minutes'
        ORDER BY at DESC LIMIT 1) AS earlier ON true
 CROSS JOIN LATERAL (
       SELECT count(*) AS waiting, min(created_at) AS oldest FROM (
              SELECT created_at FROM ingest.rejected_records AS record
               WHERE record.organization_id = stream.organization_id
                 AND record.integration_id = stream.stream_id AND resolved_at IS NULL
               LIMIT {MOST_COUNTED}) AS first) AS rejected
  LEFT JOIN LATERAL (
       SELECT count(*) OVER () AS count, latest.* FROM (
              SELECT topic, partition, first_offset, last_offset, reason, noted_at FROM ingest.stream_losses AS loss
               WHERE loss.organization_id = stream.organization_id AND loss.integration_id = stream.stream_id
                 AND certain AND noted_at > now() - interval '{LOSS_DAYS} days'
               ORDER BY noted_at DESC LIMIT {MOST_COUNTED}) AS latest
        ORDER BY noted_at DESC LIMIT 1) AS lost ON true
 WHERE (:stream_id IS NULL OR stream_id = :stream_id)
   AND (:organization_id IS NULL OR stream.organization_id = :organization_id)
 ORDER BY stream.organization_id, stream_id
""").bindparams(sa.bindparam("stream_id", type_=sa.Text), sa.bindparam("organization_id", type_=sa.Text))


def read_stream_vitals(
    store: Store, stream_id: str | None = None, organization_id: str | None = None
) -> list[StreamVitals]:
    """Of all streams, or of this one, or of this organization's; in the order of organizations and ids. Opens no
    secret."""
    measured = stream_metrics.recent(store, RECENTLY, organization_id)
    with store.operator() as connection:
        rows = connection.execute(_STREAMS, {"stream_id": stream_id, "organization_id": organization_id}).all()
    return [_vitals(row, measured.get(row.stream_id)) for row in rows]


def _vitals(row: sa.Row[Any], recent: Point | None) -> StreamVitals:
    lost = None
    if row.losses:
        place = (row.topic, row.partition, row.first_offset, row.last_offset)
        lost = Losses(row.losses, *place, row.lost_for, row.noted_at)
    return StreamVitals(
        now=row.now,
        organization_id=row.organization_id,
        stream_id=row.stream_id,
        name=row.name,
        kind=row.kind,
        state=StreamState(row.state),
        reason=row.reason,
        remedy=row.remedy,
        since=row.since,
        followed=row.followed,
        lag_messages=row.lag_messages,
        lag_seconds=row.lag_seconds,
        lag_before=row.lag_before,
        recent=recent,
        rejected=Waits(row.waiting, row.oldest) if row.waiting else None,
        lost=lost,
    )
