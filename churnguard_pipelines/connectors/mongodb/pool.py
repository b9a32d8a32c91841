"""The driver's connection pool, which connects only to addresses that the guard has checked.

A server names its set's other members, and a name in DNS names servers; the driver connects to them of itself. So the
addresses are judged where its sockets are made. The driver has no such hook, only a class of pools to be given: its
method that connects is run here with two of its module's names meaning ours. A release in which it does not use these
names is refused at once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FunctionType
from typing import Any

from pymongo import _csot, pool_shared
from pymongo.errors import ProtocolError
from pymongo.pool_options import PoolOptions
from pymongo.synchronous import pool

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.allowance import MOST_ITERATIONS, connected_socket
from churnguard_pipelines.errors import InvalidConfiguration

MOST_MESSAGE_BYTES = 48_000_000
"""What every MongoDB says of itself; one that says more does not get it."""
MOST_MEMBERS = 50
"""That a replica set can have; the driver keeps threads and connections for each that a server names."""


def guarded_pool(guard: AddressGuard) -> type[pool.Pool]:
    """Its connections go to addresses that the ``guard`` lets pass, whoever named the host."""

    def create(address: tuple[str, int], options: PoolOptions) -> socket.socket:
        try:
            found = guard.resolve(*address)
        except InvalidConfiguration as error:
            raise OSError(error.message) from None  # one member of a set that is out of reach
        left = _csot.remaining()
        made = connected_socket(found, address[1])
        made.settimeout(options.connect_timeout if left is None else min(left, options.connect_timeout or left))
        return made

    interface = _rebound(pool_shared._configured_socket_interface, _create_connection=create)
    connect = _rebound(pool.Pool.connect, _configured_socket_interface=interface, Connection=_Connection)
    return type("GuardedPool", (pool.Pool,), {"connect": connect})


class _Connection(pool.Connection):
    @property
    def max_message_size(self) -> int:
        return self._most

    @max_message_size.setter
    def max_message_size(self, told: int) -> None:
        self._most = min(told, MOST_MESSAGE_BYTES)

    def command(self, *asked: Any, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = super().command(*asked, **options)
        members = sum(len(answer.get(kind) or ()) for kind in ("hosts", "passives", "arbiters"))
        if members > MOST_MEMBERS:
            raise ProtocolError(f"the server names {members} members of its set")
        _check_iterations(answer.get("payload"))
        _check_iterations((answer.get("speculativeAuthenticate") or {}).get("payload"))
        return answer


def _check_iterations(payload: object) -> None:
    """``payload``: of SCRAM, such as ``r=…,s=…,i=15000``."""
    if not isinstance(payload, bytes):
        return
    for part in payload.split(b","):
        if part.startswith(b"i=") and not (part[2:].isdigit() and len(part) < 12 and int(part[2:]) <= MOST_ITERATIONS):
            raise ProtocolError("the server wants the password digested too often")


def _rebound(function: Callable[..., Any], **names: Any) -> FunctionType:
    """The function with these names of its module meaning something else."""
    assert isinstance(function, FunctionType)
    if missing := names.keys() - set(function.__code__.co_names):
        raise ImportError(f"this release of pymongo connects in another way: {function.__qualname__} has no {missing}")
    return FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
