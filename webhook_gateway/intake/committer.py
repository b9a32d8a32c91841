"""Group commit: events of many requests in one transaction, and no request answered before its commit."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import psycopg

from webhook_gateway.intake.inbox_writer import InboxWriter, Row
from webhook_gateway.intake.metrics import COMMITS
from webhook_gateway.intake.notifier import Notifier

# In one transaction: of all, of an organization that waits alone, of one among others. A large request is stored over
# several transactions: those who wait beside it wait for a small one.
MOST_EVENTS, MOST_ALONE, MOST_AMONG_OTHERS = 1_000, 128, 32
MOST_BYTES = 4 * 1024 * 1024
# Waiting: of all, of one organization.
MOST_WAITING, MOST_WAITING_OF_ONE = 100_000, 20_000
MOST_WAITING_BYTES, MOST_WAITING_BYTES_OF_ONE = 32 * 1024 * 1024, 8 * 1024 * 1024
COMMIT_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0

_log = logging.getLogger(__name__)


class CannotStore(Exception):
    """Not all of the request is known to be stored; it is to be delivered again. Then what is stored is known."""


class Unstorable(Exception):
    """Some of this request's events can never be stored."""


class _Held:
    """What of one organization, or of all, waits."""

    __slots__ = ("events", "size")

    def __init__(self) -> None:
        self.events = self.size = 0


class _Request:
    """``size``: of its payloads; ``stored``: how many of its rows are; ``fresh``: how many of these were new."""

    __slots__ = ("done", "ended", "fresh", "held", "rows", "size", "stored")

    def __init__(self, rows: Sequence[Row], held: _Held, done: asyncio.Future[int]) -> None:
        self.rows, self.held, self.done = rows, held, done
        self.size = _size(rows)
        self.stored = self.fresh = 0
        self.ended = False


class _Part(NamedTuple):
    request: _Request
    rows: Sequence[Row]


