"""Hostile servers on the loopback that say nothing, or not enough."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Silent:
    """Accepts every connection and never says a word. ``asked``: set when somebody has come."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._kept: list[socket.socket] = []
        self.port: int = self._socket.getsockname()[1]
        self.asked = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def callers(self) -> int:
        return len(self._kept)

    def close(self) -> None:
        """Lets go of everybody."""
        if not self._thread.is_alive():
            return
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)
        for each in self._kept:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                self._kept.append(self._socket.accept()[0])
            except OSError:
                return
            self.asked.set()


@contextmanager
def silence() -> Iterator[Silent]:
    server = Silent()
    try:
        yield server
    finally:
        server.close()
