"""Dagster's own storage on PostgreSQL, by a connection that is kept, and opened by one process at a time as long as its
tables are not complete.

Dagster makes them where it finds none, each in a transaction of its own; of several processes that begin at once on a
fresh installation all but one would find half of them and end. By itself it connects anew for each of the some hundred
statements of a run, which is half of the run's time where a password is checked. Tables of an older version it works
on as far as it can, with warnings; here they are refused, and brought up to date by `churnguard migrate` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log import SqlEventLogStorageMetadata
from dagster._core.storage.runs import RunStorageSqlMetadata
from dagster._core.storage.schedules import ScheduleStorageSqlMetadata
from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresRunStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config, retry_pg_connection_fn

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.orchestration.processes.dagster_schema import NEWEST, revision
from churnguard_pipelines.store.postgres import locks, server

_TABLES = {
    table
    for metadata in (RunStorageSqlMetadata, SqlEventLogStorageMetadata, ScheduleStorageSqlMetadata)
    for table in metadata.tables
}

_ready: set[str] = set()
"""The databases whose tables this process has found complete and new enough. Dagster opens an instance for each tick of
a sensor, and would look after its tables by six connections each time."""


class DagsterStorage(DagsterPostgresStorage):
    """Dagster's storage on PostgreSQL. Raises ``DatabaseUnavailable`` if another process does not come to an end with
    the tables, or if they are those of an older version of Dagster."""

    def __init__(
        self, postgres_url: str, inst_data: ConfigurableClassData | None, *, should_autocreate_tables: bool = True
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        self._run_storage = _RunStorage(postgres_url, should_autocreate_tables=False)
        # One is kept for all three; threads that work at once have further ones for that moment. After a restart of the
        # server the kept one is found to be dead before it is used.
        engine = create_pg_engine(
            postgres_url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=-1, pool_pre_ping=True
        )
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> DagsterStorage:
        url = pg_url_from_config(config_value)
        if url in _ready:
            return cls(url, inst_data, should_autocreate_tables=False)
        if _is_older(retry_pg_connection_fn(lambda: revision(url))):
            raise DatabaseUnavailable(
                f"the tables in the database {server.DAGSTER_DATABASE} are those of an older version of Dagster.",
                remedy="Run `churnguard migrate`.",
            )
        if _is_complete(url):
            _ready.add(url)
            return cls(url, inst_data, should_autocreate_tables=False)
        with _alone(url):
            return cls(url, inst_data)


class _RunStorage(PostgresRunStorage):
    def dispose(self) -> None:
        """What an instance calls when it is done, unlike the whole storage's."""
        super().dispose()
        self._engine.dispose()


def _is_complete(url: str) -> bool:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    return set(retry_pg_connection_fn(lambda: sa.inspect(engine).get_table_names())) >= _TABLES


def upgrade(url: str) -> None:
    """What `dagster instance migrate` does, where the tables are those of an older version. Raises
    ``DatabaseUnavailable`` as :class:`DagsterStorage` does."""
    with _alone(url):
        if not _is_older(revision(url)):
            return
        storage = DagsterStorage(url, None)
        storage._run_storage.upgrade()  # the tables of all three
        storage._run_storage.migrate()
        storage._event_log_storage.reindex_assets()
        storage._schedule_storage.migrate()
        storage._run_storage.dispose()


def _is_older(revision: str | None) -> bool:
    """A revision that is not known here is a newer version's."""
    if revision in (None, NEWEST):
        return False
    config = Config()
    config.set_main_option("script_location", ALEMBIC_SCRIPTS_LOCATION)
    scripts = ScriptDirectory.from_config(config)
    return revision != scripts.get_current_head() and revision in {each.revision for each in scripts.walk_revisions()}


@contextmanager
def _alone(url: str) -> Iterator[None]:
    plain = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(server.connect(plain, autocommit=True)) as connection:
        locks.take_for_set_up(connection)
        yield
