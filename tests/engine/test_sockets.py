"""Waiting for sockets, in a process with more than a thousand files open, too."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from churnguard_pipelines.engine.allowance import is_readable, is_writable

HIGH = 1500


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Ours has a descriptor beyond what ``select`` can name."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(2 * HIGH, hard)), hard))
    low, theirs = socket.socketpair()
    ours = socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD, HIGH))
    low.close()
    try:
        assert ours.fileno() >= HIGH
        yield ours, theirs
    finally:
        ours.close()
        theirs.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_has_arrived_is_seen(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    assert not is_readable(ours, 0)
    theirs.send(b"x")
    assert is_readable(ours, 10)
    assert is_readable(ours.fileno(), 10)


def test_so_is_an_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    assert is_readable(ours, 10)
    assert is_writable(ours, 10)


def test_room_is_seen_when_there_is_some(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    assert is_writable(ours, 10)
    os.set_blocking(ours.fileno(), False)
    with suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 65536)
    assert not is_writable(ours, 0)
