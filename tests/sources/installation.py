"""An installation of ours that is killed again and again while it follows a customer's database."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

from churnguard_pipelines.model import IntegrationCredentials, IntegrationType, Organization
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.syncing.change_lane import load_checkpoint
from tests.conftest import configuration, opened_on
from tests.soak import SOAK
from tests.waiting import wait_for

KILLS = 60 if SOAK else 3
VICTIMS = ("session", "source", "warehouse")
OPEN = """
import logging, sys
from churnguard_pipelines.syncing.sync import sync_integration
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.changes import ChangeLogs
from churnguard_pipelines.syncing.session import Session
store = Store.open(load_settings(), migrate=False)
"""
SESSION = OPEN + "Session(store, sys.argv[1], ChangeLogs(store), linger=600).run()"
SYNC = OPEN + "sync_integration(store, 'acme-db', sync_id=sys.argv[1])"
SYNC_KILLED_HALFWAY = (
    """
import os, signal
import sqlalchemy as sa
moves = 0
@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def die_at_the_second_move(connection, cursor, statement, *rest):
    global moves
    moves += "UPDATE ingest.checkpoints" in statement
    if moves == 2:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    + SYNC
)
"""Before what it has just written is committed; by itself, so that it is never too late."""


class Mortal(Protocol):
    """A customer's server."""

    def kill(self) -> None: ...

    def start(self) -> None: ...


class OurWarehouse:
    """A warehouse of the organization ``acme`` whose server may be killed, and programs of ours that work with it."""

    def __init__(self, home: Path) -> None:
        self.postgres = EmbeddedPostgres(home)
        self.store = opened_on(self.postgres, home)
        settings = self.store.settings
        assert settings.encryption_key is not None
        self._environment = os.environ | {
            "CHURNGUARD_HOME": str(home), "CHURNGUARD_DATABASE_URL": self.store.database_url,
            "INTEGRATION_ENCRYPTION_KEY": settings.encryption_key.get_secret_value(),
        }  # fmt: skip
        self._log = (home / "processes.log").open("ab")
        add_organization(self.store, Organization(organization_id="acme", name="Acme"), actor="test")

    def run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments], env=self._environment, stdout=self._log, stderr=self._log
        )

    def kill_warehouse(self) -> None:
        pid = int((self.postgres.data / "postmaster.pid").read_text().splitlines()[0])
        for process in (psutil.Process(pid), *psutil.Process(pid).children()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        self.postgres.start()

    def stop(self) -> None:
        self._log.close()
        self.store.close()
        self.postgres.stop()


class Installation(OurWarehouse):
    """With the one integration ``acme-db``, and one process at a time that syncs or follows it."""

    def __init__(self, home: Path, provider: str, username: str, password: str, **where: str) -> None:
        super().__init__(home)
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0
        credentials = {
            "credential_type": "basic_auth",
            "username": username,
            "password": password,
            "custom_fields": {"host": "127.0.0.1", **where},
        }
        made = configuration(
            "acme-db", integration_type=IntegrationType.DATABASE, provider_name=provider,
            credentials=IntegrationCredentials.model_validate(credentials), sync_config={"sync_mode": "real_time"},
        )  # fmt: skip
        add_integration(self.store, made, actor="test")

    def start(self, program: str) -> None:
        self._number += 1
        self._process = self.run(program, f"process-{self._number}")

    def keep(self) -> None:
        """What Dagster does: a session that ended is followed by another."""
        if self._process is None or self._process.poll() is not None:
            self.start(SESSION)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def sync_killed_halfway(self) -> None:
        """A sync that has stored some pieces of a table and is at the next one."""
        self.start(SYNC_KILLED_HALFWAY)
        assert self._process is not None
        assert self._process.wait(300) == -signal.SIGKILL

    def progress(self, lane: str) -> int:
        """How often the lane has moved."""
        checkpoint = load_checkpoint(self.store, Lane("acme", "acme-db", lane))
        return checkpoint.version if checkpoint else 0

    def mark_of(self, table: str) -> Any:
        """Before which every row of a table that is half read is stored, as its connector writes it."""
        checkpoint = load_checkpoint(self.store, Lane("acme", "acme-db", table))
        assert checkpoint is not None
        assert not checkpoint.position["complete"]
        return checkpoint.position["next"]

    def endure(self, source: Mortal, kills: int, chance: random.Random) -> dict[str, int]:
        """Kills the session, the source and the warehouse's server in turn, each time after the changes have moved on;
        returns how often each."""
        killed = dict.fromkeys(VICTIMS, 0)
        for number in range(kills):
            before = self.progress("changes")
            wait_for(lambda before=before: self._moved_beyond(before))  # type: ignore[misc]
            victim = VICTIMS[number % len(VICTIMS)]
            threading.Event().wait(chance.random() * 0.5)  # anywhere in what it does
            if victim == "session":
                self.kill()
            elif victim == "source":
                source.kill()
                source.start()
            else:
                self.kill_warehouse()
            killed[victim] += 1
        return killed

    def _moved_beyond(self, before: int) -> bool:
        self.keep()  # a session may have ended since, because the warehouse was away
        return self.progress("changes") > before

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        super().stop()
