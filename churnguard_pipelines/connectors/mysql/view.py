"""One consistent view of a MySQL or MariaDB server on several connections, with its position in the binary log.

MariaDB tells each transaction's own place in the log, so connections that tell the same place have the same view: no
lock, no privilege. MySQL does not; there a lock is held for the moment in which the connections begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pymysql

from churnguard_pipelines.connectors.mysql.connection import close_quietly, connect, execute, quoted, translated
from churnguard_pipelines.connectors.mysql.position import current_position
from churnguard_pipelines.connectors.mysql.protocol import Connection
from churnguard_pipelines.errors import PermissionMissing
from churnguard_pipelines.model import IntegrationConfiguration

READERS = 2
ATTEMPTS = 20
LOCK_SECONDS = 10
_DENIED = (1044, 1142, 1227)
_BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"


@dataclass(frozen=True, slots=True)
class View:
    """Connections that see the same moment of the server. ``readers``: inside the view. ``guide``: outside of it."""

    version: int
    readers: Sequence[Connection]
    guide: Connection


@contextmanager
def opened_view(integration: IntegrationConfiguration, tables: Sequence[str], *, followed: bool) -> Iterator[View]:
    """``followed``: raises ``PermissionMissing`` if the version cannot be exact."""
    with ExitStack() as stack:
        connections = []
        for _ in range(READERS + 1):
            connections.append(connect(integration))
            stack.callback(close_quietly, connections[-1])
        guide, *readers = connections
        with translated(integration):
            for reader in readers:
                execute(reader, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            if execute(guide, "SHOW STATUS LIKE 'binlog\\_snapshot\\_file'"):
                view = _without_lock(readers, guide)
            else:
                view = _with_lock(integration, readers, guide, tables, followed=followed)
        yield view


def clock_version(connection: Connection) -> int:
    """Microseconds of the server's clock: all there is to order reads by where there is no binary log to be seen."""
    return int(execute(connection, "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)")[0][0])


def _without_lock(readers: Sequence[Connection], guide: Connection) -> View:
    """MariaDB. A busy server may commit between any two beginnings; then one reader has to do."""
    begun = clock_version(guide)
    for _ in range(ATTEMPTS):
        for reader in readers:
            execute(reader, _BEGIN)
        places = [current_position(reader) for reader in readers]
        if places[0] is None:
            break
        if places.count(places[0]) == len(places):
            return View(places[0].version, readers, guide)
    version = places[0].version if places[0] is not None else begun
    return View(version, readers[:1], guide)


def _with_lock(
    integration: IntegrationConfiguration,
    readers: Sequence[Connection],
    guide: Connection,
    tables: Sequence[str],
    *,
    followed: bool,
) -> View:
    locked = _lock(guide, tables)
    if not locked and followed:
        user = f"'{integration.credentials.username}'"
        raise PermissionMissing(
            "the place of a snapshot in the binary log cannot be known without a short lock.",
            integration_id=integration.integration_id,
            remedy=f"Run `GRANT RELOAD ON *.* TO {user}`, or `GRANT LOCK TABLES ON` the database.",
        )
    try:
        place = current_position(guide)
        version = place.version if place is not None else clock_version(guide)
        for reader in readers if locked else readers[:1]:
            execute(reader, _BEGIN)
    finally:
        if locked:
            execute(guide, "UNLOCK TABLES")
    return View(version, readers if locked else readers[:1], guide)


def _lock(connection: Connection, tables: Sequence[str]) -> bool:
    """Until every commit under way is done; False if the user may not. A lock that long queries keep from us for
    ``LOCK_SECONDS`` is an error: everybody else would wait behind us."""
    execute(connection, f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}")
    listed = ", ".join(f"{quoted(table)} READ" for table in tables)
    for statement in ("FLUSH TABLES WITH READ LOCK", f"LOCK TABLES {listed}" if tables else ""):
        try:
            if statement:
                execute(connection, statement)
                return True
        except pymysql.Error as error:
            if error.args[0] not in _DENIED:
                raise
    return False
