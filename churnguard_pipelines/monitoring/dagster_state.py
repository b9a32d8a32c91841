"""How Dagster gets on, by its own tables: its open-source edition tells nobody. Imports no Dagster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

STATEMENT_MILLISECONDS = 5_000
LATELY_SECONDS = 3_600
NEWEST = 50_000
"""Runs and ticks that are looked at: their tables have no index by time alone."""


@dataclass(frozen=True, slots=True)
class DagsterState:
    """``runs``: those that are queued or at work, by status; ``queued_seconds``: how long the oldest has waited;
    ``started_after``: seconds between the request of a run and its start, at the most of 19 of 20 of the last hour,
    None if there was none; ``ended``: runs of the last hour by how they ended; ``heartbeats``: seconds since each of
    the daemon's parts gave a sign of life; ``failed_ticks``: of the last hour, by kind: ``sensor``, ``schedule`` …"""

    runs: Mapping[str, int]
    queued_seconds: float
    started_after: float | None
    ended: Mapping[str, int]
    heartbeats: Mapping[str, float]
    failed_ticks: Mapping[str, int]


# Dagster writes its runs' times by the connection's time zone, and heartbeats' and ticks' by UTC.
_RUNS = sa.text("""
SELECT lower(status) AS status, count(*) AS runs,
       extract(epoch FROM localtimestamp - min(create_timestamp))::float AS oldest
  FROM runs WHERE status IN ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING') GROUP BY 1
""")
_STARTED_AFTER = sa.text("""
SELECT greatest(percentile_disc(0.95) WITHIN GROUP (ORDER BY start_time - extract(epoch FROM created)), 0)::float
  FROM (SELECT start_time, create_timestamp AT TIME ZONE current_setting('TimeZone') AS created
          FROM runs WHERE id > (SELECT max(id) - :newest FROM runs)) AS run
 WHERE start_time > extract(epoch FROM now()) - :lately
""")
_ENDED = sa.text("""
SELECT lower(status) AS status, count(*) AS runs FROM runs
 WHERE id > (SELECT max(id) - :newest FROM runs) AND status IN ('SUCCESS', 'FAILURE', 'CANCELED')
   AND end_time > extract(epoch FROM now()) - :lately GROUP BY 1
""")
_HEARTBEATS = sa.text("""
SELECT lower(daemon_type) AS daemon, extract(epoch FROM now() AT TIME ZONE 'UTC' - max(timestamp))::float AS age
  FROM daemon_heartbeats GROUP BY 1
""")
_FAILED_TICKS = sa.text("""
SELECT lower(type) AS kind, count(*) AS ticks FROM job_ticks
 WHERE id > (SELECT max(id) - :newest FROM job_ticks) AND status = 'FAILURE'
   AND timestamp > now() AT TIME ZONE 'UTC' - make_interval(secs => :lately) GROUP BY 1
""")
_TABLES = sa.text("SELECT to_regclass('runs') IS NOT NULL AND to_regclass('job_ticks') IS NOT NULL")


def read_dagster_state(dagster_database_url: str) -> DagsterState | None:
    """None while Dagster has made no tables yet, or cannot be asked."""
    options = f"-c statement_timeout={STATEMENT_MILLISECONDS}"
    engine = sa.create_engine(
        dagster_database_url, poolclass=sa.NullPool, connect_args={"options": options, "connect_timeout": 5}
    )
    lately = {"newest": NEWEST, "lately": LATELY_SECONDS}
    try:
        with engine.connect() as connection:
            if not connection.scalar(_TABLES):
                return None
            runs = connection.execute(_RUNS).all()
            return DagsterState(
                runs={row.status: row.runs for row in runs},
                queued_seconds=max((row.oldest for row in runs if row.status == "queued"), default=0.0),
                started_after=connection.scalar(_STARTED_AFTER, lately),
                ended={row.status: row.runs for row in connection.execute(_ENDED, lately)},
                heartbeats={row.daemon: max(row.age, 0.0) for row in connection.execute(_HEARTBEATS)},
                failed_ticks={row.kind: row.ticks for row in connection.execute(_FAILED_TICKS, lately)},
            )
    except sa.exc.OperationalError:  # there is no such database yet, it is away, or too slow
        return None
