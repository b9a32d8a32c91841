"""Waiting for those that wait for a lock of PostgreSQL's."""

from __future__ import annotations

import psycopg

from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator
from tests.waiting import wait_for

_BLOCKED = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def wait_until_blocked(store: Store, count: int = 1) -> None:
    """Until so many transactions of the store's database are."""
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        wait_for(lambda: len(connection.execute(_BLOCKED).fetchall()) >= count)
