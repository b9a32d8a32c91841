"""Reads PostgreSQL tables in one exported snapshot, a range of pages at a time, in the bytes of a binary COPY."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from churnguard_pipelines.connectors.database import OVERLAP_SECONDS, Snapshot
from churnguard_pipelines.connectors.postgresql_catalog import FoundTable
from churnguard_pipelines.connectors.postgresql_connection import Connection, connect, translated
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import Piece, SourceTable
from churnguard_pipelines.model import IntegrationConfiguration

PIECE_BYTES = 16 * 2**20
PART_BYTES = 2**18
_MOMENTS = tuple(map(MirrorType, (Base.TIMESTAMPTZ, Base.TIMESTAMP, Base.DATE)))


class PostgreSQLSnapshot(Snapshot):
    """The marks of pieces are ``[leaf, page]``: the number of the partition that holds the rows, and of its page."""

    def __init__(
        self, integration: IntegrationConfiguration, found: Mapping[str, FoundTable], version: int, name: str
    ) -> None:
        self._integration = integration
        self._found = found
        self.version = version
        self._name = name
        self._own = threading.local()
        self._lock = threading.Lock()
        self._connections: list[Connection] = []

    def pieces(self, table: SourceTable, after: object) -> Iterator[Piece]:
        found = self._found[table.object]
        leaf, page = after if isinstance(after, list) else (0, 0)
        begin = [leaf, page]
        while leaf < len(found.leaves):
            pages, per_piece = self._pages(found.leaves[leaf])
            while page + per_piece < pages:
                page += per_piece
                yield Piece(begin, [leaf, page])
                begin = [leaf, page]
            leaf, page = leaf + 1, 0
            end = [leaf, page] if leaf < len(found.leaves) else None
            yield Piece(begin, end)
            begin = [leaf, page]

    def copy(self, table: SourceTable, piece: Piece) -> Iterator[bytes]:
        found = self._found[table.object]
        leaf, first = piece.begin
        where = SQL("ctid >= {}::tid").format(Literal(f"({first},0)"))
        if piece.end is not None and piece.end[0] == leaf:
            where = where + SQL(" AND ctid < {}::tid").format(Literal(f"({piece.end[1]},0)"))
        query = SQL("SELECT {} FROM ONLY {} WHERE ").format(
            found.selected(self.version, leaf), Identifier(*found.leaves[leaf])
        )
        return self._copied(query + where)

    def increment(self, table: SourceTable, column: str, after: str | None) -> Iterator[tuple[bytes, str | None]]:
        found = self._found[table.object]
        kind = next(item.type for item in table.columns if item.name == column)
        name = Identifier(column)
        where: Composable = SQL("true")
        if after is not None:
            since: Composable = SQL("{}::{}").format(Literal(after), kind.sql)
            if kind in _MOMENTS:
                since = SQL("{} - interval {}").format(since, Literal(f"{OVERLAP_SECONDS} seconds"))
            where = SQL("({name} >= {since} OR {name} IS NULL)").format(name=name, since=since)
        newest = SQL("SELECT pg_catalog.max({})::text FROM {} WHERE ").format(name, found.identifier) + where
        connection = self._connection()
        with translated(self._integration), connection.reading(row_by_row=False):
            row = connection.execute(newest).fetchone()
        query = SQL("SELECT {} FROM {} WHERE ").format(found.selected(self.version), found.identifier) + where
        for part in self._copied(query):
            yield part, row[0] if row else None

    def keys(self, table: SourceTable) -> Iterator[bytes]:
        found = self._found[table.object]
        values = SQL(", ").join(found.value(name) for name in table.key)
        return self._copied(SQL("SELECT {} FROM {}").format(values, found.identifier))

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _copied(self, query: Composed) -> Iterator[bytes]:
        """In parts of some size: the driver hands over row by row."""
        statement = SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)
        connection = self._connection()
        with (
            translated(self._integration),
            connection.reading(row_by_row=True),
            connection.cursor() as cursor,
            cursor.copy(statement) as copy,
        ):
            waiting: list[bytes] = []
            size = 0
            for row in copy:
                waiting.append(bytes(row))
                size += len(row)
                if size >= PART_BYTES:
                    yield b"".join(waiting)
                    waiting, size = [], 0
            yield b"".join(waiting)

    def _pages(self, leaf: tuple[str, str]) -> tuple[int, int]:
        """Of a table, and how many to read at once."""
        with translated(self._integration):
            row = self._connection().execute(
                "SELECT pg_catalog.pg_relation_size(%s::text::regclass), pg_catalog.current_setting('block_size')::int",
                [Identifier(*leaf).as_string(None)],
            ).fetchone()  # fmt: skip
        assert row is not None
        return -(-row[0] // row[1]), PIECE_BYTES // row[1]

    def _connection(self) -> Connection:
        """This thread's own, inside the snapshot."""
        connection: Connection | None = getattr(self._own, "connection", None)
        if connection is not None and connection.info.transaction_status is not TransactionStatus.INTRANS:
            connection.close()  # it is lost, or an error has ended its view
        if connection is None or connection.closed:
            connection = connect(self._integration)
            with self._lock:
                self._connections.append(connection)
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute(SQL("SET TRANSACTION SNAPSHOT {}").format(Literal(self._name)))
            self._own.connection = connection
        return connection


@contextmanager
def opened_snapshot(
    integration: IntegrationConfiguration, found: Mapping[str, FoundTable], *, followed: bool
) -> Iterator[PostgreSQLSnapshot]:
    """``followed``: the version is the point of a replication slot, which waits for transactions under way."""
    with ExitStack() as stack:
        keeper = connect(integration)
        stack.callback(keeper.close)
        with translated(integration):
            version = _exact_version(keeper, integration) if followed else _version(keeper)
            keeper.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            row = keeper.execute("SELECT pg_catalog.pg_export_snapshot()").fetchone()
        assert row is not None
        snapshot = PostgreSQLSnapshot(integration, found, version, row[0])
        stack.callback(snapshot.close)
        yield snapshot


def _version(connection: Connection) -> int:
    row = connection.execute(
        "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() "
        "ELSE pg_catalog.pg_current_wal_insert_lsn() END "
        "- '0/0'::pg_lsn)::bigint"
    ).fetchone()
    assert row is not None
    return int(row[0])


def _exact_version(connection: Connection, integration: IntegrationConfiguration) -> int:
    name = f"churnguard_tmp_{connection.info.backend_pid}"
    with connection.reading(row_by_row=False):  # it waits for transactions under way
        row = connection.execute(
            "SELECT (lsn - '0/0'::pg_lsn)::bigint "
            "FROM pg_catalog.pg_create_logical_replication_slot(%s, 'pgoutput', true)",
            [name],
        ).fetchone()
    connection.execute("SELECT pg_catalog.pg_drop_replication_slot(%s)", [name])
    assert row is not None
    return int(row[0])
