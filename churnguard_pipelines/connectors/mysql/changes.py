"""Follows a MySQL or MariaDB database by its binary log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from churnguard_pipelines.connectors.mysql import events
from churnguard_pipelines.connectors.mysql.catalog import FoundTable, find_tables, is_mariadb
from churnguard_pipelines.connectors.mysql.charsets import Charsets
from churnguard_pipelines.connectors.mysql.connection import connect, server_of_mysql, translated
from churnguard_pipelines.connectors.mysql.ddl import Statement, understood
from churnguard_pipelines.connectors.mysql.events import Event, TableMap
from churnguard_pipelines.connectors.mysql.followed import Followed, Outdated, Unfollowable, layout
from churnguard_pipelines.connectors.mysql.position import BinlogPosition, variables
from churnguard_pipelines.connectors.mysql.start import lost, reading
from churnguard_pipelines.connectors.mysql.stream import BinlogStream
from churnguard_pipelines.connectors.sdk.database import ChangeLog
from churnguard_pipelines.connectors.sdk.gathering import LULL, Gathering
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.mirrors import Change, ChangeBatch, SourceTable
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Position

GONE = "it is gone, or may not be read any more."


class MySQLChanges(ChangeLog):
    """The change log of a MySQL or MariaDB server. The position: ``file`` and ``position`` after the last whole
    transaction, ``created``: when the server began that file (another file of the same name is another log),
    ``moment``: of the last event before it, both in seconds."""

    def __init__(
        self, integration: IntegrationConfiguration, tables: Sequence[SourceTable], position: Position
    ) -> None:
        self._integration = integration
        self._tables = {table.object: table for table in tables}
        self._database = server_of_mysql(integration).database
        self._at = BinlogPosition(position["file"], position["position"])
        self._created: int | None = position.get("created")
        self._moment: int = position.get("moment", 0)
        self._file = self._at.file
        self._maps: dict[int, tuple[bytes, Followed | None]] = {}
        self._version = 0
        self._in_transaction = False
        self._gathering = Gathering()
        self._touched: set[str] = set()
        self._committed_at: datetime | None = None
        self._side = connect(integration)  # for questions about tables
        self._mariadb = is_mariadb(self._side)
        try:
            with reading(integration, self._at):
                self._found: Mapping[str, FoundTable] = find_tables(self._side, self._database)
                self._charsets = Charsets(self._side)
                folded = variables(self._side, "lower_case_table_names").get("lower_case_table_names", "0")
                self._fold = folded != "0"
                self._stream = BinlogStream(integration, self._at)
        except BaseException:
            self._side.close()
            raise

    def read(self, timeout: float) -> ChangeBatch | None:
        with reading(self._integration, self._at):
            return self._read(timeout)

    def _read(self, timeout: float) -> ChangeBatch | None:
        deadline = time.monotonic() + timeout
        gathering, before = self._gathering, self._at
        gathering.begin()
        while True:
            event = self._stream.next()
            if event is None:
                if gathering.whole:
                    if self._stream.wait(LULL):
                        continue
                    return self._batch()
                if not gathering.changes and self._at != before:
                    return ChangeBatch(self._position())
                if (left := deadline - time.monotonic()) <= 0:
                    return self._batch() if gathering.changes else None
                self._stream.wait(left)
                continue
            gathering.changes.extend(self._taken(event))
            if gathering.came(len(event.body), ended=not self._in_transaction):
                return self._batch()

    def confirm(self, position: Position) -> None:
        """The server keeps its log by its own rules."""

    def close(self) -> None:
        self._side.close()
        self._stream.close()

    def _batch(self) -> ChangeBatch:
        changes, whole = self._gathering.take()
        return ChangeBatch(self._position(), changes, whole, self._committed_at)

    def _position(self) -> Position:
        return {
            "file": self._at.file, "position": self._at.position, "created": self._created, "moment": self._moment,
        }  # fmt: skip

    def _taken(self, event: Event) -> Iterator[Change]:
        kind = event.kind
        if kind in events.ROWS:
            yield from self._rows(event)
        elif kind == events.TABLE_MAP:
            yield from self._meet(event.body)
        elif kind in events.GTIDS:
            self._begin(event)
        elif kind == events.XID:
            self._commit(event)
        elif kind in (events.QUERY, events.QUERY_COMPRESSED, events.LOAD):
            yield from self._query(event)
        elif kind == events.ROTATE:
            self._rotate(event)
        elif kind == events.FORMAT:
            self._open(event)
        elif kind == events.XA_PREPARE:
            yield from self._look_again(self._touched, "a transaction of two phases (XA) wrote to it")
            self._commit(event)
        elif kind == events.PARTIAL_UPDATE:
            raise self._unreadable()

    def _begin(self, event: Event) -> None:
        self._version = BinlogPosition(self._file, event.end).version
        self._in_transaction = True
        self._touched = set()

    def _commit(self, event: Event) -> None:
        self._in_transaction = False
        self._at = BinlogPosition(self._file, event.end)
        self._moment = event.moment
        self._committed_at = datetime.fromtimestamp(event.moment, UTC)

    def _rotate(self, event: Event) -> None:
        """The server tells a file's name before each, and the next one's at the end of each."""
        file, position = events.rotation(event.body)
        if file != self._file:
            self._file, self._at = file, BinlogPosition(file, position)

    def _open(self, event: Event) -> None:
        """Of a new file, or of the one that we go on in. A server that was restarted gives tables new numbers."""
        if self._at.position > 4 and self._created not in (None, event.moment):
            raise self._another_log()
        self._created = event.moment
        self._maps.clear()

    def _query(self, event: Event) -> Iterator[Change]:
        schema, text = events.query(event)
        statement = understood(text, schema)
        if statement is not None and statement.what == "begin":
            if not self._in_transaction:
                self._begin(event)
            return
        if statement is not None:
            yield from self._effect(statement)
        if statement is None or statement.what not in ("savepoint", "rows", "unclear") or not self._in_transaction:
            self._commit(event)

    def _effect(self, statement: Statement) -> Iterator[Change]:
        what = statement.what
        named = self._followed(statement)
        if what == "truncate":
            yield from (Change(name, "truncate", self._version) for name in named)
        elif what == "alter":
            yield from self._look_again(named)
        elif what == "rewrite":
            yield from self._look_again(named, "an ALTER TABLE may have changed values or moved rows of it")
        elif what in ("drop", "drop database"):
            yield from self._look_again(named, "it was dropped")
        elif what == "rename":
            yield from self._look_again(named, "it was renamed, or another table took its name")
        elif what == "rollback":
            yield from self._look_again(self._touched, "a transaction that wrote to it was rolled back in part")
        elif what == "unclear":
            yield from self._look_again(self._tables, "a statement in the log does not tell what it did to which table")
        elif what == "rows":
            yield from self._look_again(named, "a statement that changes rows was logged without them: let "
                                        "binlog_format be ROW for every session")  # fmt: skip

    def _followed(self, statement: Statement) -> list[str]:
        if statement.what == "drop database":
            return list(self._tables) if self._same(statement.database, self._database) else []
        folded = str.lower if self._fold else str
        named = {folded(table) for database, table in statement.tables if self._same(database, self._database)}
        return [name for name in self._tables if folded(name) in named]

    def _same(self, one: str, other: str) -> bool:
        return one == other or (self._fold and one.lower() == other.lower())

    def _meet(self, body: bytes) -> Iterator[Change]:
        """How the rows look that follow; the table may have changed since we knew it."""
        number = events.table_id(body)
        known = self._maps.get(number)
        if known is not None and known[0] == body:
            return
        map = events.table_map(body, mariadb=self._mariadb)
        followed = None
        if self._same(map.schema, self._database) and map.table in self._tables:
            try:
                followed = self._layout(map)
            except Unfollowable as reason:
                yield self._stopped(map.table, str(reason))
            except Outdated as reason:
                yield self._altered(self._found[map.table].table, str(reason))
        self._maps[number] = body, followed
        if followed is not None:
            yield from self._now_looks(followed.table)

    def _layout(self, map: TableMap) -> Followed:
        """Raises ``Unfollowable``, ``Outdated``."""
        followed = None
        with translated(self._integration):
            if map.table in self._found:
                followed = layout(map, self._found[map.table], self._charsets)
            if followed is None:
                self._read_again(map.table)
                if map.table not in self._found:
                    raise Unfollowable(GONE)
                followed = layout(map, self._found[map.table], self._charsets, surely=True)
        assert followed is not None, "surely"
        return followed

    def _look_again(self, names: Iterable[str], reason: str | None = None) -> Iterator[Change]:
        """After an ALTER, or whatever else. It may have been altered once more since: the rows that follow will tell.

        ``reason``: why the log does not tell what became of the rows.
        """
        self._maps.clear()
        for name in sorted(names):
            if name not in self._tables:
                continue
            self._read_again(name)
            found = self._found.get(name)
            if found is None:
                yield self._stopped(name, GONE)
            elif found.unfollowable:
                yield self._stopped(name, found.unfollowable)
            elif found.table.key != self._tables[name].key:
                yield self._stopped(name, "its key was changed.")
            elif reason is not None:
                yield self._altered(found.table, reason)
            else:
                yield from self._now_looks(found.table)

    def _now_looks(self, table: SourceTable) -> Iterator[Change]:
        if table.columns != self._tables[table.object].columns:
            yield self._altered(table)

    def _altered(self, table: SourceTable, reason: str | None = None) -> Change:
        self._tables[table.object] = table
        return Change(table.object, "altered", self._version, table=table, reason=reason)

    def _read_again(self, name: str) -> None:
        with translated(self._integration):
            found = find_tables(self._side, self._database, only=name)
        self._found = {each: table for each, table in self._found.items() if each != name} | found

    def _rows(self, event: Event) -> Iterator[Change]:
        known = self._maps.get(events.table_id(event.body))
        followed = known[1] if known is not None else None
        if followed is None or followed.table.object not in self._tables:
            return
        self._touched.add(followed.table.object)
        try:
            yield from followed.changes(event, self._version)
        except Unfollowable as reason:
            yield self._stopped(followed.table.object, str(reason))

    def _stopped(self, name: str, reason: str) -> Change:
        """From now on nothing of it is handed out, until a sync reads it anew."""
        del self._tables[name]
        return Change(name, "stopped", self._version, reason=reason)

    def _another_log(self) -> Exception:
        return lost(self._integration, f"the server's binary log {self._file} is not the one that we read in")

    def _unreadable(self) -> InvalidConfiguration:
        name = self._integration.integration_id
        return InvalidConfiguration(
            "the binary log holds rows with parts of JSON documents, which cannot be read.",
            integration_id=name,
            remedy=f"Run `SET GLOBAL binlog_row_value_options = ''`, then `churnguard integrations reset {name}`.",
        )
