"""The one way to PostgreSQL: transactions as an organization, as the operator, or as the owner of tables in ``raw``."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.postgres import schema, server, setup
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.store.postgres.row_security import APP, CONTEXT, OPERATOR, RAW, SERVICE
from churnguard_pipelines.store.secrets import Vault, load_vault

_AS_ORGANIZATION = f"SELECT set_config('role', '{APP}', true), set_config('{CONTEXT}', %s, true)"
_AS_ROLE = "SELECT set_config('role', %s, true)"
TRUSTED_SECONDS = 0.5
"""A pooled connection that was in use so lately is not asked whether it lives: that costs as much as a small question,
of which a sync has dozens."""
_log = logging.getLogger(__name__)


class Store:
    """An installation's database. Thread safe; after a fork each process opens its own."""

    def __init__(self, settings: Settings, database_url: str, embedded: EmbeddedPostgres | None) -> None:
        self.settings = settings
        self.database_url = database_url
        """libpq's form; it contains the password. A child process takes it as ``CHURNGUARD_DATABASE_URL``."""
        self._embedded = embedded
        self._engine = sa.create_engine(
            "postgresql+psycopg://",
            creator=lambda: server.connect(database_url),
            pool_size=16,
            max_overflow=14,
            pool_timeout=60,
        )
        _check_those_that_rested(self._engine)

    def __repr__(self) -> str:
        return f"Store({self.described})"

    @classmethod
    def open(cls, settings: Settings, *, migrate: bool = True) -> Store:
        """Reach the given database, whose schema must be ours or newer; or start (or join) the private one and bring
        its schema up to date.

        ``migrate``: otherwise neither look at the schema nor change it. Raises ``DatabaseUnavailable`` with a remedy.
        """
        embedded = EmbeddedPostgres(settings.home) if settings.embedded else None
        try:
            if embedded is None:
                url = _given(settings)
            else:
                owner_url = embedded.start()
                url = embedded.url(SERVICE)
                if migrate:
                    setup.set_up(owner_url, url)
            with server.connect(url) as connection:
                server.check(connection, url)
            store = cls(settings, url, embedded)
            if migrate:
                store.refuse_older_schema()
        except BaseException:
            if embedded is not None:
                embedded.stop()
            raise
        return store

    @property
    def dagster_database_url(self) -> str:
        """Dagster's own database on the same server, as SQLAlchemy with psycopg2 wants it. Contains the password."""
        return server.sqlalchemy_url(self.database_url, "psycopg2", server.DAGSTER_DATABASE)

    @property
    def described(self) -> str:
        """Where the data is, for people; without the password."""
        if self._embedded is not None:
            return f"the private PostgreSQL in {self._embedded.data}"
        return server.describe(self.database_url)

    @property
    def last_user(self) -> bool:
        """Whether a private PostgreSQL would stop if this store were closed now."""
        return self._embedded is not None and self._embedded.last_user()

    @property
    def administrator_url(self) -> str:
        """Of a private PostgreSQL: its superuser's. It contains the password."""
        return self._private.url()

    @property
    def programs(self) -> Path:
        """Of a private PostgreSQL: the folder of its programs."""
        return self._private.programs

    @property
    def _private(self) -> EmbeddedPostgres:
        assert self._embedded is not None, "it has no private PostgreSQL"
        return self._embedded

    @cached_property
    def vault(self) -> Vault:
        """Raises ``InvalidConfiguration`` without an encryption key."""
        return load_vault(self.settings)

    @contextmanager
    def organization(self, organization_id: str) -> Iterator[Connection]:
        """One transaction that sees and writes only this organization's rows; commits on success."""
        with self._transaction(_AS_ORGANIZATION, organization_id) as connection:
            yield connection

    @contextmanager
    def operator(self) -> Iterator[Connection]:
        """One transaction over every organization: all of ``control`` and ``ingest``, the rest read only."""
        with self._transaction(_AS_ROLE, OPERATOR) as connection:
            yield connection

    @contextmanager
    def owner(self) -> Iterator[Connection]:
        """One transaction as the owner of the tables in ``raw``: for changes to tables, never for rows."""
        with self._transaction(_AS_ROLE, RAW) as connection:
            yield connection

    def now(self) -> datetime:
        """The database's clock, which ``synced_at`` and ``delete_absent`` go by."""
        with self.operator() as connection:
            moment: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        return moment

    def refuse_older_schema(self) -> None:
        """Raises ``DatabaseUnavailable`` where the database cannot be used, or its schema is older than ours."""
        with self.operator() as connection:
            current = schema.current_revision(connection)
        if not schema.suits(current):
            raise DatabaseUnavailable(
                f"the schema of {self.described} is {current or 'not made yet'}; this version of ChurnGuard needs "
                f"{schema.expected_revision()}.",
                remedy=server.SET_UP,
            )

    def keep_server(self) -> None:
        """Start a private PostgreSQL again if it ended by itself. Raises ``DatabaseUnavailable``."""
        if self._embedded is not None and self._embedded.keep():
            _log.error("the private PostgreSQL had ended; it was started again.")

    def close(self) -> None:
        """Let go of all connections; the last user of a private PostgreSQL stops it."""
        self._engine.dispose()
        if self._embedded is not None:
            self._embedded.stop()

    @contextmanager
    def _transaction(self, begins_with: str, value: str) -> Iterator[Connection]:
        connection = self._begun(begins_with, value)
        driver = _driver_of(connection)
        try:
            with connection, connection.begin():
                yield connection
        except (sa.exc.OperationalError, psycopg.OperationalError) as error:
            if not driver.broken:
                raise
            raise self._broke() from error

    def _begun(self, begins_with: str, value: str) -> Connection:
        """One that was trusted, and has ended after all, shows it by its first statement; so have those beside it."""
        for trusted in (True, False):
            connection = self._engine.connect()
            driver = _driver_of(connection)
            try:
                driver.execute(begins_with, (value,))
            except BaseException as error:
                broken = driver.broken
                connection.invalidate()
                connection.close()
                if not broken:
                    raise
                if not trusted:
                    raise self._broke() from error
                self._engine.dispose()
            else:
                return connection
        raise AssertionError("unreachable")

    def _broke(self) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"the connection to {self.described} broke; what was not committed is undone.",
            remedy="Check that PostgreSQL is running.",
        )


def _driver_of(connection: Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


def _check_those_that_rested(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "checkin")
    def note(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info["used_at"] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def check(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: object) -> None:
        if time.monotonic() - record.info.get("used_at", math.inf) < TRUSTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise sa.exc.InvalidatePoolError from error  # another one is opened


def _given(settings: Settings) -> str:
    if settings.database_url is None:
        raise DatabaseUnavailable(
            "CHURNGUARD_OWNER_DATABASE_URL is set without CHURNGUARD_DATABASE_URL, the login of the services.",
            remedy="Run `churnguard migrate`: it makes that login and prints its URL.",
        )
    return settings.database_url.get_secret_value()
