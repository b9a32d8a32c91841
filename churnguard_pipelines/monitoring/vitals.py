"""The vital signs of every integration, read in a few statements from what the syncs leave behind anyway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from churnguard_pipelines.engine.quota import quota_account
from churnguard_pipelines.engine.tokens import token_of
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationStatus
from churnguard_pipelines.store.control.integrations import survey_integrations
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.ingest.breakers import BreakerRow
from churnguard_pipelines.store.ingest.ledger import LAST_WORDS
from churnguard_pipelines.store.ingest.sync_states import DEAD_AFTER_SECONDS, HISTORY, UNFINISHED
from churnguard_pipelines.store.postgres.database import Store

MOST_COUNTED = 1000
"""Rejected records and waiting events are counted up to here: a number that large says enough."""
DRIFT_DAYS = 7
"""What no sync has seen for longer is over."""


@dataclass(frozen=True, slots=True)
class LatestSync:
    """The latest sync of an integration. ``status``: ``queued``, ``running``, ``succeeded``, ``partial`` or ``failed``.
    ``failed_objects``: of the latest that has ended, which read ``objects``."""

    sync_id: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    error: str | None
    quota_left: float | None
    objects: int = 0
    failed_objects: int = 0


@dataclass(frozen=True, slots=True)
class Recent:
    """What the recent syncs came to. Over the last 24 hours, or three times the ``sync_frequency`` where that is
    longer."""

    succeeded: int
    partial: int
    failed: int
    read: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Quota:
    """The quota of the provider account. Of the account. ``per_second``: what refusals have lowered us to, None where
    nothing has."""

    blocked_until: datetime | None
    per_second: float | None


@dataclass(frozen=True, slots=True)
class Waits:
    """The webhook events that wait. ``count``: up to ``MOST_COUNTED``; ``since``: how long the oldest has waited."""

    count: int
    since: datetime


@dataclass(frozen=True, slots=True)
class ChangeLog:
    """The lag of a change log. Of a followed database. ``used``: the share of what its source keeps that waits to be
    read."""

    used: float
    looked_at: datetime


@dataclass(frozen=True, slots=True)
class Vitals:
    """The vital signs of one integration. ``good_at``: when the latest sync that brought something began, in whole or
    in part; ``failing_since``: the first that did not succeed after the latest that did; ``due_at``: when the next one
    is to begin; ``unreadable``: why its secrets cannot be opened; ``credentials_end``: when they run out and cannot be
    renewed; ``misfits``: columns whose values do not fit them; ``stopped``: a database's tables that are not read any
    more, with the reason; ``rows``: in the warehouse when syncs counted them last; ``log_lag_seconds``: of a followed
    database, as it was looked at last."""

    now: datetime
    organization_id: str
    integration_id: str
    name: str
    provider: str
    status: IntegrationStatus
    created_at: datetime
    sync_frequency: int
    due_at: datetime
    latest: LatestSync | None
    good_at: datetime | None
    failing_since: datetime | None
    recent: Recent
    breaker: BreakerRow
    quota: Quota
    rejected: Waits | None
    webhooks: Waits | None
    misfits: Mapping[str, datetime]
    stopped: Mapping[str, str]
    change_log: ChangeLog | None
    unreadable: str | None
    credentials_end: datetime | None
    rows: int | None = None
    log_lag_seconds: float | None = None

    @property
    def behind_seconds(self) -> float | None:
        """How far what is here is behind its source: what its change log says, else since ``good_at``."""
        if self.log_lag_seconds is not None:
            return self.log_lag_seconds
        return None if self.good_at is None else (self.now - self.good_at).total_seconds()


_FREQUENCY = "coalesce((config #>> '{sync_config,sync_frequency}')::int, 3600)"
# In conditions now(), not clock_timestamp(), which no index can be used for.
_INTEGRATIONS = sa.text(f"""
SELECT clock_timestamp() AS now, integration.organization_id, integration.integration_id,
       coalesce(config ->> 'integration_name', integration.integration_id) AS name, provider, integration.status,
       integration.created_at, {_FREQUENCY} AS sync_frequency, integration.next_due_at,
       latest.sync_id, latest.status AS sync_status, latest.started_at, latest.finished_at, latest.error,
       latest.quota_left, ended.objects, ended.failed_objects,
       latest.heartbeat_at < clock_timestamp() - interval '{DEAD_AFTER_SECONDS} seconds' AS dead,
       good.started_at AS good_at, failing.since AS failing_since, recent.*,
       breaker.state, breaker.failures, breaker.reason, breaker.remedy, breaker.opened_at, breaker.retry_at,
       rejected.waiting AS rejected_waiting, rejected.since AS rejected_since, misfits.found AS misfits,
       tables.stopped, log.horizon, log.lag_seconds, log.looked_at, coalesce(known.rows, tables.rows) AS rows
  FROM control.integrations AS integration
  LEFT JOIN LATERAL (
       SELECT sync_id, sync.status, started_at, finished_at, error, quota_left, heartbeat_at
         FROM ingest.syncs AS sync
        WHERE sync.organization_id = integration.organization_id
          AND sync.integration_id = integration.integration_id AND trigger <> '{HISTORY}'
        ORDER BY started_at DESC LIMIT 1) AS latest ON true
  CROSS JOIN LATERAL (
       SELECT count(*) AS objects, count(*) FILTER (WHERE page.status = 'failed') AS failed_objects
         FROM ingest.sync_objects AS page WHERE page.organization_id = integration.organization_id AND page.sync_id = (
              SELECT sync_id FROM ingest.syncs AS sync
               WHERE sync.organization_id = integration.organization_id
                 AND sync.integration_id = integration.integration_id AND trigger <> '{HISTORY}'
                 AND sync.status IN ('succeeded', 'partial', 'failed')
               ORDER BY started_at DESC LIMIT 1)) AS ended
  LEFT JOIN LATERAL (
       SELECT started_at FROM ingest.syncs AS sync
        WHERE sync.organization_id = integration.organization_id
          AND sync.integration_id = integration.integration_id AND trigger <> '{HISTORY}'
          AND sync.status IN ('succeeded', 'partial')
        ORDER BY started_at DESC LIMIT 1) AS good ON true
  LEFT JOIN LATERAL (
       SELECT started_at FROM ingest.syncs AS sync
        WHERE sync.organization_id = integration.organization_id
          AND sync.integration_id = integration.integration_id AND trigger <> '{HISTORY}' AND sync.status = 'succeeded'
        ORDER BY started_at DESC LIMIT 1) AS whole ON true
  CROSS JOIN LATERAL (
       SELECT min(started_at) AS since FROM ingest.syncs AS sync
        WHERE sync.organization_id = integration.organization_id
          AND sync.integration_id = integration.integration_id AND trigger <> '{HISTORY}'
          AND sync.status IN ('failed', 'partial')
          AND sync.started_at > coalesce(whole.started_at, '-infinity')) AS failing
  CROSS JOIN LATERAL (
       SELECT coalesce(sum(succeeded), 0)::bigint AS succeeded, coalesce(sum(partial), 0)::bigint AS partial,
              coalesce(sum(failed), 0)::bigint AS failed, coalesce(sum(read), 0)::bigint AS read,
              coalesce(sum(rejected), 0)::bigint AS rejected
         FROM ingest.sync_hours AS hours
        WHERE hours.organization_id = integration.organization_id
          AND hours.integration_id = integration.integration_id
          AND hour > now() - greatest(interval '24 hours', make_interval(
              secs => 3 * {_FREQUENCY}))) AS recent
  LEFT JOIN ingest.breakers AS breaker ON breaker.organization_id = integration.organization_id
        AND breaker.integration_id = integration.integration_id
  CROSS JOIN LATERAL (
       SELECT count(*) AS waiting, min(created_at) AS since FROM (
              SELECT created_at FROM ingest.rejected_records AS record
               WHERE record.organization_id = integration.organization_id
                 AND record.integration_id = integration.integration_id AND resolved_at IS NULL
               LIMIT {MOST_COUNTED}) AS first) AS rejected
  CROSS JOIN LATERAL (
       SELECT jsonb_object_agg(object || '.' || "column", first_seen_at) AS found FROM ingest.schema_drift AS drift
        WHERE drift.integration_id = integration.integration_id
          AND drift.organization_id = integration.organization_id AND kind = 'type_mismatch'
          AND last_seen_at > now() - interval '{DRIFT_DAYS} days') AS misfits
  CROSS JOIN LATERAL (
       SELECT jsonb_object_agg(object, problem) FILTER (WHERE problem IS NOT NULL) AS stopped, sum(rows)::bigint AS rows
         FROM ingest.source_tables AS source
        WHERE source.organization_id = integration.organization_id
          AND source.integration_id = integration.integration_id) AS tables
  CROSS JOIN LATERAL (
       SELECT sum(rows)::bigint AS rows FROM ingest.objects AS object
        WHERE object.organization_id = integration.organization_id
          AND object.integration_id = integration.integration_id) AS known
  LEFT JOIN ingest.change_logs AS log ON log.organization_id = integration.organization_id
        AND log.integration_id = integration.integration_id
 WHERE :integration_id IS NULL OR integration.integration_id = :integration_id
 ORDER BY integration.organization_id, integration.integration_id
