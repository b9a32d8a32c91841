"""Dagster as an installation runs it: a code server and a daemon, which can be killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.ports import free_port, listens
from churnguard_pipelines.store.ingest import sessions
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.webhooks import WEBHOOKS
from tests.waiting import wait_for


class Dagster:
    """Each process is the leader of a group of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._environment = dagster_environment(store)
        self._workspace = Path(self._environment["DAGSTER_HOME"]) / "workspace.yaml"
        self._port = free_port()
        self._code_server: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the definitions are loaded; the daemon has begun then."""
        server = {"host": "127.0.0.1", "port": self._port, "location_name": "ours"}
        self._workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
        module = ("-m", "churnguard_pipelines.definitions", "--location-name", "ours")
        self._code_server = self._run("dagster", "code-server", "start", "-p", str(self._port), *module)
        wait_for(lambda: listens("127.0.0.1", self._port))
        self._start_daemon()

    def keep(self) -> None:
        """What a supervisor does: a daemon that ended is started again."""
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            self._start_daemon()

    def kill_daemon(self) -> None:
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait()

    def kill_session(self) -> bool:
        """A webhook session that has begun to work, if there is one: its process is a child of the code server's."""
        assert self._code_server is not None
        killed = 0
        with suppress(ChurnGuardError, psutil.NoSuchProcess):
            if sessions.ages(self._store, WEBHOOKS):
                for process in psutil.Process(self._code_server.pid).children(recursive=True):
                    if any("spawn_main" in word for word in process.cmdline()):
                        process.kill()
                        killed += 1
        return killed > 0

    def stop(self) -> None:
        for process in (self._daemon, self._code_server):
            if process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _start_daemon(self) -> None:
        self._daemon = self._run("dagster-daemon", "run", "-w", str(self._workspace))

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(Path(sys.executable).with_name(program)), *arguments],
            env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
