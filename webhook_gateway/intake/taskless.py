"""Coroutines that wait for futures only need no task."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class Taskless(Generic[Made]):
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
