"""Dagster's tables are made once, however many of its processes begin at once on a fresh installation, and changed by
`churnguard migrate` alone."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION, run_alembic_downgrade
from dagster._core.storage.tags import BACKFILL_ID_TAG
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.cli.deployment.migrate import bring_dagster_up_to_date
from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.orchestration.dagster_storage import DagsterStorage
from churnguard_pipelines.orchestration.processes import dagster_schema
from churnguard_pipelines.store.postgres.server import sqlalchemy_url
from tests.waiting import wait_for

AT_ONCE = 3
NUMBERS = itertools.count(1)
BEFORE_BACKFILLS_OF_RUNS = "284a732df317"
"""Dagster's schema of October 2024: four migrations are missing, two of which move data."""


@pytest.fixture
def empty(server_url: str) -> Iterator[str]:
    """A database that no process of Dagster has been in."""
    name = f"fresh_dagster_{next(NUMBERS)}"
    with psycopg.connect(server_url, autocommit=True) as administrator:
        administrator.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        yield sqlalchemy_url(server_url, "psycopg2", name)
        administrator.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


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
            question = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
            found = administrator.execute(question, [sa.make_url(empty).database])
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


def test_whoever_opens_it_again_asks_about_its_tables_no_more(empty: str) -> None:
    """As each tick of a sensor does: it has one connection."""
    opened: list[Any] = []

    def open_it() -> None:
        storage = DagsterStorage.from_config_value(None, {"postgres_url": empty}).run_storage
        assert storage.get_runs() == []
        storage.dispose()

    def count(*connection: Any) -> None:
        opened.append(connection)

    for _ in range(2):  # the first one makes the tables, the second one sees that they are complete
        open_it()
    sa.event.listen(sa.Engine, "connect", count)
    try:
        open_it()
    finally:
        sa.event.remove(sa.Engine, "connect", count)
    assert len(opened) == 1


def test_it_is_what_dagster_opens(instance: dg.DagsterInstance) -> None:
    data = instance.get_ref().storage_data
    assert data is not None
    assert data.class_name == "DagsterStorage"


def migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", ALEMBIC_SCRIPTS_LOCATION)
    return config


@pytest.fixture
def older(empty: str) -> Iterator[sa.Connection]:
    """The tables of a former version of Dagster, by its own migrations, with a run of a backfill in them."""
    storage = DagsterStorage(empty, None)
    tags = {BACKFILL_ID_TAG: "in-march"}
    storage.run_storage.add_run(dg.DagsterRun(job_name="sync", run_id="of-a-backfill", tags=tags))
    storage.run_storage.dispose()
    engine = sa.create_engine(empty, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        run_alembic_downgrade(migrations(), connection, BEFORE_BACKFILLS_OF_RUNS)
        connection.exec_driver_sql("DELETE FROM secondary_indexes WHERE name = 'run_backfill_id'")
        yield connection


def test_tables_of_an_older_version_are_refused_and_migrated_with_what_is_in_them(
    empty: str, older: sa.Connection
) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"older version of Dagster\. Run `churnguard migrate`"):
        DagsterStorage.from_config_value(None, {"postgres_url": empty})
    assert dagster_schema.revision(empty) == BEFORE_BACKFILLS_OF_RUNS, "nobody else changes it"
    bring_dagster_up_to_date(empty)
    assert dagster_schema.revision(empty) == dagster_schema.NEWEST
    assert older.exec_driver_sql("SELECT run_id, backfill_id FROM runs").all() == [("of-a-backfill", "in-march")]
    storage = DagsterStorage.from_config_value(None, {"postgres_url": empty})
    assert [run.run_id for run in storage.run_storage.get_runs()] == ["of-a-backfill"]
    assert storage.run_storage.get_backfills() == []
    storage.run_storage.dispose()


def test_tables_of_a_newer_version_are_used_and_left_as_they_are(empty: str) -> None:
    DagsterStorage.from_config_value(None, {"postgres_url": empty}).run_storage.dispose()
    with sa.create_engine(empty, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'of-next-year'")
    bring_dagster_up_to_date(empty)
    storage = DagsterStorage.from_config_value(None, {"postgres_url": empty})
    assert storage.run_storage.get_runs() == []
    storage.run_storage.dispose()
    assert dagster_schema.revision(empty) == "of-next-year"


def test_the_newest_of_dagster_s_migrations_is_the_one_that_is_looked_for() -> None:
    assert ScriptDirectory.from_config(migrations()).get_current_head() == dagster_schema.NEWEST
