"""Documents of a collection as its mirror wants them: by a range of ids or one by one, through its pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pymongo.client_session import ClientSession
from pymongo.cursor import Cursor

from churnguard_pipelines.connectors.mongodb_catalog import chunks_of
from churnguard_pipelines.connectors.mongodb_connection import Document, Source
from churnguard_pipelines.connectors.mongodb_documents import (
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

# By the index on _id and not by a condition: $gte finds only values of the same type, an index holds them all in order.
_BY_ID = [(KEY, 1)]


def rows_of(source: Source, table: SourceTable) -> Rows:
    def content_of(file: Mapping[str, Any]) -> str | None:
        return _content(source, table.object, file)

    return Rows(table, content_of)


def mark_after(source: Source, name: str, begin: str | None, count: int) -> str | None:
    """The id ``count`` documents after that of ``begin``, as Extended JSON; None if there are not so many."""
    with source.translated():
        cursor = source.collection(name).find({}, {KEY: 1}).hint(_BY_ID).skip(count).limit(1)
        found = next(_within(cursor, begin, None), None)
    return None if found is None else extended(found[KEY])


def documents(
    source: Source, name: str, begin: str | None, end: str | None, session: ClientSession | None
) -> Iterator[Document]:
    """From the id ``begin`` to before ``end``, in their order."""
    stages = source.pipelines.get(name)
    fields = {KEY: 1} if stages else None
    cursor = source.collection(name).find({}, fields, batch_size=AT_ONCE, session=session).hint(_BY_ID)
    found = _within(cursor, begin, end)
    if not stages:
        yield from found
        return
    while ids := [document[KEY] for document in islice(found, AT_ONCE)]:
        yield from _through_pipeline(source, name, ids, session)


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


def _within(cursor: Cursor[Document], begin: str | None, end: str | None) -> Iterator[Document]:
    if begin is not None:
        cursor = cursor.min([(KEY, from_extended(begin))])
    if end is not None:
        cursor = cursor.max([(KEY, from_extended(end))])
    return iter(cursor)


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
