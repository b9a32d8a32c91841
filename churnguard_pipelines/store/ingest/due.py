"""When an integration syncs next: what the schedules ask every minute, and what each sync makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.store.ingest.leases import HELD
from churnguard_pipelines.store.ingest.sync_states import ALIVE, HISTORY
from churnguard_pipelines.store.postgres.database import Store

SYNC = "sync"
"""The name of an integration's lane in leases."""
LONG_SECONDS = 300
"""An integration whose latest sync took longer, or that has not had any, gets a run of its own."""
FIRST_RETRY_SECONDS = 60
NEW_RETRY_SECONDS = 30
"""After a failure of an integration that has not synced yet: whoever sets it up is mending the cause, and the schedules
look every minute."""
MOST, MOST_EACH = 1000, 100
"""Due integrations that are asked for at once, of a provider and of an organization among them: what is due beyond that
comes when there is room, so that nobody's ten thousand come before somebody's one."""
RESTING = (IntegrationStatus.INACTIVE, IntegrationStatus.PAUSED, IntegrationStatus.AUTHENTICATION_FAILED)

_FREQUENCY = "make_interval(secs => coalesce((config #>> '{sync_config,sync_frequency}')::int, 3600))"
_RETRY = f"least(make_interval(secs => {FIRST_RETRY_SECONDS} * power(2, least(failed_syncs, 20))), {_FREQUENCY})"
"""After a failure, by how many there were before it in a row."""
# now(), not clock_timestamp(), which no index can be used for.
_NOW = "coalesce(cast(:now AS timestamptz), now())"
_IS_DUE = f"""
next_due_at <= {_NOW}
AND status NOT IN ({", ".join(f"'{status.value}'" for status in RESTING)})
AND NOT EXISTS (
    SELECT FROM ingest.leases AS lease
     WHERE lease.organization_id = integration.organization_id AND lease.integration_id = integration.integration_id
       AND lease.lane = '{SYNC}' AND lease.session_id <> :session_id AND EXISTS ({HELD}))
AND NOT EXISTS (
    SELECT FROM ingest.syncs AS sync
     WHERE sync.organization_id = integration.organization_id AND sync.integration_id = integration.integration_id
       AND sync.trigger <> '{HISTORY}' AND {ALIVE})
AND NOT EXISTS (
    SELECT FROM ingest.breakers AS breaker
     WHERE breaker.organization_id = integration.organization_id
       AND breaker.integration_id = integration.integration_id AND breaker.state = 'open'
       AND (breaker.retry_at IS NULL OR breaker.retry_at > {_NOW}))
"""
_DUE = sa.text(f"""
WITH due AS (
    SELECT organization_id, integration_id, next_due_at,
           row_number() OVER (PARTITION BY organization_id ORDER BY next_due_at) AS place
      FROM control.integrations AS integration WHERE provider = :provider AND {_IS_DUE}
), chosen AS (SELECT * FROM due WHERE place <= {MOST_EACH} ORDER BY next_due_at LIMIT {MOST})
SELECT integration_id, organization_id, next_due_at,
       coalesce(latest.took > interval '{LONG_SECONDS} seconds', true) AS is_long
  FROM chosen
  LEFT JOIN LATERAL (
       SELECT coalesce(finished_at, heartbeat_at) - started_at AS took FROM ingest.syncs AS sync
        WHERE sync.organization_id = chosen.organization_id AND sync.integration_id = chosen.integration_id
          AND trigger <> '{HISTORY}'
        ORDER BY started_at DESC LIMIT 1) AS latest ON true
 ORDER BY next_due_at, integration_id
""")
_STILL_DUE = sa.text(f"""
SELECT EXISTS (SELECT FROM control.integrations AS integration
                WHERE organization_id = :organization_id AND integration_id = :integration_id AND {_IS_DUE})
""")
_OF_SYNC = f"""
  FROM ingest.syncs AS sync
 WHERE sync.sync_id = :sync_id AND trigger <> '{HISTORY}' AND integration.organization_id = sync.organization_id
   AND integration.integration_id = sync.integration_id
"""
# Until it has ended it counts as failed: one that kills its process each time must not do so again at once.
_BEGUN = sa.text(
    f"UPDATE control.integrations AS integration SET next_due_at = clock_timestamp() + {_RETRY}, "
    f"failed_syncs = failed_syncs + 1 {_OF_SYNC}"
)
_SUCCEEDED = sa.text(
    f"UPDATE control.integrations AS integration SET next_due_at = sync.started_at + {_FREQUENCY}, "
    f"failed_syncs = 0 {_OF_SYNC}"
)
_HAS_SYNCED = """EXISTS (SELECT FROM ingest.syncs AS before
  WHERE before.organization_id = {0}organization_id AND before.integration_id = {0}integration_id
    AND before.status IN ('succeeded', 'partial'))"""
_RETRY_ENDED = _RETRY.replace("failed_syncs", "greatest(failed_syncs - 1, 0)")
_AGAIN_SOON = f"next_due_at = clock_timestamp() + {_RETRY_ENDED}"
_FAILED = sa.text(
    "UPDATE control.integrations AS integration SET next_due_at = clock_timestamp() + "
    f"CASE WHEN {_HAS_SYNCED.format('sync.')} THEN {_RETRY_ENDED} "
    f"ELSE make_interval(secs => {NEW_RETRY_SECONDS}) END {_OF_SYNC}"
)
_CANCELLED = sa.text(
    f"UPDATE control.integrations AS integration SET {_AGAIN_SOON}, failed_syncs = greatest(failed_syncs - 1, 0) "
    f"{_OF_SYNC}"
)


@dataclass(frozen=True, slots=True)
class DueIntegration:
    """``due_at``: since when; ``is_long``: it is to have a run of its own."""

    integration_id: str
    organization_id: str
    due_at: datetime
    is_long: bool


def due_integrations(store: Store, provider: str, now: datetime | None = None) -> list[DueIntegration]:
    """The longest due first: not paused, breaker closed or its time to retry come, nothing at work on it. A sync or a
    session whose process was killed is not at work. ``now``: the database's if None."""
    with store.operator() as connection:
        rows = connection.execute(_DUE, {"provider": provider, "now": now, "session_id": ""})
        return [DueIntegration(*row) for row in rows]


def is_due(store: Store, organization_id: str, integration_id: str, session_id: str) -> bool:
    """Whether it still is, for the session that has its lane."""
    own = {"organization_id": organization_id, "integration_id": integration_id}
    with store.operator() as connection:
        return bool(connection.scalar(_STILL_DUE, own | {"now": None, "session_id": session_id}))


def has_synced(store: Store, organization_id: str, integration_id: str) -> bool:
    """Whether it ever read an object to its end, as far as the ledger goes back."""
    statement = sa.text(f"SELECT {_HAS_SYNCED.format(':')}")
    with store.operator() as connection:
        own = {"organization_id": organization_id, "integration_id": integration_id}
        return bool(connection.scalar(statement, own))


def note_begin(connection: Connection, sync_id: str) -> None:
    """Until it has ended the sync counts as one more that failed."""
    connection.execute(_BEGUN, {"sync_id": sync_id})


def note_end(connection: Connection, sync_id: str, status: str) -> None:
    """The next one is due ``sync_frequency`` after its begin; of one that failed after a minute, doubling each time, or
    after half a minute where none has succeeded yet; of one that was cancelled after a minute, too, which counts for
    nothing."""
    statement = {"succeeded": _SUCCEEDED, "cancelled": _CANCELLED}.get(status, _FAILED)
    connection.execute(statement, {"sync_id": sync_id})
