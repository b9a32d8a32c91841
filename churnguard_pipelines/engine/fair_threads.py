"""A thread pool that is shared out fairly among organizations, for work that waits for somebody else's machine."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from churnguard_pipelines.engine.sharing import fair_share
from churnguard_pipelines.errors import TooBusy

Answer = TypeVar("Answer")
Item = TypeVar("Item")


def in_thread(name: str, work: Callable[[], Answer]) -> Future[Answer]:
    """Does it in a thread that nothing joins: the process ends although it hangs, as it would not with a pool's."""
    future: Future[Answer] = Future()
    future.set_running_or_notify_cancel()
    target = copy_context().run  # what is logged and traced there belongs to what this thread works on
    threading.Thread(target=target, args=[_settle, future, work], name=name, daemon=True).start()
    return future


def _settle(future: Future[Answer], work: Callable[[], Answer]) -> None:
    try:
        answer = work()
    except BaseException as error:
        future.set_exception(error)
        del future, work  # the error has this frame: what they hold, such as a connection, would be garbage in a circle
    else:
        future.set_result(answer)


@dataclass(frozen=True, slots=True)
class _Job:
    organization_id: str
    work: Callable[[], Any]
    future: Future[Any]


class FairThreads:
    """Does work in threads of its own, ``most`` at once and ``most_each`` for an organization; the rest waits, and
    whoever has the fewest at work comes next.

    Work that hangs keeps its place, so that an organization's silent sources cost nobody else anything: it gets no
    place more than are left for others then, or a few such organizations would have them all. Nothing joins these
    threads.
    """

    def __init__(self, name: str, most: int, most_each: int) -> None:
        self._name, self._most, self._most_each = name, most, most_each
        self._waiting: dict[str, deque[_Job]] = {}  # by organization; who was served last is at the end
        self._busy: Counter[str] = Counter()
        self._lock = threading.Lock()

    def submit(self, organization_id: str, work: Callable[[], Answer]) -> Future[Answer]:
        """The future can be cancelled until its work begins."""
        job = _Job(organization_id, partial(copy_context().run, work), Future())
        with self._lock:
            self._waiting.setdefault(organization_id, deque()).append(job)
        self._begin_next()
        return job.future

    def refuse_if_full(self, organization_id: str) -> None:
        """Raises ``TooBusy`` if what is submitted now would have to wait for work that may hang."""
        with self._lock:
            own, most_each = self._busy[organization_id], self._most_each_now()
        if not most_each:
            raise TooBusy("too many sources are being asked that have not answered yet.", remedy="Try again.")
        if own >= most_each:
            raise TooBusy(
                f"{own} of the organization's sources are being asked and have not answered yet.",
                remedy="Wait until they have, or pause those that never do.",
            )

    def _begin_next(self) -> None:
        unbegun: list[tuple[_Job, RuntimeError]] = []
        with self._lock:
            while (job := self._next()) is not None:
                try:
                    in_thread(self._name, partial(self._do, job))
                except RuntimeError as error:  # the machine gives no more threads
                    unbegun.append((job, error))
                else:
                    self._busy[job.organization_id] += 1
        for job, problem in unbegun:
            job.future.set_exception(problem)

    def _next(self) -> _Job | None:
        while (queue := self._next_queue()) is not None:
            job = queue.popleft()
            del self._waiting[job.organization_id]
            if queue:
                self._waiting[job.organization_id] = queue
            if job.future.set_running_or_notify_cancel():
                return job
        return None

    def _next_queue(self) -> deque[_Job] | None:
        names = fair_share(self._waiting, str, 1, most_each=self._most_each_now(), held=self._busy)
        return self._waiting[names[0]] if names else None

    def _most_each_now(self) -> int:
        return min(self._most_each, self._most - self._busy.total())

    def _do(self, job: _Job) -> None:
        done: Future[Any] = Future()
        _settle(done, job.work)
        self._leave(job)  # before anybody learns of it, so that its place is free for them
        if (error := done.exception()) is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(done.result())

    def _leave(self, job: _Job) -> None:
        with self._lock:
            self._busy[job.organization_id] -= 1
            if not self._busy[job.organization_id]:
                del self._busy[job.organization_id]
        self._begin_next()


def map_in_threads(name: str, most: int, work: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """The answers in the order of the items, ``most`` at work at once. What the first one raises ends it."""
    threads = FairThreads(name, 2 * most, most)  # the other half is for others, of which there are none
    futures = [threads.submit(name, partial(work, item)) for item in items]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()
