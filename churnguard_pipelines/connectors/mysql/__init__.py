"""MySQL 8 and newer and MariaDB 10.5 and newer as a source: one consistent view, increments, the binary log."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from churnguard_pipelines.connectors.sdk import ConnectionReport
from churnguard_pipelines.connectors.sdk.database import ChangeLog, DatabaseConnector, Snapshot
from churnguard_pipelines.connectors.sdk.database_credentials import server_access
from churnguard_pipelines.engine.allowance import CHECK_SECONDS, within
from churnguard_pipelines.mirrors import Lag, SourceTable, Values
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.records import Position

if TYPE_CHECKING:  # the driver is loaded when the first integration needs it
    from churnguard_pipelines.connectors.mysql.source import Source


class MySQL(DatabaseConnector):
    provider = "mysql"
    title = "MySQL"
    access = (server_access(3306),)

    @classmethod
    def check_fields(cls, integration: IntegrationConfiguration) -> None:
        from churnguard_pipelines.connectors.mysql.connection import server_of_mysql

        super().check_fields(integration)
        server_of_mysql(integration)

    def __init__(self, integration: IntegrationConfiguration) -> None:
        super().__init__(integration)
        self._opened: Source | None = None

    def identity(self) -> str:
        """MySQL's own number, or what MariaDB has in its place: server id, host and port; with the database.

        And whether the place in the binary log is to be seen: if not, versions are made from the server's clock, which
        those of a log cannot be compared with.
        """
        return self._source.identity()

    def check(self) -> ConnectionReport:
        with within(CHECK_SECONDS):
            name, access = self._source.examined(followed=self._followed)
        return ConnectionReport(self.integration.integration_id, name, tuple(access))

    def discover(self) -> list[SourceTable]:
        return [found.table for found in self._source.look().values()]

    def snapshot(self, tables: Sequence[SourceTable], *, followed: bool) -> AbstractContextManager[Snapshot]:
        return self._source.snapshot(tables, followed=followed)

    def unfollowable(self, table: SourceTable) -> str | None:
        return self._source.known(table.object).unfollowable

    def unlogged(self, table: SourceTable) -> bool:
        """Those of rows that a foreign key with ``ON DELETE CASCADE`` or the like changes: InnoDB does not log them.

        https://dev.mysql.com/doc/refman/8.4/en/innodb-and-mysql-replication.html
        """
        return self._source.known(table.object).cascaded

    def begin_changes(self, tables: Sequence[SourceTable]) -> Position:
        return self._source.begin_changes()

    def follow(self, tables: Sequence[SourceTable]) -> list[str]:
        """The binary log is the whole server's: whatever is wanted of it is there."""
        return []

    def changes(self, tables: Sequence[SourceTable], position: Position) -> ChangeLog:
        return self._source.changes(tables, position)

    def end_changes(self) -> None:
        """Nothing was left in the server."""

    def lag(self, position: Position) -> Lag:
        return self._source.lag(position)

    def fetch(self, table: SourceTable, keys: Sequence[Values]) -> list[Values]:
        return self._source.fetch(table, keys)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    @property
    def _followed(self) -> bool:
        return self.integration.sync_config.sync_mode == DataSyncMode.REAL_TIME

    @property
    def _source(self) -> Source:
        if self._opened is None:
            from churnguard_pipelines.connectors.mysql.source import Source

            self.check_fields(self.integration)
            self._opened = Source(self.integration)
        return self._opened
