"""Finds what a MySQL or MariaDB source lacks to be read or followed, with the statement that grants it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

import pymysql

from churnguard_pipelines.connectors.mysql.catalog import FoundTable, is_mariadb
from churnguard_pipelines.connectors.mysql.connection import execute, quoted
from churnguard_pipelines.connectors.mysql.position import variables
from churnguard_pipelines.connectors.mysql.protocol import Connection
from churnguard_pipelines.connectors.sdk import ObjectAccess

CHANGES = "change data capture"
WEEK = 7 * 86_400
_DAY = 86_400


def examine(
    connection: Connection, database: str, found: Mapping[str, FoundTable], *, followed: bool
) -> list[ObjectAccess]:
    """A line per table, and, if changes are to be followed, one for what that needs."""
    user = grantee(connection)
    lines = [_table(table, followed=followed) for table in found.values()]
    names = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"
    for (name,) in execute(connection, f"{names} AND TABLE_SCHEMA = {connection.escape(database)} ORDER BY 1"):
        if name not in found:
            grant = f"GRANT SELECT ON {quoted(database)}.{quoted(name)} TO {user}"
            lines.append(ObjectAccess(name, False, "it may not be read", f"`{grant}`"))
    if not lines:
        grant = f"`GRANT SELECT ON {quoted(database)}.* TO {user}`"
        lines.append(ObjectAccess(database, False, "there is no table that may be read", grant, whole=True))
    if followed:
        missing = list(_missing(connection, user))
        advice = list(_advice(connection, found))
        problem = "; ".join(what for what, _ in missing + advice) or None
        remedy = " ".join(how for _, how in missing + advice) or None
        lines.append(ObjectAccess(CHANGES, not missing, problem, remedy, whole=True))
    return lines


def retention(connection: Connection) -> int | None:
    """Seconds that the server keeps a finished file of its binary log; None if for ever."""
    with suppress(pymysql.Error):  # Amazon's own setting goes before the server's
        rows = execute(connection, "SELECT value FROM mysql.rds_configuration WHERE name = 'binlog retention hours'")
        if rows:
            return int(rows[0][0] or 0) * 3600
    told = variables(connection, "binlog_expire_logs_seconds", "expire_logs_days")
    seconds = int(told.get("binlog_expire_logs_seconds", 0)) or int(float(told.get("expire_logs_days", 0)) * _DAY)
    return seconds or None


def grantee(connection: Connection) -> str:
    user, _, host = str(execute(connection, "SELECT CURRENT_USER()")[0][0]).rpartition("@")
    return f"{connection.escape(user)}@{connection.escape(host)}"


def log_problems(connection: Connection) -> Iterator[tuple[str, str]]:
    """What of the server's settings keeps rows out of its binary log, each with what to do."""
    told = variables(
        connection, "log_bin", "binlog_format", "binlog_row_image", "binlog_row_value_options", "server_id",
    )  # fmt: skip
    if told.get("log_bin") != "ON":
        yield "the binary log is off", "Set `log_bin` and a `server_id` in the server's configuration and restart it."
        return
    if told.get("binlog_format", "ROW") != "ROW":
        yield f"binlog_format is {told['binlog_format']}", "`SET GLOBAL binlog_format = ROW`, and in the configuration."
    if told.get("binlog_row_image", "FULL") != "FULL":
        yield (
            f"binlog_row_image is {told['binlog_row_image']}",
            "`SET GLOBAL binlog_row_image = FULL`, and in the configuration.",
        )
    if told.get("binlog_row_value_options"):
        yield "JSON documents are logged in part", "`SET GLOBAL binlog_row_value_options = ''`"
    if told.get("server_id") == "0":
        yield "server_id is 0, with which the server feeds no replica", "`SET GLOBAL server_id = 1`"


def _table(found: FoundTable, *, followed: bool) -> ObjectAccess:
    if followed and found.unfollowable:
        return ObjectAccess(found.table.object, False, f"its changes cannot be followed: {found.unfollowable}")
    return ObjectAccess(found.table.object, True)


def _missing(connection: Connection, user: str) -> Iterator[tuple[str, str]]:
    yield from log_problems(connection)
    held = privileges(connection)
    mariadb = is_mariadb(connection)
    if not held & {"ALL PRIVILEGES", "REPLICATION SLAVE", "REPLICATION SLAVE ADMIN"}:
        yield "the user may not read the binary log", f"`GRANT REPLICATION SLAVE ON *.* TO {user}`"
    if not held & {"ALL PRIVILEGES", "REPLICATION CLIENT", "BINLOG MONITOR", "SUPER"}:
        wanted = "BINLOG MONITOR" if mariadb else "REPLICATION CLIENT"
        yield "the user may not see where the binary log ends", f"`GRANT {wanted} ON *.* TO {user}`"
    if not mariadb and not held & {"ALL PRIVILEGES", "RELOAD"}:
        yield "the user may not hold the short lock that a snapshot begins with", f"`GRANT RELOAD ON *.* TO {user}`"


def _advice(connection: Connection, found: Mapping[str, FoundTable]) -> Iterator[tuple[str, str]]:
    """What works, and would work better."""
    kept = retention(connection)
    if kept is not None and kept < WEEK:
        yield (
            f"the binary log is kept for {kept / _DAY:.1f} days only",
            f"`SET GLOBAL binlog_expire_logs_seconds = {WEEK}` or more gives a week to repair in.",
        )
    if variables(connection, "binlog_row_metadata").get("binlog_row_metadata", "FULL") != "FULL":
        yield (
            "the binary log does not name columns, so a table altered while we are behind may have to be read anew",
            "`SET GLOBAL binlog_row_metadata = FULL`",
        )
    if cascaded := [name for name, table in found.items() if table.cascaded]:
        yield (
            f"changes that foreign keys cascade into {', '.join(cascaded)} are not in the binary log",
            "These tables are read in full once a day besides.",
        )


def privileges(connection: Connection) -> set[str]:
    """The user's on the whole server, those of its current roles among them."""
    held: set[str] = set()
    for (grant,) in execute(connection, "SHOW GRANTS"):
        listed, _, rest = str(grant).removeprefix("GRANT ").partition(" ON ")
        if rest.startswith("*.*"):
            held |= {each.strip().upper() for each in listed.split(",")}
    return held
