"""Reads the documents of a collection for its mirror: in the order of their ids or one by one, through its pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, cast

import bson
from pymongo.client_session import ClientSession
from pymongo.errors import AutoReconnect, CursorNotFound

from churnguard_pipelines.connectors.mongodb.catalog import BY_ID, chunks_of
from churnguard_pipelines.connectors.mongodb.connection import Document, Source
from churnguard_pipelines.connectors.mongodb.documents import (
    DECODING,
    KEY,
    Rows,
    bytes_text,
    extended,
    from_extended,
    key_text,
    key_value,
)
from churnguard_pipelines.mirrors import SourceTable, Values

LARGEST_CONTENT = 16 * 2**20
AT_ONCE = 1000
PART_BYTES = 2**20


def rows_of(source: Source, table: SourceTable) -> Rows:
    def content_of(file: Mapping[str, Any]) -> str | None:
        return _content(source, table.object, file)

    return Rows(table, content_of)


def batches(source: Source, name: str, begin: str | None, session: ClientSession | None) -> Iterator[bytes]:
    """Documents as the server encodes them, at most :data:`AT_ONCE` and 16 MB of them at a time, from the id ``begin``
    on and in the order of the ids. Only ids, where a pipeline makes the documents of them.

    Where the connection is lost it goes on with another, unless that one brings nothing.
    """
    behind: str | None = None
    while True:
        last = b""
        try:
            for batch in _batches_from(source, name, behind or begin, session):
                if rest := _without(batch, behind):
                    last = rest
                    yield rest
            return
        except (AutoReconnect, CursorNotFound):
            if not last:
                raise
        behind = _last_id(last)


def first_id(batch: bytes) -> str:
    """As Extended JSON."""
    return _id_at(batch, 0)


def decoded(source: Source, name: str, batch: bytes, session: ClientSession | None) -> Iterable[Document]:
    found = bson.decode_all(batch, DECODING)
    if name not in source.pipelines:
        return found
    return _through_pipeline(source, name, [document[KEY] for document in found], session)


def documents(source: Source, name: str) -> Iterator[Document]:
    """All, one after the other."""
    for batch in batches(source, name, None, None):
        yield from decoded(source, name, batch, None)


def by_keys(source: Source, table: SourceTable, keys: Iterable[str]) -> dict[str, Values]:
    """Rows as they are now, by the texts of their ids."""
    rows, wanted, found = rows_of(source, table), iter(keys), {}
    while some := [key_value(text) for text in islice(wanted, AT_ONCE)]:
        with source.translated():
            for document in _through_pipeline(source, table.object, some, None):
                found[key_text(document[KEY])] = rows.values(document)
    return found


def parts(rows: Rows, version: int, found: Iterable[Document]) -> Iterator[bytes]:
    """As COPY data, in parts of bounded size."""
    waiting: list[Values] = []
    size = 0
    for document in found:
        row = rows.values(document)
        waiting.append(row)
        size += size_of(row)
        if len(waiting) == AT_ONCE or size >= PART_BYTES:
            yield rows.copied(version, waiting)
            waiting, size = [], 0
    if waiting:
        yield rows.copied(version, waiting)


def size_of(row: Values) -> int:
    """About as many bytes: the whole document and a file's content come last."""
    return sum(len(value) for value in row[-2:] if isinstance(value, str))


def _batches_from(source: Source, name: str, begin: str | None, session: ClientSession | None) -> Iterator[bytes]:
    fields = {KEY: 1} if name in source.pipelines else None
    cursor = source.collection(name).find_raw_batches({}, fields, batch_size=AT_ONCE, session=session).hint(BY_ID)
    if begin is not None:  # not by a condition: $gte finds only values of the same type, the index has them all
        cursor = cursor.min([(KEY, from_extended(begin))])
    return (batch for batch in cast(Iterator[bytes], cursor) if batch)  # the driver's types know only documents


def _without(batch: bytes, first: str | None) -> bytes:
    """All of it, but not the document that has the id ``first``, if it begins with that."""
    return batch[_length(batch, 0) :] if first is not None and first_id(batch) == first else batch


def _last_id(batch: bytes) -> str:
    place = 0
    while (following := place + _length(batch, place)) < len(batch):
        place = following
    return _id_at(batch, place)


def _id_at(batch: bytes, place: int) -> str:
    return extended(bson.decode(batch[place : place + _length(batch, place)], DECODING)[KEY])


def _length(batch: bytes, place: int) -> int:
    """Of the document there; it begins with it."""
    return int.from_bytes(batch[place : place + 4], "little")


def _through_pipeline(source: Source, name: str, ids: list[Any], session: ClientSession | None) -> Iterator[Document]:
    stages = [{"$match": {KEY: {"$in": ids}}}, *source.pipelines.get(name, [])]
    return source.aggregate(name, stages, session=session, batchSize=AT_ONCE)


def _content(source: Source, name: str, file: Mapping[str, Any]) -> str | None:
    """Of a file in GridFS; None if it is too large, or not there as a whole."""
    length = file.get("length")
    if not isinstance(length, int) or length > LARGEST_CONTENT:
        return None
    chunks = source.collection(chunks_of(name)).find({"files_id": file[KEY]}, {"data": 1}).sort("n", 1)
    content = b"".join(chunk["data"] for chunk in chunks)
    return bytes_text(content) if len(content) == length else None
