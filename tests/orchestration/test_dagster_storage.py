"""Dagster's tables are made once, however many of its processes begin at once on a fresh installation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.orchestration.dagster_storage import DagsterStorage
from churnguard_pipelines.store.postgres.server import sqlalchemy_url
from tests.waiting import wait_for

AT_ONCE = 3


@pytest.fixture
def empty(server_url: str) -> Iterator[str]:
    """A database that no process of Dagster has been in."""
    with psycopg.connect(server_url, autocommit=True) as administrator:
        administrator.execute("CREATE DATABASE fresh_dagster")
        yield sqlalchemy_url(server_url, "psycopg2", "fresh_dagster")
        administrator.execute("DROP DATABASE fresh_dagster WITH (FORCE)")


def test_of_several_that_begin_at_once_one_makes_the_tables(empty: str) -> None:
    made: list[str] = []
    together = threading.Barrier(AT_ONCE, timeout=1)

    def look(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.lstrip().startswith("CREATE TABLE "):
            with suppress(threading.BrokenBarrierError):  # nobody else is about to make it
                together.wait()
            made.append(statement.split()[2])

    sa.event.listen(sa.Engine, "before_cursor_execute", look)
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            opened = list(pool.map(lambda _: DagsterStorage.from_config_value(None, {"postgres_url": empty}), "abc"))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", look)
    assert "job_ticks" in made
    assert len(made) == len(set(made))
    for storage in opened:
        assert storage.run_storage.get_runs() == []


def test_all_statements_go_by_one_connection_that_may_be_lost_and_is_closed_at_the_end(empty: str) -> None:
    storage = DagsterStorage.from_config_value(None, {"postgres_url": empty})
    plain = sa.make_url(empty).set(drivername="postgresql", database="postgres")
    with psycopg.connect(plain.render_as_string(hide_password=False), autocommit=True) as administrator:

        def connections() -> list[int]:
            found = administrator.execute("SELECT pid FROM pg_stat_activity WHERE datname = 'fresh_dagster'")
            return [pid for (pid,) in found]

        assert storage.run_storage.get_runs() == []
        wait_for(lambda: len(connections()) == 1)  # those that made the tables are gone
        kept = connections()
        assert storage.schedule_storage.all_instigator_state() == []
        assert storage.event_log_storage.all_asset_keys() == []
        assert connections() == kept
        administrator.execute("SELECT pg_terminate_backend(%s, 10000)", kept)
        assert storage.run_storage.get_runs() == []
        storage.run_storage.dispose()
        wait_for(lambda: connections() == [])


def test_it_is_what_dagster_opens(instance: dg.DagsterInstance) -> None:
    data = instance.get_ref().storage_data
    assert data is not None
    assert data.class_name == "DagsterStorage"
