"""The processes of an installation: the webhook gateway and Dagster's code server, daemon and web server, started and
stopped together; one that ends by itself is started again. Imports no Dagster itself."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import httpx

from churnguard_pipelines.errors import ChurnGuardError, DatabaseUnavailable
from churnguard_pipelines.exposure import refuse_bad_addresses
from churnguard_pipelines.orchestration.processes.account import Account
from churnguard_pipelines.orchestration.processes.environment import dagster_environment, workspace
from churnguard_pipelines.orchestration.processes.heartbeats import daemon_age_seconds
from churnguard_pipelines.orchestration.processes.supervision import Supervised
from churnguard_pipelines.orchestration.roles import CODE_SERVER, DAEMON
from churnguard_pipelines.ports import free_port, listens
from churnguard_pipelines.store.postgres.database import Store

START_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 10
WATCH_SECONDS = 0.5
DATABASE_PAUSE_SECONDS = 5.0  # before a private PostgreSQL that does not start is tried again
PATH = "/dashboard"

_log = logging.getLogger(__name__)


class Services:
    """The service processes of an installation. Their output goes to ``<home>/logs``. The processes do not outlive this
    one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        settings = store.settings
        self._host, self._port = settings.dashboard_host, settings.dashboard_port
        self._webhooks = settings.webhook_host, settings.webhook_port
        self._logs = settings.home / "logs"
        self._processes: dict[str, Supervised] = {}
        self._lock = threading.Lock()  # of what is done with them: nothing is started again while they are stopped
        self._stopping = threading.Event()

    def _addresses(self, code_port: int) -> dict[str, str]:
        """Those that were found free; whatever else the environment says."""
        (host, port), (webhook_host, webhook_port) = (self._host, self._port), self._webhooks
        return {
            "CHURNGUARD_CODE_SERVER_HOST": "127.0.0.1",
            "CHURNGUARD_CODE_SERVER_PORT": str(code_port),
            "DASHBOARD_HOST": host,
            "DASHBOARD_PORT": str(port),
            "WEBHOOK_SERVER_HOST": webhook_host,
            "WEBHOOK_SERVER_PORT": str(webhook_port),
        }

    @property
    def base_url(self) -> str:
        return self._store.settings.dashboard_url

    @property
    def url(self) -> str:
        """Of Dagster's pages."""
        return f"{self.base_url}{PATH}"

    def start(self) -> None:
        """Returns when the gateway and the web server answer and the daemon has given a sign of life.

        Raises ``InvalidConfiguration`` if they may not or cannot listen where they are to, ``ChurnGuardError`` if a
        process ends instead.
        """
        refuse_bad_addresses(self._store.settings)
        self._account = Account(self._store.settings)
        if self._account.obstacle is not None:
            _log.warning("the services stay root's, fine for a trial only: %s", self._account.obstacle)
        code_port = free_port()
        scheme = "https" if self._store.settings.dashboard_tls_cert else "http"
        environment = dagster_environment(self._store) | self._addresses(code_port) | self._account.environment
        places = str(workspace(self._store.settings, "127.0.0.1", code_port))
        try:
            self._spawn("code-server", ("python", "-m", CODE_SERVER), environment)
            self._spawn("gateway", ("python", "-m", "webhook_gateway.intake"), environment)
            self._wait("code-server", lambda: listens("127.0.0.1", code_port))
            started = time.time()
            self._spawn("daemon", ("python", "-m", DAEMON, "-w", places), environment)
            self._spawn("dashboard", ("python", "-m", "webhook_gateway.dashboard", "-w", places), environment)
            self._wait("gateway", lambda: _answers(f"http://{_reached(*self._webhooks)}/webhooks/health"))
            self._wait("dashboard", lambda: _answers(f"{scheme}://{_reached(self._host, self._port)}/healthz"))
            self._wait("daemon", lambda: self._heartbeat_since(started))
        except BaseException:
            self.stop()
            raise

    def watch(self) -> None:
        """Start again what ends by itself, while the others go on. Returns when :meth:`stop` is called."""
        pause = WATCH_SECONDS
        while not self._stopping.wait(pause):
            pause = WATCH_SECONDS
            try:
                self._store.keep_server()
            except DatabaseUnavailable as error:
                _log.error("%s", error)
                pause = DATABASE_PAUSE_SECONDS
            with self._lock:
                for process in self._processes.values():
                    process.keep()

    def stop(self) -> None:
        """Ask all to end, the runs that Dagster started too, wait, then insist."""
        self._stopping.set()
        with self._lock:
            for process in self._processes.values():
                process.signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
            for process in self._processes.values():
                process.end_by(deadline)
            self._processes.clear()

    def _spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        log = self._logs / f"{name}.log"
        self._processes[name] = Supervised(name, command, environment, self._account, log)

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not ready():
            process = self._processes[name]
            process.must_run()
            if time.monotonic() > deadline:
                raise ChurnGuardError(f"{name} is not ready after {START_TIMEOUT_SECONDS} s.", remedy=process.see)
            time.sleep(0.2)

    def _heartbeat_since(self, started: float) -> bool:
        age = daemon_age_seconds(self._store.dagster_database_url)
        return age is not None and age <= time.time() - started


def _answers(url: str) -> bool:
    """Not by a proxy for the world outside, which does not know our processes."""
    try:
        return httpx.get(url, timeout=5, trust_env=False, verify=False).is_success  # noqa: S501 - our own certificate, by an address it is not for
    except httpx.TransportError:
        return False


def _reached(host: str, port: int) -> str:
    return f"{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - compared, not listened on
