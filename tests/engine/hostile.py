"""A socket on loopback that does with whoever connects what a test tells it to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

Behaviour = Callable[[socket.socket, Event], None]
"""Of one connection. The event is set when the test is over."""


@contextmanager
def hostile(behave: Behaviour, address: str = "127.0.0.1") -> Iterator[int]:
    """Its port."""
    over = Event()
    with socket.create_server((address, 0), backlog=64) as listening:

        def accept() -> None:
            while not over.is_set():
                with suppress(OSError):
                    connection, _ = listening.accept()
                    Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                behave(connection, over)

        thread = Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            over.set()
            with suppress(OSError), socket.create_connection((address, listening.getsockname()[1]), 1):
                pass  # wakes the thread
            thread.join(5)


def request_of(connection: socket.socket) -> bytes:
    """Up to its empty line."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            break
        received += chunk
    return received


@contextmanager
def nobody_comes(address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A service inside that no connection may reach; its port."""
    with socket.create_server((address, port), backlog=8) as listening:
        yield int(listening.getsockname()[1])
        listening.setblocking(False)
        with suppress(BlockingIOError):
            connection, _ = listening.accept()
            connection.close()
            raise AssertionError("somebody came")
