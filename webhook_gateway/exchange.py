"""A small request that has arrived as a whole, answered past ASGI.

What a delivery costs is mostly what surrounds it: a task, messages, middleware. An :class:`Exchange` has none of that.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Generic, NamedTuple, TypeVar

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

Made = TypeVar("Made")


class Reply(NamedTuple):
    """``close``: the connection ends with it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    close: bool = False


class Exchange:
    """``scope``: ASGI's, as it came, whatever a proxy said of the client."""

    __slots__ = ("_cycle", "body", "scope")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self.scope: Mapping[str, Any] = cycle.scope
        self.body = bytes(cycle.body)

    def answer(self, reply: Reply) -> None:
        cycle = self._cycle
        cycle.response_started = cycle.response_complete = True
        if cycle.disconnected:
            return
        close = reply.close or not cycle.keep_alive
        cycle.transport.write(_in_bytes(reply._replace(close=True) if close else reply))
        if close:
            cycle.transport.close()
        cycle.on_response()


class Running(Generic[Made]):
    """``work``, run at once up to the first future that it waits for, and on from there when that has ended; then
    ``done`` is told its result. It may wait for futures only, not for what needs a task around it, such as
    ``asyncio.timeout``, and raises nothing."""

    __slots__ = ("_done", "_work")

    def __init__(self, work: Coroutine[Future[Any], None, Made], done: Callable[[Made], None]) -> None:
        self._work, self._done = work, done
        self._go_on()

    def _go_on(self, _: object = None) -> None:
        try:
            waited_for = self._work.send(None)
        except StopIteration as ended:
            self._done(ended.value)
        else:
            waited_for._asyncio_future_blocking = False  # what a task says of a future that it has taken over
            waited_for.add_done_callback(self._go_on)


@lru_cache(maxsize=256)
def _in_bytes(reply: Reply) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}".encode()]
    lines += [name + b": " + value for name, value in reply.headers]
    lines += [b"connection: close"] if reply.close else []
    return b"\r\n".join([*lines, b"", reply.body])