""").bindparams(sa.bindparam("integration_id", type_=sa.Text))
_QUOTAS = sa.text("""
SELECT organization_id, provider, account, nullif(rate, 'infinity') AS rate,
       CASE WHEN blocked_until > clock_timestamp() THEN blocked_until END AS blocked_until
  FROM ingest.quotas WHERE rate < 'infinity' OR blocked_until > clock_timestamp()
""")
_NO_QUOTA = Quota(None, None)


def read_vitals(store: Store, integration_id: str | None = None) -> list[Vitals]:
    """Of all integrations, in the order of their organizations and ids; or of this one."""
    with store.operator() as connection:
        rows = connection.execute(_INTEGRATIONS, {"integration_id": integration_id}).all()
        quotas = {
            (row.organization_id, row.provider, row.account): Quota(row.blocked_until, row.rate)
            for row in connection.execute(_QUOTAS)
        }
    configured = survey_integrations(store, integration_id=integration_id)
    events = {item.lane.integration_id: Waits(item.events, item.oldest) for item in inbox.waiting(store, MOST_COUNTED)}
    return [
        _vitals(row, configured[row.integration_id], quotas, events.get(row.integration_id))
        for row in rows
        if row.integration_id in configured  # else it was removed just now
    ]


def _vitals(
    row: sa.Row[Any],
    integration: IntegrationConfiguration | ChurnGuardError,
    quotas: Mapping[tuple[str, str, str], Quota],
    webhooks: Waits | None,
) -> Vitals:
    unreadable, ends, quota = None, None, _NO_QUOTA
    if isinstance(integration, ChurnGuardError):
        unreadable = integration.message
    else:
        try:
            ends = _credentials_end(integration)
        except (ValueError, OverflowError, OSError):  # somebody else's words, which are no moments
            unreadable = "the times in its credentials are not valid."
        quota = quotas.get((row.organization_id, row.provider, quota_account(integration)), _NO_QUOTA)
    latest = None
    if row.sync_id is not None:
        vanished = row.sync_status in UNFINISHED and row.dead
        latest = LatestSync(
            row.sync_id, "failed" if vanished else row.sync_status, row.started_at, row.finished_at,
            LAST_WORDS if vanished else row.error, row.quota_left, row.objects, row.failed_objects,
        )  # fmt: skip
    return Vitals(
        now=row.now,
        organization_id=row.organization_id,
        integration_id=row.integration_id,
        name=row.name,
        provider=row.provider,
        status=IntegrationStatus(row.status),
        created_at=row.created_at,
        sync_frequency=row.sync_frequency,
        due_at=row.next_due_at,
        latest=latest,
        good_at=row.good_at,
        failing_since=row.failing_since,
        recent=Recent(row.succeeded, row.partial, row.failed, row.read, row.rejected),
        breaker=_breaker(row),
        quota=quota,
        rejected=Waits(row.rejected_waiting, row.rejected_since) if row.rejected_waiting else None,
        webhooks=webhooks,
        misfits={name: datetime.fromisoformat(seen) for name, seen in (row.misfits or {}).items()},
        stopped=row.stopped or {},
        change_log=ChangeLog(row.horizon, row.looked_at) if row.horizon is not None else None,
        unreadable=unreadable,
        credentials_end=ends,
        rows=row.rows,
        log_lag_seconds=row.lag_seconds,
    )


def _credentials_end(integration: IntegrationConfiguration) -> datetime | None:
    token = token_of(integration.credentials)
    if token is None or token.refresh_token is not None or token.expires_at is None:
        return None
    return datetime.fromtimestamp(token.expires_at, UTC)


def _breaker(row: sa.Row[Any]) -> BreakerRow:
    if row.state is None:
        return BreakerRow()
    return BreakerRow(row.state, row.failures, row.reason, row.remedy, row.opened_at, row.retry_at)


def late_after(sync_frequency: int) -> timedelta:
    """How old an integration's picture of its provider may be before it counts as late."""
    return timedelta(seconds=2 * sync_frequency)
