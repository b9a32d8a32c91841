"""The one statement that stores deliveries, with as little as there can be between the loop and libpq.

A commit of some thirty events takes psycopg's cursors about 400 µs of the loop's time, arrays of texts most of it, and
this 120. All else, connecting and what errors are called, is psycopg's.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Self, cast

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from churnguard_pipelines.store.ingest.inbox import TAKE
from churnguard_pipelines.store.postgres.row_security import OPERATOR

Row = tuple[str, str, str, str, str, str, str, str]
"""Organization, provider, integration, endpoint, event id, event type, entity, payload."""
Known = tuple[str, str, str]
"""Organization, provider, event id."""

CONNECT_SECONDS = 5
_NAME = b"take"
_BEGIN, *_AFTER = TAKE.split("%b")
_STATEMENT = "".join([_BEGIN, *(f"${number}{text}" for number, text in enumerate(_AFTER, 1))]).encode()
_COLUMNS = len(_AFTER)
_BINARY = [pq.Format.BINARY] * _COLUMNS
# Of an array in binary form: one dimension, no nulls, its elements' type, how many there are, the first one's place.
_ARRAY = struct.Struct("!iiIii")
_TEXT = psycopg.postgres.types["text"].oid
_LENGTH = struct.Struct("!I")


class InboxWriter:
    """One connection. It is of no use any more after somebody gave up waiting for it."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._socket = connection.pgconn.socket
        self._loop = asyncio.get_running_loop()
        self._watched = False
        self._has_room = True
        self._answered: asyncio.Future[None] | None = None
        self._results: list[pq.abc.PGresult] = []

    @classmethod
    async def connect(cls, database_url: str, statement_seconds: float) -> Self:
        """Raises ``psycopg.Error``."""
        connection = await psycopg.AsyncConnection.connect(
            database_url, autocommit=True, connect_timeout=CONNECT_SECONDS
        )
        made = cls(connection)
        try:
            await connection.execute(f"SET ROLE {OPERATOR}")
            await connection.execute(f"SET statement_timeout = {int(statement_seconds * 1000)}")
            await connection.execute("SET synchronous_commit = on")  # a 2xx means that it is on disk
            made._libpq.nonblocking = 1
            made._loop.add_reader(made._socket, made._hear)
            made._watched = True
            made._libpq.send_prepare(_NAME, _STATEMENT)
            await made._answer()
        except BaseException:
            await made.close()
            raise
        return made

    async def take(self, rows: Sequence[Row]) -> list[Known]:
        """Store them in one transaction; returns those that were known. Raises ``psycopg.Error``: ``DataError`` for
        what can never be stored."""
        columns = zip(*rows, strict=True) if rows else [()] * _COLUMNS
        self._libpq.send_query_prepared(_NAME, [_array(column) for column in columns], _BINARY)
        result = await self._answer()
        return [
            cast("Known", tuple((result.get_value(row, column) or b"").decode() for column in range(3)))
            for row in range(result.ntuples)
        ]

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._connection.closed

    async def close(self) -> None:
        self._leave()
        await self._connection.close()

    async def _answer(self) -> pq.abc.PGresult:
        self._results = []
        self._answered = self._loop.create_future()
        self._say()
        await self._answered
        for result in self._results:
            if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                raise error_from_result(result, "utf-8")
        return self._results[0]

    def _say(self) -> None:
        """As much as there is room for, and the rest when there is."""
        try:
            had_room, self._has_room = self._has_room, not self._libpq.flush()
            if had_room and not self._has_room:
                self._loop.add_writer(self._socket, self._say)
            elif self._has_room and not had_room:
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._break(error)

    def _hear(self) -> None:
        try:
            self._libpq.consume_input()
            while not self._libpq.is_busy():
                result = self._libpq.get_result()
                if result is None:
                    if self.closed:  # by libpq itself, which could not make sense of what came
                        self._leave()
                    if self._answered is not None and not self._answered.done():
                        self._answered.set_result(None)
                    return
                self._results.append(result)
        except psycopg.Error as error:
            self._break(error)

    def _break(self, error: psycopg.Error) -> None:
        self._leave()
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)

    def _leave(self) -> None:
        """libpq has closed the socket, or is about to: from then on its number is somebody else's."""
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)


def _array(texts: Iterable[str]) -> bytes:
    """As ``text[]`` arrives in binary form. Raises ``psycopg.DataError`` for what is no UTF-8."""
    try:
        encoded = [text.encode() for text in texts]
    except UnicodeEncodeError as error:
        raise psycopg.DataError(error.reason) from None
    parts = [_ARRAY.pack(1, 0, _TEXT, len(encoded), 1)]
    for each in encoded:
        parts += (_LENGTH.pack(len(each)), each)
    return b"".join(parts)
