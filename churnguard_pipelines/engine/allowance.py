"""Limits the time and bytes that one answer of a foreign server may take. A server that says nothing, drips or floods
ends an operation, never a process.

Time counts only while we wait for the server, and each :data:`PACE` bytes that come are worth another second: a read of
hours goes on as long as it moves.
"""

from __future__ import annotations

import contextvars
import fcntl
import select
import socket
import struct
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from churnguard_pipelines.errors import ProviderError, ProviderMisbehaved, ProviderUnavailable
from churnguard_pipelines.model import IntegrationConfiguration

CONNECT_SECONDS, CONNECT_BYTES = 10.0, 2**20
ANSWER_SECONDS, ANSWER_BYTES = 60.0, 64 * 2**20
"""Of a question about catalogues or settings."""
SCAN_SECONDS = 600.0
"""Until the first row of a read: a sort, or a filter that finds little, takes its time."""
ROW_BYTES = 256 * 2**20
"""Of one row, or one change, of those that are read one by one."""
CHECK_SECONDS = 30.0
"""Of all that a check of a connection asks, together: a person waits for it."""
PACE = 4096
MOST_ITERATIONS = 500_000
"""Of the digest of a password: some tenths of a second. The server names the number, and a driver counts that far,
which no deadline ends. MongoDB names 10,000 or 15,000, PostgreSQL 4,096."""

STAYS = "Whatever was stored stays; the next sync goes on from there."
WRONG_HOST = (
    "Correct the host and port in credentials.custom_fields if they are not the server's; it has to run, and to let "
    "this machine in."
)
"""Of a server that cannot be reached at all."""

_TCP_INFO = getattr(socket, "TCP_INFO", None)  # Linux
_BYTES_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received in it

_until: contextvars.ContextVar[float | None] = contextvars.ContextVar("until", default=None)


class Exhausted(Exception):
    """A server took more time or bytes than it was allowed. ``too_much``: of bytes, else of time."""

    def __init__(self, problem: str, *, too_much: bool) -> None:
        super().__init__(problem)
        self.too_much = too_much

    def as_ours(self, integration: IntegrationConfiguration, title: str, remedy: str = STAYS) -> ProviderError:
        kind = ProviderMisbehaved if self.too_much else ProviderUnavailable
        return kind(
            f"{title} {self}.",
            integration_id=integration.integration_id,
            remedy=remedy,
        )


class Allowance:
    """The time and bytes that one operation may take. Raises :class:`Exhausted` when it is used up."""

    def __init__(self, seconds: float = ANSWER_SECONDS, most: int = ANSWER_BYTES) -> None:
        self._seconds, self._most = seconds, most
        self._waited = 0.0
        self._received = self._begun = 0

    def left(self) -> float:
        """Seconds that the next wait may take."""
        left = self._seconds + self._received / PACE - self._waited
        if left <= 0:
            raise Exhausted(f"has not answered for {self._seconds:.0f} s, or too slowly", too_much=False)
        return min(left, _left())

    def waited(self, seconds: float) -> None:
        self._waited += seconds

    def came(self, count: int) -> None:
        """So many bytes more of what was begun last."""
        self._received += count
        if self._received - self._begun > self._most:
            raise Exhausted(f"sent more than {self._most // 2**20} MiB at once", too_much=True)

    def weighs(self, count: int) -> None:
        """What came takes so many bytes more in our memory than on its way."""
        self._begun -= count
        self.came(0)

    def begin(self) -> None:
        """Another row or answer, which may have as many bytes again."""
        self._begun = self._received


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """All that is asked of sources in here, together, ends by then. An outer, earlier end holds."""
    end = time.monotonic() + seconds
    outer = _until.get()
    token = _until.set(end if outer is None else min(end, outer))
    try:
        yield
    finally:
        _until.reset(token)


def connect_seconds() -> float:
    """That a connection may take to come about."""
    return min(CONNECT_SECONDS, _left())


def connected_socket(addresses: Sequence[str], port: int) -> socket.socket:
    """To the first of the addresses that answers, which are not looked up any more. Raises ``OSError``."""
    seconds = connect_seconds() / len(addresses)
    for address in addresses:
        try:
            made = socket.create_connection((address, port), seconds)
        except OSError as error:
            problem = error
            continue
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return made
    raise problem


def is_readable(waited_for: socket.socket | int, seconds: float) -> bool:
    """Whether within so many seconds something has arrived, or the connection has ended."""
    return _happens(waited_for, select.POLLIN, seconds)


def is_writable(waited_for: socket.socket | int, seconds: float) -> bool:
    """Whether within so many seconds there is room for something to send, or the connection has ended."""
    return _happens(waited_for, select.POLLOUT, seconds)


def arrived(descriptor: int) -> int:
    """Bytes that have come and were not read yet; that a connection has ended is none."""
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(count)


def received(descriptor: int) -> int:
    """Bytes that have come on a TCP connection since its begin, as the kernel counts them. 0 where it does not tell:
    on other systems than Linux, and of sockets of this machine, which only operators may name."""
    if _TCP_INFO is None:
        return 0
    viewed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
    try:
        told = viewed.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _BYTES_RECEIVED.size)
    except OSError:
        return 0
    finally:
        viewed.detach()
    return int(_BYTES_RECEIVED.unpack(told)[0]) if len(told) == _BYTES_RECEIVED.size else 0


def _left() -> float:
    end = _until.get()
    if end is None:
        return float("inf")
    if (left := end - time.monotonic()) <= 0:
        raise Exhausted("has not answered in time", too_much=False)
    return left


def _happens(waited_for: socket.socket | int, event: int, seconds: float) -> bool:
    """``select`` fails for a descriptor past 1023, which a busy process has; ``poll`` does not."""
    poll = select.poll()
    poll.register(waited_for, event)
    return bool(poll.poll(max(0.0, seconds) * 1000))
