"""A customer's PostgreSQL: a real server on a loopback port that keeps a change log, may be killed and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.postgres.placement import place
from tests.sources.servers import Server

PASSWORD = "canary-source-password"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "logical",
    "autovacuum": "off",  # no process comes and goes by itself
    "max_connections": "60",
    "shared_buffers": "128MB",
    "synchronous_commit": "off",
    "timezone": "America/New_York",  # whatever the customer likes
    "max_wal_size": "2GB",
}


class PostgreSQLServer(Server):
    """``home``: a new folder that every user may enter."""

    dies_by = signal.SIGQUIT  # its children end at once, too, and nothing is flushed
    stops_by = signal.SIGINT

    def __init__(self, home: Path) -> None:
        self._place = place(home)
        super().__init__(self._place.log)
        self.port = free_port()
        password = home / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb", "--pgdata", str(self._place.data), "--username=owner", "--encoding=UTF8", "--locale=C",
            "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync",
        )  # fmt: skip

    def write(self, name: str, text: str) -> None:
        """A file of the server's own, such as its pg_hba.conf."""
        path = self._place.data / name
        path.write_text(text)
        path.chmod(0o600)
        self._place.user.own(path)

    def start(self, **settings: str) -> None:
        self._place.make_socket_folder()
        wanted = _SETTINGS | {"port": str(self.port), "unix_socket_directories": str(self._place.socket_folder)}
        options = [word for name, value in (wanted | settings).items() for word in ("-c", f"{name}={value}")]
        command: list[str | Path] = [self._place.programs / "postgres", "-D", str(self._place.data), *options]
        self._begin(command, cwd=self._place.folder, **self._place.user.process_options)

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.parameters(database), autocommit=True, **options)

    def parameters(self, database: str) -> dict[str, Any]:
        return {
            "host": "127.0.0.1", "port": self.port, "dbname": database, "user": "owner", "password": PASSWORD,
            "connect_timeout": 10,
        }  # fmt: skip

    def new_database(self, name: str) -> None:
        with self.connect() as connection:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))

    def drop_database(self, name: str) -> None:
        with self.connect() as connection:
            for (slot,) in connection.execute("SELECT slot_name FROM pg_replication_slots WHERE database = %s", [name]):
                connection.execute(
                    SQL(
                        "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots "
                        "WHERE slot_name = {} AND active"
                    ).format(Literal(slot))
                )
                connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._place.programs / program, *arguments],
            check=True, capture_output=True, cwd=self._place.folder, env=dict(os.environ),
            **self._place.user.process_options,
        )  # fmt: skip
