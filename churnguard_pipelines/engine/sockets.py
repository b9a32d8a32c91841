"""Waiting for a socket. ``select`` fails for a descriptor past 1023, which a busy process has; ``poll`` does not."""

from __future__ import annotations

import select
import socket


def is_readable(waited_for: socket.socket | int, seconds: float) -> bool:
    """Whether within so many seconds something has arrived, or the connection has ended."""
    return _happens(waited_for, select.POLLIN, seconds)


def is_writable(waited_for: socket.socket | int, seconds: float) -> bool:
    """Whether within so many seconds there is room for something to send, or the connection has ended."""
    return _happens(waited_for, select.POLLOUT, seconds)


def _happens(waited_for: socket.socket | int, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(waited_for, event)
    return bool(poll.poll(max(0.0, seconds) * 1000))
