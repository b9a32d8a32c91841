"""Who works on what now, and what was done lately, of the whole installation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.store.ingest.sessions import DEAD_AFTER_SECONDS


@dataclass(frozen=True, slots=True)
class Done:
    """What syncs of a provider came to, of this hour and the one before it. ``calls``: requests to the provider."""

    provider: str
    succeeded: int
    partial: int
    failed: int
    calls: int


@dataclass(frozen=True, slots=True)
class Work:
    """``sessions``, ``lanes``: at work, by kind of session; ``blocked``: accounts that a provider has told to wait, by
    provider."""

    sessions: Mapping[str, int]
    lanes: Mapping[str, int]
    blocked: Mapping[str, int]
    done: Sequence[Done]


_AT_WORK = sa.text(f"""
SELECT kind, count(DISTINCT session.session_id) AS sessions, count(lease.lane) AS lanes
  FROM ingest.sessions AS session LEFT JOIN ingest.leases AS lease USING (session_id)
 WHERE finished_at IS NULL AND heartbeat_at > clock_timestamp() - interval '{DEAD_AFTER_SECONDS} seconds' GROUP BY kind
""")
_BLOCKED = sa.text("""
SELECT provider, count(*) AS number FROM ingest.quotas WHERE blocked_until > clock_timestamp() GROUP BY provider
""")
_DONE = sa.text("""
SELECT provider, sum(succeeded)::bigint AS succeeded, sum(partial)::bigint AS partial, sum(failed)::bigint AS failed,
       sum(calls)::bigint AS calls
  FROM ingest.sync_hours AS hours
  JOIN control.integrations AS integration USING (organization_id, integration_id)
 WHERE hour >= date_trunc('hour', now(), 'UTC') - interval '1 hour' GROUP BY provider
""")


def read_work(connection: Connection) -> Work:
    """In a transaction of the operator."""
    at_work = connection.execute(_AT_WORK).all()
    return Work(
        sessions={row.kind: row.sessions for row in at_work},
        lanes={row.kind: row.lanes for row in at_work},
        blocked={row.provider: row.number for row in connection.execute(_BLOCKED)},
        done=[Done(*row) for row in connection.execute(_DONE)],
    )
