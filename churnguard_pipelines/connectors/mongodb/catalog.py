"""Discovers the collections of a MongoDB database as tables. Columns are the fields of a sample of documents."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from bson import DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary
from bson.datetime_ms import DatetimeMS

from churnguard_pipelines.connectors.mongodb.connection import Source
from churnguard_pipelines.connectors.mongodb.documents import (
    CONTENT,
    CONTENT_SOURCE,
    KEY,
    WHOLE,
    NotFinite,
    Script,
    is_uuid,
)
from churnguard_pipelines.connectors.sdk.table_errors import TABLE_ERRORS, table_errors
from churnguard_pipelines.engine.allowance import ANSWER_SECONDS, Exhausted
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import SourceColumn, SourceTable

SAMPLED = 200
"""Documents from either end of a collection. Not `$sample`: it may read all of it (facts on connectors, 1.6)."""
MOST_COLLECTIONS = 20_000
MOST_COLUMNS = 300
"""Of documents whose field names are data. PostgreSQL keeps 8,160 bytes of a row together: each may take 24 of them."""
BY_ID = [(KEY, 1)]
AT_ONCE = 4  # questions: most of a discovery is waiting for answers, of which each may have 16 MB
_LONGEST_NAME = 63
_SAMPLE_SECONDS = 60
_FILES, _CHUNKS = ".files", ".chunks"

_KINDS: dict[type, tuple[str, Base]] = {
    bool: ("bool", Base.BOOLEAN),
    int: ("int", Base.BIGINT),
    Int64: ("long", Base.BIGINT),
    float: ("double", Base.DOUBLE),
    NotFinite: ("double", Base.DOUBLE),
    Decimal128: ("decimal", Base.NUMERIC),
    str: ("string", Base.TEXT),
    datetime: ("date", Base.TIMESTAMPTZ),
    DatetimeMS: ("date", Base.TIMESTAMPTZ),
    ObjectId: ("objectId", Base.TEXT),
    Regex: ("regex", Base.TEXT),
    Script: ("javascript", Base.TEXT),
    Timestamp: ("timestamp", Base.TEXT),
    bytes: ("binData", Base.BYTEA),
    dict: ("object", Base.JSONB),
    list: ("array", Base.JSONB),
    DBRef: ("object", Base.JSONB),
    MinKey: ("minKey", Base.JSONB),
    MaxKey: ("maxKey", Base.JSONB),
}
_NUMBERS = {Base.BIGINT, Base.DOUBLE, Base.NUMERIC}


@dataclass(frozen=True, slots=True)
class Collections:
    """The collections of a database, by name. Names. ``others``: what is there and cannot be read as a collection, with
    the reason."""

    readable: tuple[str, ...]
    others: Mapping[str, str]


def find_collections(source: Source) -> Collections:
    readable, others = [], {}
    with source.translated():
        listed = {item["name"]: item for item in _bounded(source.database.list_collections())}
    for name, item in sorted(listed.items()):
        if name.startswith("system.") or (name.endswith(_CHUNKS) and _bucket(name, _CHUNKS) + _FILES in listed):
            continue
        options = item.get("options", {})
        if item.get("type") == "view":
            others[name] = f"it is a view of {options.get('viewOn')}, which can be read itself, with a pipeline"
        elif item.get("type") == "timeseries" or "timeseries" in options:
            others[name] = "it is a time series: its documents have no key"
        else:
            readable.append(name)
    return Collections(tuple(readable), others)


def _bounded(listed: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """A list that has an end."""
    begun = time.monotonic()
    for number, item in enumerate(listed):
        if number == MOST_COLLECTIONS:
            raise Exhausted(f"lists more than {MOST_COLLECTIONS} collections", too_much=True)
        if time.monotonic() - begun > ANSWER_SECONDS:
            raise Exhausted(f"has not listed its collections within {ANSWER_SECONDS:.0f} s", too_much=False)
        yield item


def find_tables(source: Source, names: Sequence[str]) -> list[SourceTable]:
    """Collections as tables, their key and the whole document among the columns. One that cannot be read says so."""
    pool = ThreadPoolExecutor(AT_ONCE, "discover")
    try:
        return list(pool.map(lambda name: _found(source, name), names))
    finally:
        pool.shutdown(cancel_futures=True)


def _found(source: Source, name: str) -> SourceTable:
    unread = _table(source, name, [], None)
    try:
        with table_errors(unread, source.integration.integration_id), source.translated():
            first = _fields_at(source, name, 1)
            if first.documents < SAMPLED:  # that was all of it
                return _table(source, name, [first], first.documents)
            rows = source.collection(name).estimated_document_count()
            return _table(source, name, [first, _fields_at(source, name, -1)], rows)
    except TABLE_ERRORS as error:
        return replace(unread, problem=error.explanation)


def _table(source: Source, name: str, ends: Sequence[_Fields], rows: int | None) -> SourceTable:
    columns = [SourceColumn(KEY, MirrorType(Base.TEXT), "_id"), *_columns(ends)]
    if is_files(source, name):
        columns = [column for column in columns if column.name != CONTENT]
        columns.append(SourceColumn(CONTENT, MirrorType(Base.BYTEA), CONTENT_SOURCE))
    columns.append(SourceColumn(WHOLE, MirrorType(Base.JSONB), "document"))
    return SourceTable(name, tuple(columns), (KEY,), rows=rows)


def reconciled(found: SourceTable, known: SourceTable) -> SourceTable:
    """With the columns that were known, be they in this sample or not. Their types stay, but that an integer becomes a
    numeric where there are other numbers: what does not fit its column is in the whole document all the same."""
    fields = {column.name: column for column in known.columns if not _is_own(column)}
    for column in found.columns:
        before = fields.get(column.name)
        if _is_own(column) or (before is None and len(fields) >= MOST_COLUMNS):
            continue
        if before is None:
            fields[column.name] = column
        elif before.type.base is Base.BIGINT and column.type.base in _NUMBERS:
            common = _common({before.type.base, column.type.base})
            fields[column.name] = SourceColumn(column.name, common, column.source_type)
    first, *own = [column for column in found.columns if _is_own(column)]
    return replace(found, columns=(first, *fields.values(), *own))


def _is_own(column: SourceColumn) -> bool:
    """Not a field of the documents."""
    return column.name in (KEY, WHOLE) or column.source_type == CONTENT_SOURCE


def is_files(source: Source, name: str) -> bool:
    """Whether it lists the files of GridFS whose content is wanted, too."""
    return source.with_content and name.endswith(_FILES)


def chunks_of(name: str) -> str:
    return _bucket(name, _FILES) + _CHUNKS


def _bucket(name: str, ending: str) -> str:
    return name.removesuffix(ending)


@dataclass(slots=True)
class _Fields:
    """Of some documents: by field, in the order in which they were first seen, the types of its values as the source
    and as PostgreSQL say them; and in how many documents each is."""

    kinds: dict[str, dict[str, Base]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    documents: int = 0


def _fields_at(source: Source, name: str, direction: int) -> _Fields:
    """Of one end of the collection."""
    fields = _Fields()
    for document in _sample_from(source, name, direction):
        fields.documents += 1
        for key, value in document.items():
            if value is not None and _is_column(key):
                kind, type_name = _kind(value)
                fields.kinds.setdefault(key, {})[kind] = type_name
                fields.seen[key] += 1
    return fields


def _columns(ends: Sequence[_Fields]) -> list[SourceColumn]:
    """In the order in which the fields were first seen."""
    kinds: dict[str, dict[str, Base]] = {}
    seen: Counter[str] = Counter()
    for fields in ends:
        seen += fields.seen
        for name, found in fields.kinds.items():
            kinds[name] = kinds.get(name, {}) | found
    chosen = {name for name, _ in seen.most_common(MOST_COLUMNS)}
    return [
        SourceColumn(name, _common(set(found.values())), ", ".join(sorted(found)))
        for name, found in kinds.items() if name in chosen
    ]  # fmt: skip


def _sample_from(source: Source, name: str, direction: int) -> Iterator[dict[str, Any]]:
    few = 20  # at once: they may be of 16 MB each
    most = _SAMPLE_SECONDS * 1000
    if stages := source.pipelines.get(name):
        sampled = [{"$sort": {KEY: direction}}, *stages, {"$limit": SAMPLED}]
        return source.aggregate(name, sampled, batchSize=few, maxTimeMS=most)
    found = source.collection(name).find(batch_size=few, max_time_ms=most, limit=SAMPLED)
    return iter(found.sort(KEY, direction).hint(BY_ID))


def _is_column(field: str) -> bool:
    return field not in ("", KEY, WHOLE) and "\0" not in field and len(field.encode()) <= _LONGEST_NAME


def _kind(value: Any) -> tuple[str, Base]:
    """The source's word, and PostgreSQL's type."""
    if type(value) is Binary:
        return ("uuid", Base.UUID) if is_uuid(value) else ("binData", Base.BYTEA)
    return _KINDS[type(value)]


def _common(types: set[Base]) -> MirrorType:
    """Of values that differ: any number is a numeric, anything is JSON."""
    if len(types) == 1:
        return MirrorType(next(iter(types)))
    return MirrorType(Base.NUMERIC if types <= _NUMBERS else Base.JSONB)
