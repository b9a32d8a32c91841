"""Positions in a server's binary log, and the versions of rows that are made of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import pymysql

from churnguard_pipelines.connectors.mysql.connection import execute
from churnguard_pipelines.connectors.mysql.protocol import Connection

_PARSE_ERROR = 1064


class BinlogPosition(NamedTuple):
    """A position in a binary log. ``file``: e.g. ``binlog.000007``. Files are numbered in the order in which they are
    written."""

    file: str
    position: int

    @property
    def version(self) -> int:
        return (int(self.file.rpartition(".")[2]) << 32) | self.position


def current_position(connection: Connection) -> BinlogPosition | None:
    """Where the log ends now, or, in a transaction with a consistent snapshot on MariaDB, where it ended then.

    None without a binary log, or without the privilege to know (which MariaDB does not ask for).
    """
    found = dict(execute(connection, "SHOW STATUS LIKE 'binlog\\_snapshot\\_%'"))
    if found:
        file = found.get("Binlog_snapshot_file")
        return BinlogPosition(file, int(found["Binlog_snapshot_position"])) if file else None
    try:
        rows = _status(connection)
    except pymysql.OperationalError as error:
        if error.args[0] != 1227:
            raise
        return None
    return BinlogPosition(rows[0][0], int(rows[0][1])) if rows else None


def variables(connection: Connection, *names: str) -> dict[str, Any]:
    """The server's, by lower-case name; those that it does not have are left out."""
    listed = ", ".join(connection.escape(name) for name in names)
    return {
        name.lower(): value
        for name, value in execute(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({listed})")
    }


def _status(connection: Connection) -> list[tuple[Any, ...]]:
    try:
        return execute(connection, "SHOW BINARY LOG STATUS")  # MySQL 8.2 and newer
    except pymysql.ProgrammingError as error:
        if error.args[0] != _PARSE_ERROR:
            raise
        return execute(connection, "SHOW MASTER STATUS")
