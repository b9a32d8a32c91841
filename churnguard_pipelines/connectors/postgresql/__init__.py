"""PostgreSQL 14 and newer as a source: bulk copies out of one snapshot, increments, logical replication."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, LiteralString

from psycopg.sql import SQL, Identifier, Placeholder

from churnguard_pipelines.connectors.postgresql.catalog import FoundTable, find_tables
from churnguard_pipelines.connectors.postgresql.changes import PostgreSQLChanges
from churnguard_pipelines.connectors.postgresql.check import examine, owners
from churnguard_pipelines.connectors.postgresql.connection import (
    Connection,
    connect,
    server_of_postgresql,
    translated,
)
from churnguard_pipelines.connectors.postgresql.fingerprint import Fingerprint
from churnguard_pipelines.connectors.postgresql.publication import drop_publication, publish
from churnguard_pipelines.connectors.postgresql.slot import create_slot, current_lag, drop_slot, slot_name
from churnguard_pipelines.connectors.postgresql.snapshot import opened_snapshot
from churnguard_pipelines.connectors.sdk import ConnectionReport, ObjectAccess
from churnguard_pipelines.connectors.sdk.database import ChangeLog, DatabaseConnector, Snapshot
from churnguard_pipelines.connectors.sdk.database_credentials import server_access
from churnguard_pipelines.engine.allowance import CHECK_SECONDS, within
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.mirrors import Lag, SourceTable, Values
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.records import Position

OLDEST = 140_000
MOST_PARAMETERS = 30_000
ASSUMED_HORIZON = 10 * 2**30
"""Bytes of WAL after which a server without max_slot_wal_keep_size is taken to be in danger: its disk is not ours to
look at. Half of it is what PeerDB warns at (facts on connectors, 1.5)."""
_IDENTITY = (
    "SELECT c.system_identifier::text || '/' || d.oid FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d "
    "WHERE d.datname = pg_catalog.current_database()"
)


class PostgreSQL(DatabaseConnector):
    provider = "postgresql"
    title = "PostgreSQL"
    access = (server_access(5432),)
    binary = True

    @classmethod
    def check_fields(cls, integration: IntegrationConfiguration) -> None:
        super().check_fields(integration)
        server_of_postgresql(integration)

    def __init__(self, integration: IntegrationConfiguration) -> None:
        super().__init__(integration)
        self._followed = integration.sync_config.sync_mode == DataSyncMode.REAL_TIME
        self._opened: Connection | None = None
        self._found: dict[str, FoundTable] = {}
        self._owners: dict[str, str] = {}

    def identity(self) -> str:
        """The cluster's own number, and the database's."""
        row = self._one(_IDENTITY)
        return str(row[0])

    def check(self) -> ConnectionReport:
        with within(CHECK_SECONDS), self._translated():
            version = self._connection().info.server_version
            name = f"PostgreSQL {version // 10_000}, {self.identity()}"
            access = examine(self._connection(), self.integration, self._look(), followed=self._followed)
        if version < OLDEST:
            problem = f"PostgreSQL {version // 10_000} is too old."
            access = [ObjectAccess("server", False, problem, "Version 14 or newer is needed.", whole=True), *access]
        return ConnectionReport(self.integration.integration_id, name, tuple(access))

    def discover(self) -> list[SourceTable]:
        return [found.table for found in self._look().values()]

    def snapshot(self, tables: Sequence[SourceTable], *, followed: bool) -> AbstractContextManager[Snapshot]:
        self._connection()
        return opened_snapshot(self.integration, self._found or self._look(), followed=followed)

    def reconciled(self, found: SourceTable, known: SourceTable) -> SourceTable:
        reconciled = self._found[found.object] = self._known(found.object).with_unlogged(known)
        return reconciled.table

    def outdated(self, table: SourceTable, fingerprint: str) -> str | None:
        before, now = Fingerprint.parse(fingerprint), Fingerprint.parse(table.fingerprint)
        if (why := now.differs(before)) is not None:
            return why
        added = self._one(
            "SELECT coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(leaf::oid)), 0) "
            "FROM pg_catalog.unnest(%s::bigint[]) AS leaf",
            [now.added_leaves(before)],
        )
        return "a partition was attached" if added[0] else None  # an empty one has nothing that was not logged

    def unfollowable(self, table: SourceTable) -> str | None:
        reason = self._known(table.object).unfollowable
        if reason is None and (owner := self._owners.get(table.object)) is not None:
            user = Identifier(str(self.integration.credentials.username)).as_string(None)
            return (
                f"only its owner {owner} may publish them. `GRANT {owner} TO {user}` would change that, or a "
                f"publication {slot_name(self.integration.integration_id)} that has it."
            )
        return reason

    def begin_changes(self, tables: Sequence[SourceTable]) -> Position:
        with self._translated():
            drop_slot(self._connection(), self.integration)
            publish(self._connection(), self.integration, [self._known(table.object) for table in tables])
            return create_slot(self._connection(), self.integration)

    def follow(self, tables: Sequence[SourceTable]) -> list[str]:
        with self._translated():
            return publish(self._connection(), self.integration, [self._known(table.object) for table in tables])

    def changes(self, tables: Sequence[SourceTable], position: Position) -> ChangeLog:
        self._connection()
        return PostgreSQLChanges(self.integration, tables, position)

    def end_changes(self) -> None:
        with self._translated():
            drop_slot(self._connection(), self.integration)
            drop_publication(self._connection(), self.integration)

    def lag(self, position: Position) -> Lag:
        with self._translated():
            behind, left, status = current_lag(self._connection(), self.integration, position)
        horizon = behind / ASSUMED_HORIZON if left is None else behind / max(behind + left, 1)
        if status in (None, "lost"):
            horizon = 1.0
        return Lag(behind, 0.0 if behind == 0 else None, horizon, {"slot": status or "missing", "wal_left": left})

    def fetch(self, table: SourceTable, keys: Sequence[Values]) -> list[Values]:
        """Keys are sent without a type, so that they are what they are compared with; values come as the change log
        has them, which is as their types write them."""
        found = self._known(table.object)
        at_once = MOST_PARAMETERS // len(table.key)
        return [row for start in range(0, len(keys), at_once) for row in self._fetch(found, keys[start:][:at_once])]

    def _fetch(self, found: FoundTable, keys: Sequence[Values]) -> Iterator[Values]:
        key, columns = found.table.key, found.table.columns
        one = SQL("({})").format(SQL(", ").join([Placeholder()] * len(key)))
        query = SQL("SELECT {} FROM {} WHERE ({}) IN ({})").format(
            SQL(", ").join(map(found.written, [column.name for column in columns])),
            found.relation,
            SQL(", ").join(map(Identifier, key)),
            SQL(", ").join([one] * len(keys)),
        )
        values = [str(value) for key in keys for value in key]
        with self._translated():
            rows = self._connection().execute(query, values).pgresult
        assert rows is not None
        for place in range(rows.ntuples):
            texts = [rows.get_value(place, column) for column in range(len(columns))]
            yield tuple(text if text is None else text.decode() for text in texts)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _look(self) -> dict[str, FoundTable]:
        with self._translated():
            tables = find_tables(self._connection(), followed=self._followed)
            if self._followed:
                self._owners = owners(self._connection(), self.integration, [found.oid for found in tables])
        self._found = {found.table.object: found for found in tables}
        return self._found

    def _known(self, object: str) -> FoundTable:
        found = self._found.get(object) or self._look().get(object)
        if found is None:
            raise InvalidConfiguration(
                f"there is no table {object} that may be read.", integration_id=self.integration.integration_id
            )
        return found

    def _one(self, query: LiteralString, parameters: Sequence[object] = ()) -> Any:
        with self._translated():
            return self._connection().execute(query, parameters).fetchone()

    def _connection(self) -> Connection:
        if self._opened is None or self._opened.closed:
            self.check_fields(self.integration)
            self._opened = self._refuse_ours(connect(self.integration))
        return self._opened

    def _refuse_ours(self, connection: Connection) -> Connection:
        """By what the server is, not by the way to it. An operator may read other databases of it."""
        if self.ours is None:
            return connection
        with self._translated():
            row = connection.execute(_IDENTITY).fetchone()
        number, _, database = str(row[0] if row else "").partition("/")
        operators = self.integration.configured_by == "operator"
        if number != self.ours.number or (operators and database not in self.ours.databases):
            return connection
        connection.close()
        raise InvalidConfiguration(
            "this is the server that ChurnGuard keeps its own data in, which is no source.",
            integration_id=self.integration.integration_id,
            remedy="Correct credentials.custom_fields.host and database.",
        )

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self.integration)
