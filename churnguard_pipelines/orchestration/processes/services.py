"""The processes of an installation: the webhook gateway and Dagster's code server, daemon and web server, started and
stopped together. Imports no Dagster itself."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import yaml

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.orchestration.processes.account import Account
from churnguard_pipelines.orchestration.processes.environment import LOCATION, dagster_environment
from churnguard_pipelines.orchestration.processes.heartbeats import daemon_age_seconds
from churnguard_pipelines.ports import free_port, listens, refuse_taken
from churnguard_pipelines.store.postgres.database import Store

START_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 10
PATH = "/dashboard"


class Services:
    """Their output goes to ``<home>/logs``. The processes do not outlive this one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        settings = store.settings
        self._host, self._port = settings.dashboard_host, settings.dashboard_port
        self._webhooks = settings.webhook_host, settings.webhook_port
        self._scheme = "https" if settings.dashboard_tls_cert else "http"
        self._logs = settings.home / "logs"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def _addresses(self) -> dict[str, str]:
        """Those that were found free; whatever else the environment says."""
        (host, port), (webhook_host, webhook_port) = (self._host, self._port), self._webhooks
        return {
            "DASHBOARD_HOST": host,
            "DASHBOARD_PORT": str(port),
            "WEBHOOK_SERVER_HOST": webhook_host,
            "WEBHOOK_SERVER_PORT": str(webhook_port),
        }

    @property
    def url(self) -> str:
        return f"{self._scheme}://{_shown(self._host)}:{self._port}{PATH}"

    @property
    def webhooks_url(self) -> str:
        """Before ``/{provider}/{organization_id}``."""
        host, port = self._webhooks
        return f"http://{_shown(host)}:{port}/webhooks"

    def start(self) -> None:
        """Returns when the gateway and the web server answer and the daemon has given a sign of life.

        Raises ``InvalidConfiguration`` if a port is taken, ``ChurnGuardError`` if a process ends instead.
        """
        refuse_taken(self._host, self._port, "DASHBOARD_PORT")
        refuse_taken(*self._webhooks, "WEBHOOK_SERVER_PORT")
        self._account = Account(self._store.settings)
        environment = dagster_environment(self._store) | self._addresses | self._account.environment
        code_port = free_port()
        workspace = Path(environment["DAGSTER_HOME"]) / "workspace.yaml"
        server = {"host": "127.0.0.1", "port": code_port, "location_name": LOCATION}
        written = yaml.safe_dump({"load_from": [{"grpc_server": server}]})
        with self._account.new_file(workspace) as file:
            file.write(written.encode())
        module = ("-m", "churnguard_pipelines.definitions")
        try:
            self._spawn(
                "code-server",
                (
                    "dagster",
                    "code-server",
                    "start",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    str(code_port),
                    *module,
                    "--location-name",
                    LOCATION,
                ),
                environment,
            )
            self._spawn("gateway", ("python", "-m", "webhook_gateway.intake"), environment)
            self._wait("code-server", lambda: listens("127.0.0.1", code_port))
            started = time.time()
            self._spawn("daemon", ("dagster-daemon", "run", "-w", str(workspace)), environment)
            self._spawn("dashboard", ("python", "-m", "webhook_gateway.dashboard", "-w", str(workspace)), environment)
            self._wait("gateway", lambda: _answers(f"http://{_reached(*self._webhooks)}/webhooks/health"))
            self._wait("dashboard", lambda: _answers(f"{self._scheme}://{_reached(self._host, self._port)}/healthz"))
            self._wait("daemon", lambda: self._heartbeat_since(started))
        except BaseException:
            self.stop()
            raise

    def watch(self) -> None:
        """Returns never; raises ``ChurnGuardError`` when one of the processes ends by itself."""
        while True:
            for name in self._processes:
                self._must_run(name)
            time.sleep(1)

    def stop(self) -> None:
        """Ask all to end, the runs that Dagster started too, wait, then insist."""
        for process in self._processes.values():
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        for process in self._processes.values():
            while _signal_group(process, 0) and time.monotonic() < deadline:
                time.sleep(0.1)
            _signal_group(process, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def _spawn(self, name: str, command: Sequence[str], environment: dict[str, str]) -> None:
        program = Path(sys.executable).with_name(command[0])
        with self._account.new_file(self._logs / f"{name}.log") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - a list, no shell; its program is ours
                [str(program), *command[1:]],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
                **self._account.process_options,
                start_new_session=True,  # Ctrl-C is for us: we stop them, each with all that it started
            )

    def _wait(self, name: str, ready: object) -> None:
        assert callable(ready)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not ready():
            self._must_run(name)
            if time.monotonic() > deadline:
                raise ChurnGuardError(f"{name} is not ready after {START_TIMEOUT_SECONDS} s.", remedy=self._see(name))
            time.sleep(0.2)

    def _must_run(self, name: str) -> None:
        code = self._processes[name].poll()
        if code is not None:
            lines = (self._logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
            reason = f": {lines[-1]}" if lines else "."
            raise ChurnGuardError(f"the {name} ended with code {code}{reason}", remedy=self._see(name))

    def _see(self, name: str) -> str:
        return f"See {self._logs / f'{name}.log'}."

    def _heartbeat_since(self, started: float) -> bool:
        age = daemon_age_seconds(self._store.dagster_database_url)
        return age is not None and age <= time.time() - started


def _signal_group(process: subprocess.Popen[bytes], sign: int) -> bool:
    """The process and all that it started; False if none of them is left."""
    process.poll()  # or it would stay as a zombie, which counts
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, verify=False).is_success  # noqa: S501 - our own certificate, by an address it is not for
    except httpx.TransportError:
        return False


def _shown(host: str) -> str:
    return "localhost" if host in ("127.0.0.1", "0.0.0.0") else host  # noqa: S104 - compared, not listened on


def _reached(host: str, port: int) -> str:
    return f"{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - compared, not listened on


def _die_with_parent() -> None:
    """Linux: the child gets SIGTERM when we are killed, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
