"""A network that cuts every connection after a while: a TCP proxy on a loopback port."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType


class FlakyNetwork:
    """Leads to a port of this machine. A connection is cut after ``most`` bytes have come back through it."""

    def __init__(self, port: int, most: int) -> None:
        self._target, self.most = port, most
        self.cut = 0
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> FlakyNetwork:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while not self._ended.is_set():
            with suppress(OSError):
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._carry, args=[client, server, None], daemon=True).start()
                threading.Thread(target=self._carry, args=[server, client, self.most], daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, most: int | None) -> None:
        carried = 0
        with suppress(OSError):
            while data := source.recv(65_536):
                carried += len(data)
                if most is not None and carried > most:
                    self.cut += 1
                    break
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
