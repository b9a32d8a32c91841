"""Reads MySQL tables in one consistent view, a range of keys at a time, as lines of COPY that the server writes."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pymysql
from pymysql.cursors import SSCursor

from churnguard_pipelines.connectors.mysql.catalog import FoundColumn, FoundTable, copy_line
from churnguard_pipelines.connectors.mysql.connection import execute, forget_rows, quoted, translated
from churnguard_pipelines.connectors.mysql.protocol import Connection
from churnguard_pipelines.connectors.mysql.view import opened_view
from churnguard_pipelines.connectors.sdk.database import OVERLAP_SECONDS, Snapshot
from churnguard_pipelines.errors import ProviderMisbehaved
from churnguard_pipelines.mirror_types import Base
from churnguard_pipelines.mirrors import Piece, SourceTable
from churnguard_pipelines.model import IntegrationConfiguration

PIECE_ROWS = 50_000
PART_ROWS, PART_BYTES = 2_000, 2**21
_MOMENTS = (Base.TIMESTAMPTZ, Base.TIMESTAMP, Base.DATE)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")


class MySQLSnapshot(Snapshot):
    """A snapshot of tables, read in ranges of keys. The marks of pieces are values of the key's leading columns, as
    text.

    ``readers``: connections inside the view, each used by one thread at a time; ``guide``: one outside of it, that
    looks where pieces end.
    """

    def __init__(
        self,
        integration: IntegrationConfiguration,
        found: Mapping[str, FoundTable],
        version: int,
        readers: Sequence[Connection],
        guide: Connection,
    ) -> None:
        self._integration = integration
        self._found = found
        self.version = version
        self._readers: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        for reader in readers:
            self._readers.put(reader)
        self._guide = guide
        self._guiding = threading.Lock()

    def pieces(self, table: SourceTable, after: object) -> Iterator[Piece]:
        found = self._found[table.object]
        begin = after if isinstance(after, list) else None
        while found.ordered:
            end = self._next_mark(found, begin)
            if end is None:
                break
            yield Piece(begin, end)
            begin = end
        yield Piece(begin, None)

    def copy(self, table: SourceTable, piece: Piece) -> Iterator[bytes]:
        found = self._found[table.object]
        conditions = []
        if piece.begin is not None:
            conditions.append(_beyond(_terms(found, piece.begin), strictly=False))
        if piece.end is not None:
            conditions.append(_before(_terms(found, piece.end)))
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        if table.keyless:
            return self._numbered(table.object, f"SELECT {found.line()} FROM {found.name}")
        index = f" FORCE INDEX ({quoted(found.index)})" if found.index and found.ordered else ""
        return self._lines(table.object, f"SELECT {found.line(str(self.version))} FROM {found.name}{index}{where}")

    def increment(self, table: SourceTable, column: str, after: str | None) -> Iterator[tuple[bytes, str | None]]:
        found = self._found[table.object]
        cursor = found.column(column)
        where = "" if after is None else f" WHERE {_since(cursor, after)}"
        newest = f"SELECT {cursor.kind.value(f'MAX({_until_now(cursor)})')} FROM {found.name}{where}"
        with self._reader() as reader, translated(self._integration):
            greatest = execute(reader, newest, scan=True)[0][0]
        greatest = None if greatest is None else str(greatest)
        for part in self._lines(table.object, f"SELECT {found.line(str(self.version))} FROM {found.name}{where}"):
            yield part, greatest

    def keys(self, table: SourceTable) -> Iterator[bytes]:
        found = self._found[table.object]
        fields = [found.column(name).kind.field(quoted(name)) for name in table.key]
        return self._lines(table.object, f"SELECT {copy_line(fields)} FROM {found.name}")

    def _next_mark(self, found: FoundTable, begin: list[str] | None) -> list[str] | None:
        listed = ", ".join(map(quoted, found.ordered))
        marks = ", ".join(_mark(found.column(name)) for name in found.ordered)
        where = "" if begin is None else f" WHERE {_beyond(_terms(found, begin), strictly=True)}"
        statement = (
            f"SELECT {marks} FROM {found.name} FORCE INDEX ({quoted(str(found.index))}){where} "
            f"ORDER BY {listed} LIMIT 1 OFFSET {PIECE_ROWS - 1}"
        )
        with self._guiding, translated(self._integration):
            rows = execute(self._guide, statement, scan=True)
        return [str(value) for value in rows[0]] if rows else None

    def _numbered(self, object: str, query: str) -> Iterator[bytes]:
        number = 0
        for lines in self._fetched(object, query):
            yield b"".join(
                b"%d\t%d\t%b" % (self.version, place, line) for place, line in enumerate(lines, number + 1)
            )  # fmt: skip
            number += len(lines)

    def _lines(self, object: str, query: str) -> Iterator[bytes]:
        for lines in self._fetched(object, query):
            yield b"".join(lines)

    def _fetched(self, object: str, query: str) -> Iterator[list[bytes]]:
        with self._reader() as reader, translated(self._integration), _streamed(reader) as cursor:
            cursor.execute(query)
            lines: list[bytes] = []
            size = 0
            while row := cursor.fetchone():
                before = len(lines)
                if row[0] is None:
                    raise self._too_long(object)
                lines += (row[0], *reader.rows_at_hand())
                size += sum(map(len, lines[before:]))
                if len(lines) >= PART_ROWS or size >= PART_BYTES:
                    yield lines
                    lines, size = [], 0
            yield lines

    def _too_long(self, object: str) -> ProviderMisbehaved:
        return ProviderMisbehaved(
            f"a row of {object} is longer than the server's max_allowed_packet and cannot be read whole.",
            integration_id=self._integration.integration_id,
            remedy="Run `SET GLOBAL max_allowed_packet = 1073741824` on the source; the next sync goes on from there.",
        )

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        reader = self._readers.get()
        try:
            yield reader
        finally:
            self._readers.put(reader)


@contextmanager
def _streamed(reader: Connection) -> Iterator[SSCursor]:
    """A cursor that takes row by row. What was not taken of its rows is read at its end: the connection is to stay in
    its view; the driver would try that even on a connection that is lost."""
    with reader.reading(row_by_row=True):
        cursor = reader.cursor(SSCursor)
        try:
            yield cursor
        finally:
            if reader.open:
                cursor.close()
            else:
                forget_rows(reader)


@contextmanager
def opened_snapshot(
    integration: IntegrationConfiguration, found: Mapping[str, FoundTable], tables: Sequence[str], *, followed: bool
) -> Iterator[MySQLSnapshot]:
    """``tables``: those that will be read. ``followed``: the version has to be exact."""
    with opened_view(integration, tables, followed=followed) as view:
        yield MySQLSnapshot(integration, found, view.version, view.readers, view.guide)


def _mark(column: FoundColumn) -> str:
    """Letters as hexadecimal digits: a checkpoint cannot hold U+0000."""
    name = quoted(column.name)
    if column.kind.orderable == "bytes":
        return f"HEX({name})"
    return f"HEX(CONVERT({name} USING utf8mb4))" if column.charset else f"CAST({name} AS CHAR)"


def _terms(found: FoundTable, marks: Sequence[str]) -> list[tuple[str, str]]:
    """(column, literal) of each mark."""
    return [(quoted(name), _literal(found.column(name), mark)) for name, mark in zip(found.ordered, marks, strict=True)]


def _literal(column: FoundColumn, mark: str) -> str:
    if column.charset or column.kind.orderable == "bytes":
        if not re.fullmatch(r"[0-9A-F]*", mark):
            raise _no_mark()
        return f"_utf8mb4 x'{mark}'" if column.charset else f"x'{mark}'"
    if column.kind.orderable == "number":
        if not _NUMBER.fullmatch(mark):
            raise _no_mark()
        return mark
    return _text(mark)


def _no_mark() -> ProviderMisbehaved:
    return ProviderMisbehaved("MySQL gave a key that is not written as its column's are.")


def _beyond(terms: Sequence[tuple[str, str]], *, strictly: bool) -> str:
    """Written so that the leading column's index serves it, which rows of values are not on every server."""
    (column, literal), *rest = terms
    if not rest:
        return f"{column} {'>' if strictly else '>='} {literal}"
    return f"({column} >= {literal} AND ({column} > {literal} OR {_beyond(rest, strictly=strictly)}))"


