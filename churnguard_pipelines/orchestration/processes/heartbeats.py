"""Reads the heartbeats of Dagster's daemon from its database. Imports no Dagster: the command line uses it."""

from __future__ import annotations

import sqlalchemy as sa

_PATIENCE_SECONDS = 5
"""With the server, and with its answer: whoever probes does not wait for ever, and takes silence for the daemon's."""


def daemon_age_seconds(dagster_database_url: str) -> float | None:
    """Seconds since the daemon's latest heartbeat; None if there never was one. Raises SQLAlchemy's
    ``OperationalError`` where the database does not answer."""
    limits = {"connect_timeout": _PATIENCE_SECONDS, "options": f"-c statement_timeout={_PATIENCE_SECONDS}s"}
    engine = sa.create_engine(dagster_database_url, poolclass=sa.pool.NullPool, connect_args=limits)
    with engine.connect() as connection:
        if connection.scalar(sa.text("SELECT to_regclass('daemon_heartbeats')")) is None:
            return None
        latest = sa.text("SELECT extract(epoch FROM now() AT TIME ZONE 'UTC' - max(timestamp)) FROM daemon_heartbeats")
        age = connection.scalar(latest)
    return None if age is None else max(float(age), 0.0)
