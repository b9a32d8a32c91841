"""Large bodies are verified and read beside the loop, one at a time, and everybody's turn comes round."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from webhook_gateway.limits import Shares

MOST_BYTES = 8 * 1024 * 1024
Made = TypeVar("Made")


class Busy(Exception):
    """Too much waits already, most of it of the same owner."""


class _Job:
    __slots__ = ("done", "owner", "work")

    def __init__(self, owner: str, work: Callable[[], Any]) -> None:
        self.owner, self.work = owner, work
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class LargeBodies:
    """One thread: Python would not run a second one at the same time, and each keeps memory of its own."""

    def __init__(self, most_of_one: int) -> None:
        self._held: Shares[_Job] = Shares(max(MOST_BYTES, 4 * most_of_one))
        self._queues: dict[str, deque[_Job]] = {}
        self._wake = asyncio.Event()

    async def run(self, owner: str, size: int, work: Callable[[], Made]) -> Made:
        """What ``work`` returns or raises; ``size``: bytes it keeps in memory until then. Raises ``Busy``."""
        job = _Job(owner, work)
        self._queues.setdefault(owner, deque()).append(job)
        for other in self._held.add(owner, job, size):
            self._queues[other.owner].remove(other)
            other.done.set_exception(Busy())
        self._wake.set()
        made: Made = await job.done
        return made

    async def work(self) -> None:
        """Returns never."""
        loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, "large-bodies")
        while True:
            job = self._next()
            if job is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                made = await loop.run_in_executor(thread, job.work)
            except Exception as error:
                job.done.set_exception(error)
            else:
                job.done.set_result(made)

    def _next(self) -> _Job | None:
        while self._queues:
            owner = next(iter(self._queues))
            queue = self._queues.pop(owner)
            if queue:
                job = queue.popleft()
                self._held.remove(owner, job)
                if queue:
                    self._queues[owner] = queue  # behind everybody else's
                return job
        return None
