"""Servers that mean harm: each a listener on a loopback port that does one thing to whoever connects."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

Treatment = Callable[["Victim"], None]


class Victim:
    """One connection. ``received``: all that it has sent us."""

    def __init__(self, connection: socket.socket, ended: threading.Event) -> None:
        self.connection, self._ended = connection, ended
        self.received = bytearray()
        self.sent = 0

    def hear(self) -> bytes:
        data = self.connection.recv(65_536)
        self.received += data
        if not data:
            raise ConnectionError
        return data

    def say(self, data: bytes) -> None:
        self.connection.sendall(data)
        self.sent += len(data)

    def for_ever(self, data: bytes, pause: float = 0.0) -> None:
        while not self._ended.wait(pause) if pause else not self._ended.is_set():
            self.say(data)

    def silence(self) -> None:
        self._ended.wait()


class HostileServer:
    def __init__(self, treatment: Treatment) -> None:
        self._treatment = treatment
        self.victims: list[Victim] = []
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    @property
    def received(self) -> bytes:
        return b"".join(bytes(each.received) for each in self.victims)

    @property
    def sent(self) -> int:
        return sum(each.sent for each in self.victims)

    def __enter__(self) -> HostileServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self.victims:
            each.connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.victims.append(Victim(connection, self._ended))
                threading.Thread(target=self._treat, args=[self.victims[-1]], daemon=True).start()

    def _treat(self, victim: Victim) -> None:
        with suppress(OSError):
            self._treatment(victim)


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Of PostgreSQL's protocol."""
    return kind + struct.pack("!i", len(body) + 4) + body


WELCOME = message(b"R", struct.pack("!i", 0)) + message(b"Z", b"I")


def packet(number: int, body: bytes) -> bytes:
    """Of MySQL's protocol."""
    return len(body).to_bytes(3, "little") + bytes([number]) + body


OK = b"\x00\x00\x00\x02\x00\x00\x00"


def greeting(method: bytes = b"mysql_native_password") -> bytes:
    capabilities = 0x0008_A209  # protocol 4.1, secure connections, methods by name, a database at once; no TLS
    return packet(
        0,
        b"\x0a8.0.36\0" + struct.pack("<I", 7) + b"12345678\0" + struct.pack("<H", capabilities & 0xFFFF)
        + b"\x2d\x02\x00" + struct.pack("<H", capabilities >> 16) + b"\x15" + bytes(10) + b"abcdefghijkl\0"
        + method + b"\0",
    )  # fmt: skip
