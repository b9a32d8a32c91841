"""One MySQL or MariaDB server as the connector uses it. Its connection for questions is opened at first use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import pymysql

from churnguard_pipelines.connectors.mysql.catalog import FoundTable, find_tables, is_mariadb
from churnguard_pipelines.connectors.mysql.changes import MySQLChanges
from churnguard_pipelines.connectors.mysql.check import examine, grantee, log_problems, retention
from churnguard_pipelines.connectors.mysql.connection import (
    close_quietly,
    connect,
    execute,
    quoted,
    server_of_mysql,
    translated,
)
from churnguard_pipelines.connectors.mysql.position import current_position, variables
from churnguard_pipelines.connectors.mysql.protocol import Connection
from churnguard_pipelines.connectors.mysql.snapshot import opened_snapshot
from churnguard_pipelines.connectors.mysql.start import position_at
from churnguard_pipelines.connectors.sdk import ObjectAccess
from churnguard_pipelines.connectors.sdk.database import ChangeLog, Snapshot
from churnguard_pipelines.errors import InvalidConfiguration, PermissionMissing
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.mirrors import Lag, SourceTable, Values
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Position

_OLDEST = {"MariaDB": (10, 5), "MySQL": (8, 0)}


class Source:
    def __init__(self, integration: IntegrationConfiguration) -> None:
        self._integration = integration
        self._database = server_of_mysql(integration).database
        self._opened: Connection | None = None
        self._found: dict[str, FoundTable] = {}

    def identity(self) -> str:
        with self._translated():
            connection = self._connection()
            told = variables(connection, "server_uuid", "server_id", "hostname", "port")
            name = told.get("server_uuid") or f"{told['server_id']}@{told['hostname']}:{told['port']}"
            by_clock = "" if current_position(connection) else ", by the clock"
        return f"{name}/{self._database}{by_clock}"

    def examined(self, *, followed: bool) -> tuple[str, list[ObjectAccess]]:
        with self._translated():
            connection = self._connection()
            product = "MariaDB" if is_mariadb(connection) else "MySQL"
            version = on_one_line(str(execute(connection, "SELECT VERSION()")[0][0]), 60)
            access = examine(connection, self._database, self.look(), followed=followed)
        numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:2])
        if numbers < _OLDEST[product]:
            needed = ".".join(map(str, _OLDEST[product]))
            problem = f"{product} {version} is too old."
            remedy = f"Version {needed} or newer is needed."
            access = [ObjectAccess("server", False, problem, remedy, whole=True), *access]
        return f"{product} {version}, {self.identity()}", access

    def look(self) -> dict[str, FoundTable]:
        with self._translated():
            self._found = find_tables(self._connection(), self._database)
        return self._found

    def known(self, object: str) -> FoundTable:
        found = self._found.get(object) or self.look().get(object)
        if found is None:
            raise InvalidConfiguration(
                f"there is no table {object} that may be read.", integration_id=self._integration.integration_id
            )
        return found

    def snapshot(self, tables: Sequence[SourceTable], *, followed: bool) -> AbstractContextManager[Snapshot]:
        names = [table.object for table in tables]
        return opened_snapshot(self._integration, self._found or self.look(), names, followed=followed)

    def begin_changes(self) -> Position:
        with self._translated():
            connection = self._connection()
            problems = list(log_problems(connection))
            place = current_position(connection)
            user = grantee(connection)
        name = self._integration.integration_id
        if problems:
            what, how = "; ".join(each for each, _ in problems), " ".join(each for _, each in problems)
            raise InvalidConfiguration(f"changes cannot be followed: {what}.", integration_id=name, remedy=how)
        if place is None:
            raise PermissionMissing(
                "the user may not see where the binary log ends.",
                integration_id=name,
                remedy=f"Run `GRANT REPLICATION CLIENT ON *.* TO {user}`.",
            )
        return position_at(self._integration, place)

    def changes(self, tables: Sequence[SourceTable], position: Position) -> ChangeLog:
        with self._translated():
            problems = [each for each in log_problems(self._connection()) if "server_id" not in each[0]]
        if problems:
            raise InvalidConfiguration(
                f"changes cannot be followed: {'; '.join(what for what, _ in problems)}.",
                integration_id=self._integration.integration_id,
                remedy=" ".join(how for _, how in problems),
            )
        return MySQLChanges(self._integration, tables, position)

    def lag(self, position: Position) -> Lag:
        """The age of what is read next against how long a finished file is kept: the newest file is never removed."""
        with self._translated():
            connection = self._connection()
            try:
                files = [(str(row[0]), int(row[1])) for row in execute(connection, "SHOW BINARY LOGS")]
            except pymysql.OperationalError as error:
                if error.args[0] != 1227:
                    raise
                return Lag(None, None, None, {"binary_log": "not permitted to list"})
            kept = retention(connection)
        names = [name for name, _ in files]
        if position["file"] not in names:
            return Lag(None, None, 1.0, {"binary_log": "removed"})
        waiting = files[names.index(position["file"]) :]
        behind = max(sum(size for _, size in waiting) - int(position["position"]), 0)
        age = time.time() - position.get("moment", time.time()) if len(waiting) > 1 else 0.0
        horizon = None if kept is None else max(age / kept, 0.0)
        detail = {"files_behind": len(waiting) - 1, "kept_seconds": kept}
        return Lag(behind, 0.0 if behind == 0 else None, horizon, detail)

    def fetch(self, table: SourceTable, keys: Sequence[Values]) -> list[Values]:
        """By the text of their keys, as this connector tells it."""
        if not keys:
            return []
        found = self.known(table.object)
        key = [found.column(name).kind.value(quoted(name)) for name in table.key]
        values = ", ".join(found.column(column.name).kind.value(quoted(column.name)) for column in table.columns)
        with self._translated():
            connection = self._connection()
            wanted = ", ".join(f"({', '.join(connection.escape(str(value)) for value in row)})" for row in keys)
            rows = execute(connection, f"SELECT {values} FROM {found.name} WHERE ({', '.join(key)}) IN ({wanted})")
        return [tuple(None if value is None else str(value) for value in row) for row in rows]

    def close(self) -> None:
        if self._opened is not None:
            close_quietly(self._opened)

    def _connection(self) -> Connection:
        if self._opened is None or not self._opened.open:
            self._opened = connect(self._integration)
        return self._opened

    def _translated(self) -> AbstractContextManager[Any]:
        return translated(self._integration)
