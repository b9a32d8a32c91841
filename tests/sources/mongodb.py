"""A customer's MongoDB: a server on a loopback port that keeps a change log, may be killed and comes back.

The program is SecantusDB's, which speaks MongoDB's protocol. It is under the GPL: a process of its own, never imported.
Where MONGODB_URL is set, that server is used instead; it has to be a replica set's, with a user that may do all.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from churnguard_pipelines.ports import free_port
from tests.sources.servers import Server, running

USER, PASSWORD = "owner", "canary-source-password"
REAL = os.environ.get("MONGODB_URL")


class MongoDBServer(Server):
    """``home``: a new folder. Its user ``owner`` has ``PASSWORD`` and may do all."""

    def __init__(self, home: Path) -> None:
        self._home = home
        super().__init__(home / "server.log")
        self.port = free_port()

    def start(self, *options: str) -> None:
        if REAL is not None:
            return
        if not (self._home / "data").exists():
            self._start()
            with self.client(username=None) as client:
                client.admin.command("createUser", USER, pwd=PASSWORD, roles=["root"])
            self.stop()
        self._start("--auth", *options)

    def client(self, **options: Any) -> MongoClient[dict[str, Any]]:
        if REAL is not None:
            return MongoClient(REAL)
        parameters = {"username": USER, "password": PASSWORD} | options
        return MongoClient(
            "127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=20_000,
            **{name: value for name, value in parameters.items() if value is not None},
        )  # fmt: skip

    def fields(self, database: str) -> dict[str, str]:
        """The credentials' own fields."""
        if REAL is not None:
            return {"connection_string": REAL, "database": database}
        return {"host": "127.0.0.1", "port": str(self.port), "database": database, "tls": "disable"}

    def _start(self, *options: str) -> None:
        program = Path(sys.executable).with_name("secantusd-py")
        assert program.exists(), "secantusdb is not installed"
        (self._home / "empty.toml").touch()
        self._begin(
            [
                program, "--config", "empty.toml", "--host", "127.0.0.1", "--port", str(self.port),
                "--storage-path", str(self._home / "data"), "--cache-size", "256M", "--sync-on-commit",
                "--enable-test-commands", *options,
            ],
            cwd=self._home,
        )  # fmt: skip

    def _answers(self) -> bool:
        client: MongoClient[dict[str, Any]]
        try:
            with MongoClient("127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=500) as client:
                client.admin.command("ping")
        except OperationFailure:  # it wants a password
            return True
        except PyMongoError:
            return False
        return True


def running_mongodb() -> AbstractContextManager[MongoDBServer]:
    return running(MongoDBServer)
