"""A customer's MariaDB: a real server on a loopback port that keeps a binary log, may be killed and comes back.

Debian's package `mariadb-server` has the programs.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import pymysql

from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.postgres.placement import place
from tests.sources.certificates import of_address
from tests.sources.servers import Server, running

PASSWORD = "canary-source-password"
_SETTINGS: dict[str, str | None] = {
    "bind-address": "127.0.0.1",
    "server-id": "7",
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "binlog-row-image": "FULL",
    "binlog-row-metadata": "FULL",
    "innodb-buffer-pool-size": "64M",
    "innodb-flush-log-at-trx-commit": "2",
    "default-time-zone": "-05:00",  # whatever the customer likes
    "character-set-server": "utf8mb4",
    "expire-logs-days": "10",
    "max-recursive-iterations": "1000000",
}


class MariaDBServer(Server):
    """``home``: a new folder that every user may enter. Its user ``owner`` may do everything."""

    settings: ClassVar[dict[str, str | None]] = _SETTINGS
    make_owner: tuple[str, ...] = (
        f"CREATE OR REPLACE USER owner@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
        "GRANT ALL ON *.* TO owner@'127.0.0.1' WITH GRANT OPTION",
    )

    def __init__(self, home: Path) -> None:
        self._place = place(home)
        super().__init__(self._place.log)
        self.port = free_port()
        # Not the machine's: a server that starts clears it of every other server's tables.
        self._temporary = self._place.folder / "tmp"
        self._temporary.mkdir(mode=0o777)
        self._temporary.chmod(0o777)
        with self._log.open("ab") as log:
            subprocess.run(
                [*self.installer(), f"--datadir={self._place.data}", f"--tmpdir={self._temporary}"],
                check=True, stdout=log, stderr=log, cwd=self._place.folder, **self.runs_as(),
            )  # fmt: skip
        self._init = self._place.folder / "init.sql"
        self._init.write_text("".join(f"{each};\n" for each in ("SET sql_log_bin = 0", *self.make_owner)))
        self._init.chmod(0o644)

    def installer(self) -> list[str]:
        """The command that makes its first data."""
        options = ("--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal")
        return [_program("mariadb-install-db"), *options]

    def command(self) -> list[str]:
        """What runs it, before its settings."""
        return [_program("mariadbd"), "--no-defaults"]

    def runs_as(self) -> dict[str, Any]:
        return self._place.user.process_options

    def start(self, **settings: str | None) -> None:
        """``settings``: the server's, None for one that is not to be set."""
        self._place.make_socket_folder()
        wanted = self.settings | {"port": str(self.port), "socket": str(self._place.socket_folder / "server")}
        wanted |= {name.replace("_", "-"): value for name, value in settings.items()}
        options = [f"--{name}={value}" for name, value in wanted.items() if value is not None]
        self._begin(
            [
                *self.command(), f"--datadir={self._place.data}", f"--tmpdir={self._temporary}",
                f"--init-file={self._init}", *options,
            ],
            cwd=self._place.folder, **self.runs_as(),
        )  # fmt: skip

    def start_with_tls(self) -> str:
        """Returns the certificate, of 127.0.0.1, by which to verify it."""
        key, certificate = of_address()
        options = {}
        for name, content in (("ssl-key", key), ("ssl-cert", certificate), ("ssl-ca", certificate)):
            file = self._place.folder / f"{name}.pem"
            file.write_text(content)
            file.chmod(0o644)
            options[name] = str(file)
        self.start(**options)
        return certificate

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="owner", password=PASSWORD, database=database, autocommit=True,
            charset="utf8mb4", connect_timeout=10,
        )  # fmt: skip

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.Error:
            return False
        return True


def running_mariadb() -> AbstractContextManager[MariaDBServer]:
    return running(MariaDBServer)


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    assert found is not None, f"{name} is not installed: `apt-get install mariadb-server`"
    return found
