"""Sessions at work: who drains what, as long as they show signs of life."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from churnguard_pipelines.store.ingest.heartbeats import beating
from churnguard_pipelines.store.postgres.database import Store

DEAD_AFTER_SECONDS = 10
BEAT_EVERY = 3.0

_NO_LANES = sa.text("DELETE FROM ingest.leases WHERE session_id = :session_id")


@contextmanager
def alive(store: Store, session_id: str, kind: str) -> Iterator[None]:
    """The session shows signs of life meanwhile."""
    begin(store, session_id, kind)
    try:
        with beating(f"session {session_id}", lambda: beat(store, session_id), BEAT_EVERY):
            yield
    finally:
        with suppress(Exception):
            end(store, session_id)


def begin(store: Store, session_id: str, kind: str) -> None:
    """It may have been killed and begin once more: what it had then is free, too."""
    statement = sa.text(
        "INSERT INTO ingest.sessions (session_id, kind) VALUES (:session_id, :kind) "
        "ON CONFLICT (session_id) DO UPDATE SET started_at = clock_timestamp(), heartbeat_at = clock_timestamp(), "
        "finished_at = NULL"
    )
    with store.operator() as connection:
        connection.execute(statement, {"session_id": session_id, "kind": kind})
        connection.execute(_NO_LANES, {"session_id": session_id})


def beat(store: Store, session_id: str) -> None:
    """To be called every few seconds."""
    statement = sa.text("UPDATE ingest.sessions SET heartbeat_at = clock_timestamp() WHERE session_id = :session_id")
    with store.operator() as connection:
        connection.execute(statement, {"session_id": session_id})


def end(store: Store, session_id: str) -> None:
    """Its lanes are free."""
    statement = sa.text("UPDATE ingest.sessions SET finished_at = clock_timestamp() WHERE session_id = :session_id")
    with store.operator() as connection:
        connection.execute(statement, {"session_id": session_id})
        connection.execute(_NO_LANES, {"session_id": session_id})


def ages(store: Store, kind: str) -> dict[str, float]:
    """The living sessions of a kind, with their ages in seconds."""
    statement = sa.text(
        "SELECT session_id, extract(epoch FROM clock_timestamp() - started_at)::float AS age FROM ingest.sessions "
        "WHERE kind = :kind AND finished_at IS NULL "
        "AND heartbeat_at > clock_timestamp() - make_interval(secs => :dead)"
    )
    with store.operator() as connection:
        rows = connection.execute(statement, {"kind": kind, "dead": DEAD_AFTER_SECONDS})
        return {row.session_id: row.age for row in rows}


def known(store: Store, session_id: str) -> bool:
    """Whether it has begun, however it ended."""
    statement = sa.text("SELECT 1 FROM ingest.sessions WHERE session_id = :session_id")
    with store.operator() as connection:
        return connection.scalar(statement, {"session_id": session_id}) is not None


def forget(store: Store, days: int) -> None:
    statement = sa.text(
        "DELETE FROM ingest.sessions WHERE heartbeat_at < clock_timestamp() - make_interval(days => :d)"
    )
    with store.operator() as connection:
        connection.execute(statement, {"d": days})