class Committer:
    """One connection, one transaction after the other; what comes meanwhile is the next one's. Every organization, and
    every request of it, has a piece in it before anybody has a second one."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._notifier = Notifier(database_url)
        self._queues: dict[str, deque[_Request]] = {}
        self._held: dict[str, _Held] = {}
        self._all = _Held()
        self._wake = asyncio.Event()
        self._writer: InboxWriter | None = None
        self.available = False
        """Whether the last transaction committed."""

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """Asked for once: each time it costs a call of the system."""
        return asyncio.get_running_loop()

    @property
    def held(self) -> int:
        """Events that wait to be stored."""
        return self._all.events

    def store(self, rows: Sequence[Row]) -> asyncio.Future[int]:
        """All of one organization. Returns, after the last of them is committed, how many of the events were new.
        Raises ``CannotStore``, ``Unstorable``."""
        organization_id = rows[0][0] if rows else ""
        held = self._held.get(organization_id) or self._held.setdefault(organization_id, _Held())
        request = _Request(rows, held, self._loop.create_future())
        # An organization that waits for nothing always has room: the others do not keep it out.
        crowded = self._all.events >= MOST_WAITING or self._all.size >= MOST_WAITING_BYTES
        if held.events and (crowded or held.events >= MOST_WAITING_OF_ONE or held.size >= MOST_WAITING_BYTES_OF_ONE):
            request.done.set_exception(CannotStore())
            return request.done
        self._queues.setdefault(organization_id, deque()).append(request)
        for one in (held, self._all):
            one.events += len(rows)
            one.size += request.size
        self._wake.set()
        return request.done

    def _end(self, request: _Request, error: Exception | None = None) -> None:
        """It waits no more, whether somebody still waits for it or not."""
        if request.ended:
            return
        request.ended = True
        for one in (request.held, self._all):
            one.events -= len(request.rows)
            one.size -= request.size
        if not request.held.events:
            self._held.pop(request.rows[0][0] if request.rows else "", None)
        if request.done.done():
            return
        if error is not None:
            request.done.set_exception(error)
        else:
            request.done.set_result(request.fresh)

    async def work(self) -> None:
        """Returns never."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._notifier.work())
            group.create_task(self._commit_all())

    async def _commit_all(self) -> None:
        pause = FIRST_PAUSE
        parts: list[_Part] = []
        try:
            while True:
                if not self._queues:
                    self._wake.clear()
                    await self._wake.wait()
                parts = self._next()
                self.available = await self._together(parts) or await self._one_by_one(parts)
                if self.available:
                    pause = FIRST_PAUSE
                else:
                    # Whoever comes meanwhile hears at once that it cannot be: nobody waits for a database that is away.
                    await self._refuse_for(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            self._fail(parts, CannotStore())  # whoever was being stored
            self._refuse_all()
            await self._disconnect()

    async def _together(self, parts: Sequence[_Part]) -> bool:
        """Whether all were stored in one transaction."""
        try:
            with COMMITS.time():
                await self._commit(parts)
        except psycopg.DataError:
            return False
        except Exception as error:
            _log.warning("webhooks cannot be stored: %s", error or type(error).__name__)
            await self._disconnect()
            return False
        return True

    async def _one_by_one(self, parts: Sequence[_Part]) -> bool:
        """What stopped all together may be the matter of one: its content, or what it waits for. False if two after
        each other cannot be stored, or the only one: then it is the database's, and the rest is refused, too."""
        failed = 0
        for part in parts:
            try:
                await self._commit([part])
                failed = 0
            except psycopg.DataError:
                self._fail([part], Unstorable())
                failed = 0
            except Exception as error:
                _log.warning("webhooks cannot be stored: %s", error or type(error).__name__)
                self._fail([part], CannotStore())
                await self._disconnect()
                failed += 1
                if failed == min(2, len(parts)):
                    self._fail(parts, CannotStore())
                    return False
        return True

    def _next(self) -> list[_Part]:
        parts: list[_Part] = []
        events = size = 0
        organizations = list(self._queues)
        most_of_one = MOST_ALONE if len(organizations) == 1 else MOST_AMONG_OTHERS
        for organization_id in organizations:
            if events >= MOST_EVENTS or size >= MOST_BYTES:
                break
            queue, unfinished = self._queues.pop(organization_id), deque[_Request]()
            most = events + most_of_one
            while queue and events < most and size < MOST_BYTES:
                request = queue.popleft()
                if request.ended:
                    continue  # an earlier part of it failed
                rows = request.rows
                if len(rows) > MOST_AMONG_OTHERS:
                    rows = rows[request.stored : request.stored + MOST_AMONG_OTHERS]
                parts.append(_Part(request, rows))
                events += len(rows)
                size += request.size if len(rows) == len(request.rows) else _size(rows)
                if request.stored + len(rows) < len(request.rows):
                    unfinished.append(request)
            queue.extend(unfinished)
            if queue:
                self._queues[organization_id] = queue  # behind everybody else's
        return parts

    async def _commit(self, parts: Sequence[_Part]) -> None:
        brought: dict[tuple[str, str, str], tuple[int, Row]] = {}  # each event once, by the first part that has it
        fresh: list[int] = []
        for place, (_, rows) in enumerate(parts):
            before = len(brought)
            for row in rows:
                brought.setdefault((row[0], row[1], row[4]), (place, row))
            fresh.append(len(brought) - before)
        async with asyncio.timeout(COMMIT_SECONDS):
            writer = await self._connected()
            for known in await writer.take([row for _, row in brought.values()]):
                fresh[brought.pop(known)[0]] -= 1
        if brought:
            self._notifier.tell({row[2] for _, row in brought.values()})
        for (request, rows), new in zip(parts, fresh, strict=True):
            request.fresh += new
            request.stored += len(rows)
            if request.stored == len(request.rows):
                self._end(request)

    async def _connected(self) -> InboxWriter:
        if self._writer is None or self._writer.closed:
            await self._disconnect()
            self._writer = await InboxWriter.connect(self._url, COMMIT_SECONDS)
        return self._writer

    async def _disconnect(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.close()

    def _fail(self, parts: Sequence[_Part], error: Exception) -> None:
        for request, _ in parts:
            self._end(request, error)

    async def _refuse_for(self, seconds: float) -> None:
        until = self._loop.time() + seconds
        while (left := until - self._loop.time()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._refuse_all()

    def _refuse_all(self) -> None:
        while self._queues:
            self._fail(self._next(), CannotStore())


def _size(rows: Sequence[Row]) -> int:
    return sum([len(row[7]) for row in rows])
