"""MySQL's own server as a customer's, beside MariaDB: Debian's `mysql-server-core`, as `make servers` unpacks it.

Its C library may be newer than the machine's, so it runs on that of its own folder.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.sources.mariadb import PASSWORD, MariaDBServer
from tests.sources.servers import running

FOLDER = Path(sys.prefix) / "mysql-server"
_MARIADB_ONLY = ("binlog-format", "expire-logs-days", "max-recursive-iterations")
_FAST: dict[str, str | None] = {
    "innodb-doublewrite": "OFF",
    "innodb-redo-log-capacity": "8M",
    "log-error-verbosity": "1",
}
_SETTINGS: dict[str, str | None] = {
    "cte-max-recursion-depth": "1000000",
    "enforce-gtid-consistency": "ON",
    "gtid-mode": "ON",
    "mysqlx": "OFF",
    "performance-schema": "OFF",
    "secure-file-priv": "NULL",
    "sync-binlog": "0",
}


class MySQLServer(MariaDBServer):
    settings: ClassVar = {
        **{name: value for name, value in MariaDBServer.settings.items() if name not in _MARIADB_ONLY},
        **_FAST,
        **_SETTINGS,
    }
    make_owner = (
        f"CREATE USER IF NOT EXISTS owner@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
        "GRANT ALL ON *.* TO owner@'127.0.0.1' WITH GRANT OPTION",
    )

    def installer(self) -> list[str]:
        return [*self.command(), "--initialize-insecure", *(f"--{name}={value}" for name, value in _FAST.items())]

    def command(self) -> list[str]:
        libraries = next(FOLDER.glob("usr/lib/*-linux-gnu"))
        loader = next(FOLDER.glob("usr/lib*/ld-linux-*.so.*"))
        user = ["--user=root"] if os.geteuid() == 0 else []
        return [
            str(loader), "--library-path", str(libraries), str(FOLDER / "usr/sbin/mysqld"), "--no-defaults",
            f"--basedir={FOLDER / 'usr'}", *user,
        ]  # fmt: skip

    def runs_as(self) -> dict[str, Any]:
        """Ourselves, root too: another user need not reach the folder."""
        return {}


def running_mysql() -> AbstractContextManager[MySQLServer]:
    """Skips the test where the server is not there; in CI it has to be."""
    if not FOLDER.exists() and os.environ.get("CI") != "true":
        pytest.skip(f"MySQL's own server is not in {FOLDER}: `make servers` unpacks it")
    return running(MySQLServer)
