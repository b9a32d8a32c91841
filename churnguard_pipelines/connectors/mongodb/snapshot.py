"""Reads collections in the order of ``_id``, at a moment that the change log's events can be compared with.

MongoDB has no snapshot that could stay open for hours. A document is read as it is by then, with all that happened
until the snapshot's version; what happened since comes with the change log again, under greater versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bson import Timestamp
from pymongo.client_session import ClientSession

from churnguard_pipelines.connectors.mongodb.connection import Source, version_of
from churnguard_pipelines.connectors.mongodb.documents import KEY, key_text
from churnguard_pipelines.connectors.mongodb.increment import Greatest, condition
from churnguard_pipelines.connectors.mongodb.reading import AT_ONCE, batches, decoded, first_id, parts, rows_of
from churnguard_pipelines.connectors.sdk.database import Snapshot
from churnguard_pipelines.mirrors import Piece, SourceTable
from churnguard_pipelines.store.raw.copy_text import encode

PIECE_BATCHES = 20
PIECE_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class FetchedPiece(Piece):
    """With its documents: one cursor reads a collection from its begin to its end, which spares the server to look for
    each piece's ends. ``batches``: as :func:`~.mongodb_reading.batches` gives them."""

    batches: Sequence[bytes]


class MongoDBSnapshot(Snapshot):
    """A snapshot of collections, read in pieces by id. The marks of pieces are ids as Extended JSON. ``since``: what
    happened until then is in every answer; None where nobody compares it with a change log."""

    def __init__(self, source: Source, version: int, since: Timestamp | None) -> None:
        self._source = source
        self._since = since
        self.version = version

    def pieces(self, table: SourceTable, after: object) -> Iterator[Piece]:
        begin = None if after is None else str(after)
        held: list[bytes] = []
        with self._source.translated(), self._session() as session:
            for batch in batches(self._source, table.object, begin, session):
                if held and (len(held) == PIECE_BATCHES or sum(map(len, held)) + len(batch) > PIECE_BYTES):
                    end = first_id(batch)
                    yield FetchedPiece(begin, end, held)
                    begin, held = end, []
                held.append(batch)
        yield FetchedPiece(begin, None, held)

    def copy(self, table: SourceTable, piece: Piece) -> Iterator[bytes]:
        assert isinstance(piece, FetchedPiece)
        rows = rows_of(self._source, table)
        with self._source.translated(), self._session() as session:
            for batch in piece.batches:
                yield from parts(rows, self.version, decoded(self._source, table.object, batch, session))

    def increment(self, table: SourceTable, column: str, after: str | None) -> Iterator[tuple[bytes, str | None]]:
        kind = next(item.type.base for item in table.columns if item.name == column)
        greatest = Greatest(kind)
        stages = [*self._source.pipelines.get(table.object, []), {"$match": condition(column, kind, after)}]
        rows = rows_of(self._source, table)
        with self._source.translated(), self._session() as session:

            def found() -> Iterator[dict[str, object]]:
                for document in self._source.aggregate(table.object, stages, session=session, batchSize=AT_ONCE):
                    greatest.see(document.get(column))
                    yield document

            for part in parts(rows, self.version, found()):
                yield part, greatest.text

    def keys(self, table: SourceTable) -> Iterator[bytes]:
        stages = [*self._source.pipelines.get(table.object, []), {"$project": {KEY: 1}}]
        waiting: list[tuple[str]] = []
        with self._source.translated(), self._session() as session:
            for document in self._source.aggregate(table.object, stages, session=session):
                waiting.append((key_text(document[KEY]),))
                if len(waiting) == AT_ONCE:
                    yield encode(waiting, (0,))
                    waiting = []
        yield encode(waiting, (0,))

    @contextmanager
    def _session(self) -> Iterator[ClientSession | None]:
        if self._since is None:
            yield None
            return
        with self._source.client.start_session(causal_consistency=True) as session:
            session.advance_operation_time(self._since)
            yield session


@contextmanager
def opened_snapshot(source: Source, *, followed: bool) -> Iterator[MongoDBSnapshot]:
    now = source.now()
    yield MongoDBSnapshot(source, version_of(now), now if followed else None)