def _before(terms: Sequence[tuple[str, str]]) -> str:
    (column, literal), *rest = terms
    if not rest:
        return f"{column} < {literal}"
    return f"({column} <= {literal} AND ({column} < {literal} OR {_before(rest)}))"


def _since(column: FoundColumn, after: str) -> str:
    """Those without a date are null to the warehouse."""
    name = quoted(column.name)
    if column.kind.type.base not in _MOMENTS:
        since = after if column.charset is None and _NUMBER.fullmatch(after) else _text(after)
        return f"({name} >= {since} OR {name} IS NULL)"
    earliest = "1970-01-01 00:00:01" if column.data_type == "timestamp" else "0001-01-01"
    return f"({name} >= {_text(_moment(after))} OR {name} IS NULL OR {name} < {_text(earliest)})"


def _until_now(column: FoundColumn) -> str:
    """A moment that is still to come is no cursor: all that happens before it would be passed over."""
    name = quoted(column.name)
    return f"IF({name} <= NOW(6), {name}, NULL)" if column.kind.type.base in _MOMENTS else name


def _moment(after: str) -> str:
    if after.endswith(" BC"):
        return "0000-00-00"
    moment = datetime.fromisoformat(after)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    with suppress(OverflowError):  # before the year 1
        moment -= timedelta(seconds=OVERLAP_SECONDS)
    return moment.isoformat(" ")


def _text(value: Any) -> str:
    return f"'{pymysql.converters.escape_string(str(value))}'"
