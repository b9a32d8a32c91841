"""Servers that are connected and rest: who looks after five hundred streams of one server does not connect anew for
each of them, each time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.settings import AllowedAddress
from churnguard_pipelines.streams.redis.options import Target
from churnguard_pipelines.streams.redis.server import Server

REST_SECONDS = 60.0
_MOST_RESTING = 4
"""Of one server and login."""

_Who = tuple[Target, bool, tuple[AllowedAddress, ...]]
_resting: dict[_Who, list[tuple[float, Server]]] = {}
_lock = Lock()


@contextmanager
def lent(target: Target, guard: AddressGuard, cancelled: Event) -> Iterator[Server]:
    """A server for a while; one of those that rest, if it is still connected. Whoever may reach less gets none that
    another one has connected."""
    who = (target, guard.restricted, guard.allowed)
    server = _taken(who)
    if server is None:
        server = Server(target, guard, cancelled)
    else:
        server.lend(guard, cancelled)
    try:
        yield server
    except BaseException:
        server.close()
        raise
    _rest(who, server)


def _taken(who: _Who) -> Server | None:
    with _lock:
        _close_the_old()
        found = _resting.get(who, [])
        while found:
            _, server = found.pop()
            if server.rests:
                return server
            server.close()
        return None


def _rest(who: _Who, server: Server) -> None:
    with _lock:
        _close_the_old()
        resting = _resting.setdefault(who, [])
        if len(resting) < _MOST_RESTING and server.rests:
            resting.append((time.monotonic(), server))
        else:
            server.close()


def _close_the_old() -> None:
    oldest = time.monotonic() - REST_SECONDS
    for who, resting in list(_resting.items()):
        while resting and resting[0][0] < oldest:
            resting.pop(0)[1].close()
        if not resting:
            del _resting[who]
