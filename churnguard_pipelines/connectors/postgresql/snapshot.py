"""Reads PostgreSQL tables in one exported snapshot, a range of pages at a time, in the bytes of a binary COPY."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from churnguard_pipelines.connectors.postgresql.catalog import FoundTable
from churnguard_pipelines.connectors.postgresql.connection import Connection, connect, translated
from churnguard_pipelines.connectors.sdk.database import OVERLAP_SECONDS, Snapshot
from churnguard_pipelines.errors import ProviderUnavailable
from churnguard_pipelines.mirror_types import MOMENTS
from churnguard_pipelines.mirrors import Piece, SourceTable
from churnguard_pipelines.model import IntegrationConfiguration

PIECE_BYTES = 16 * 2**20
PART_BYTES = 2**18


class PostgreSQLSnapshot(Snapshot):
    """A snapshot of tables, read in ranges of pages. The marks of pieces are ``[leaf, page, since]``: the number of the
    table that holds the rows, of its page, and of the first transaction that was not over when all before that was
    right.

    Rows move: what was changed since the mark was taken may lie in pages that were read already. It is the first piece
    of a later snapshot.
    """

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
        readable = [leaf.oid for leaf in found.leaves if leaf.readable]
        if len(readable) < len(found.leaves) or not readable:
            yield from self._without_marks(readable)
            return
        since = self._transaction()
        leaf, page = readable[0], 0
        if isinstance(after, list):
            leaf, page, moved_since = after
            yield Piece({"before": [leaf, page], "since": moved_since}, [leaf, page, since])
        for place in range(readable.index(leaf), len(readable)):
            leaf, following = readable[place], readable[place + 1 : place + 2]
            pages, per_piece = self._pages(leaf)
            while page + per_piece < pages:
                yield Piece({"leaf": leaf, "from": page, "to": page + per_piece}, [leaf, page + per_piece, since])
                page += per_piece
            yield Piece({"leaf": leaf, "from": page}, [following[0], 0, since] if following else None)
            page = 0

    def _without_marks(self, readable: Sequence[int]) -> Iterator[Piece]:
        """Partitions that the user may not read by themselves are read through their table, in one piece."""
        for leaf in readable:
            yield Piece({"leaf": leaf, "from": 0}, None)
        yield Piece({"but": readable}, None)

    def copy(self, table: SourceTable, piece: Piece) -> Iterator[bytes]:
        found = self._found[table.object]
        wanted: Mapping[str, Any] = piece.begin
        if "before" in wanted:
            last, page = wanted["before"]
            for place, leaf in enumerate(found.leaves):
                moved = _moved(wanted["since"], self._transaction())
                before = moved + SQL(" AND ctid < {}::tid").format(Literal(f"({page},0)"))
                yield from self._copied_leaf(found, place, before if leaf.oid == last else moved)
                if leaf.oid == last:
                    return
        elif "leaf" in wanted:
            where = SQL("ctid >= {}::tid").format(Literal(f"({wanted['from']},0)"))
            if "to" in wanted:
                where = where + SQL(" AND ctid < {}::tid").format(Literal(f"({wanted['to']},0)"))
            place = next(place for place, leaf in enumerate(found.leaves) if leaf.oid == wanted["leaf"])
            yield from self._copied_leaf(found, place, where)
        else:
            leaves = Literal([leaf.oid for leaf in found.leaves])
            place_of_leaf = SQL("(pg_catalog.array_position({}::oid[], tableoid) - 1)").format(leaves)
            query = SQL("SELECT {} FROM {} WHERE tableoid <> ALL({}::oid[])").format(
                found.selected(self.version, place_of_leaf), found.relation, Literal(wanted["but"])
            )
            yield from self._copied(query)

    def _copied_leaf(self, found: FoundTable, place: int, where: Composed) -> Iterator[bytes]:
        leaf = found.leaves[place]
        columns = found.selected(self.version, Literal(place))
        query = SQL("SELECT {} FROM ONLY {} WHERE ").format(columns, leaf.identifier)
        yield from self._copied(query + where)
        with translated(self._integration):
            row = self._connection().execute("SELECT pg_catalog.pg_relation_filenode(%s::oid)", [leaf.oid]).fetchone()
        if row is None or row[0] != leaf.file:  # an earlier snapshot sees none of the rows that were written anew
            raise ProviderUnavailable(
                f"{found.table.object} was written anew while it was read.",
                integration_id=self._integration.integration_id,
                remedy="The next sync reads it once more.",
            )

    def increment(self, table: SourceTable, column: str, after: str | None) -> Iterator[tuple[bytes, str | None]]:
        """A moment beyond the source's own clock is no cursor: what is changed until then would never be read."""
        found = self._found[table.object]
        kind = next(item.type for item in table.columns if item.name == column)
        name = Identifier(column)
        where = SQL("true").format()
        past: Composable = SQL("")
        if kind in MOMENTS:
            past = SQL(" FILTER (WHERE {} <= pg_catalog.now())").format(name)
        if after is not None:
            since: Composable = SQL("{}::{}").format(Literal(after), kind.sql)
            if kind in MOMENTS:
                earlier = SQL("{} - interval {}").format(since, Literal(f"{OVERLAP_SECONDS} seconds"))
                since = SQL("CASE WHEN {} <= pg_catalog.now() THEN {} ELSE '-infinity' END").format(since, earlier)
            where = SQL("({name} >= {since} OR {name} IS NULL)").format(name=name, since=since)
        newest = SQL("SELECT pg_catalog.max({}){}::text FROM {} WHERE ").format(name, past, found.relation) + where
        connection = self._connection()
        with translated(self._integration), connection.reading(row_by_row=False):
            row = connection.execute(newest).fetchone()
        query = SQL("SELECT {} FROM {} WHERE ").format(found.selected(self.version), found.relation) + where
        for part in self._copied(query):
            yield part, row[0] if row else None

    def keys(self, table: SourceTable) -> Iterator[bytes]:
        found = self._found[table.object]
        values = SQL(", ").join(found.value(name) for name in table.key)
        return self._copied(SQL("SELECT {} FROM {}").format(values, found.relation))

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

    def _pages(self, leaf: int) -> tuple[int, int]:
        """Of a table, and how many to read at once."""
        with translated(self._integration):
            row = self._connection().execute(
                "SELECT coalesce(pg_catalog.pg_relation_size(%s::oid), 0), "
                "pg_catalog.current_setting('block_size')::int",
                [leaf],
            ).fetchone()  # fmt: skip
        assert row is not None
        return -(-row[0] // row[1]), PIECE_BYTES // row[1]

    def _transaction(self) -> int:
        """The number of the first that was not over when this view was taken."""
        with translated(self._integration):
            row = self._connection().execute(
                "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint"
            ).fetchone()  # fmt: skip
        assert row is not None
        return int(row[0])

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


def _moved(since: int, now: int) -> Composed:
    """Written by the transaction ``since`` or a later one. A row has the last 32 bits of its transaction's number; one
    of long ago may look new, and is read once more for nothing."""
    full = SQL("({now}::bigint + 2147483648 - ({now}::bigint + 2147483648 - xmin::text::bigint) % 4294967296)")
    return full.format(now=Literal(now)) + SQL(" >= {}::bigint").format(Literal(since))


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
