"""Reads from Dagster's database how a run is doing. Imports no Dagster: the command line uses it."""

from __future__ import annotations

import sqlalchemy as sa

ENDED = ("SUCCESS", "FAILURE", "CANCELED")


def run_status(dagster_database_url: str, run_id: str) -> str | None:
    """Dagster's own word for it; None if it has no such run."""
    engine = sa.create_engine(dagster_database_url, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        status: str | None = connection.scalar(sa.text("SELECT status FROM runs WHERE run_id = :run"), {"run": run_id})
    return status
