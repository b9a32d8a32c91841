"""Group commit: events of many requests in one transaction, and no request answered before its commit."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import psycopg

from churnguard_pipelines.store.inbox import TAKE
from churnguard_pipelines.store.row_security import OPERATOR

MOST_EVENTS = 1_000  # in one transaction
MOST_WAITING = 20_000
MOST_WAITING_BYTES = 64 * 1024 * 1024
COMMIT_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0

Row = tuple[str, str, str, str, str, str, str, str]
"""Organization, provider, integration, endpoint, event id, event type, entity, payload."""

_log = logging.getLogger(__name__)


class CannotStore(Exception):
    """Nothing of the request is known to be stored; it is to be delivered again."""


class Unstorable(Exception):
    """This request's events can never be stored."""


class _Request:
    __slots__ = ("fresh", "rows", "size")

    def __init__(self, rows: Sequence[Row], fresh: asyncio.Future[int]) -> None:
        self.rows = rows
        self.fresh = fresh
        self.size = sum(len(row[7]) for row in rows)


class Committer:
    """One connection, one transaction after the other; what comes meanwhile is the next one's."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._waiting: deque[_Request] = deque()
        self._events = 0
        self._bytes = 0
        self._wake = asyncio.Event()
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self.available = False
        """Whether the last transaction committed."""

    async def store(self, rows: Sequence[Row]) -> int:
        """Returns, after the commit, how many of the events were new. Raises ``CannotStore``, ``Unstorable``."""
        if self._events >= MOST_WAITING or self._bytes >= MOST_WAITING_BYTES:
            raise CannotStore
        request = _Request(rows, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._events += len(rows)
        self._bytes += request.size
        self._wake.set()
        return await request.fresh

    async def work(self) -> None:
        """Returns never."""
        pause = FIRST_PAUSE
        try:
            while True:
                if not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                requests = self._next()
                try:
                    await self._commit(requests)
                    pause = FIRST_PAUSE
                    self.available = True
                except psycopg.DataError:
                    for request in requests:
                        await self._commit_alone(request)
                except Exception as error:
                    self.available = False
                    _log.warning("webhooks cannot be stored: %s", error)
                    _fail(requests, CannotStore())
                    await self._disconnect()
                    # Whoever comes meanwhile hears at once that it cannot be: nobody waits for a database that is away.
                    await self._refuse_for(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            _fail(self._waiting, CannotStore())
            await self._disconnect()

    def _next(self) -> list[_Request]:
        requests, events = [], 0
        while self._waiting and events < MOST_EVENTS:
            request = self._waiting.popleft()
            requests.append(request)
            events += len(request.rows)
            self._bytes -= request.size
        self._events -= events
        return requests

    async def _commit(self, requests: Sequence[_Request]) -> None:
        unique: dict[tuple[str, str, str], Row] = {}
        for request in requests:
            for row in request.rows:
                unique.setdefault((row[0], row[1], row[4]), row)
        async with asyncio.timeout(COMMIT_SECONDS):
            connection = await self._connected()
            columns = [list(column) for column in zip(*unique.values(), strict=True)] or [[]] * 8
            cursor = await connection.execute(TAKE, columns, prepare=True)
            fresh = set(await cursor.fetchall())
        for request in requests:
            # Of one event in several requests the first one brought it.
            brought = {key for row in request.rows if (key := (row[0], row[1], row[4])) in fresh}
            fresh -= brought
            if not request.fresh.done():
                request.fresh.set_result(len(brought))

    async def _commit_alone(self, request: _Request) -> None:
        try:
            await self._commit([request])
        except psycopg.DataError:
            _fail([request], Unstorable())

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True, connect_timeout=5)
            await self._connection.execute(f"SET ROLE {OPERATOR}")
            await self._connection.execute(f"SET statement_timeout = {int(COMMIT_SECONDS * 1000)}")
            await self._connection.execute("SET synchronous_commit = on")  # a 2xx means that it is on disk
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _refuse_for(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                pass
            while self._waiting:
                _fail(self._next(), CannotStore())


def _fail(requests: Sequence[_Request] | deque[_Request], error: Exception) -> None:
    for request in requests:
        if not request.fresh.done():
            request.fresh.set_exception(error)
