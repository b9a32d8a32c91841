"""Parses the messages of the logical replication plug-in `pgoutput`, protocol version 1. Values stay text.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html. All raise ``Malformed``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from churnguard_pipelines.engine.malformed import Malformed, strictly
from churnguard_pipelines.mirrors import UNCHANGED

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_BEGIN = struct.Struct("!qqi")
_COMMIT = struct.Struct("!bqqq")
_INT = struct.Struct("!i")
_SHORT = struct.Struct("!h")
_SIZE = struct.Struct("!I")  # one below zero would read what was read once more
_COLUMN_TYPE = struct.Struct("!ii")

_INSERT, _UPDATE, _DELETE = b"IUD"
_NEW, _KEY, _WHOLE = b"NKO"
_TUPLE_NULL, _TUPLE_UNCHANGED, _TUPLE_TEXT = b"nut"

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A column of a relation message. ``key``: whether it is part of the replica identity."""

    name: str
    type_oid: int
    modifier: int
    key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation message: how the rows of a table look that follow. ``identity``: ``d`` default, ``i`` an index, ``f``
    full, ``n`` nothing."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


@strictly
def begin(message: bytes) -> tuple[int, datetime]:
    """The position of the transaction's commit record, and when it was committed."""
    position, moment, _ = _BEGIN.unpack_from(message, 1)
    return position, _EPOCH + timedelta(microseconds=moment)


@strictly
def commit_end(message: bytes) -> int:
    """The position after the transaction."""
    end: int = _COMMIT.unpack_from(message, 1)[2]
    return end


@strictly
def relation(message: bytes) -> Relation:
    (oid,) = _INT.unpack_from(message, 1)
    schema, at = _string(message, 5)
    name, at = _string(message, at)
    identity = chr(message[at])
    (count,) = _SHORT.unpack_from(message, at + 1)
    at += 3
    columns: list[RelationColumn] = []
    for _ in range(count):
        key = message[at] == 1
        column, at = _string(message, at + 1)
        type_oid, modifier = _COLUMN_TYPE.unpack_from(message, at)
        at += 8
        columns.append(RelationColumn(column, type_oid & 0xFFFFFFFF, modifier, key))
    return Relation(oid & 0xFFFFFFFF, schema or "pg_catalog", name, identity, tuple(columns))


@strictly
def relation_oid(message: bytes) -> int:
    """Of an insert, update or delete."""
    oid: int = _INT.unpack_from(message, 1)[0]
    return oid & 0xFFFFFFFF


@strictly
def rows(message: bytes, width: int) -> tuple[Row | None, bool, Row | None]:
    """Of an insert, update or delete of a table with so many columns: the old row if it was sent, whether it is whole
    (else only its key columns count), and the new row if there is one."""
    kind, tag = message[0], message[5]
    if tag == _NEW and kind != _DELETE:
        return None, False, _row(message, 6, width)[0]
    if tag not in (_KEY, _WHOLE) or kind == _INSERT:
        raise Malformed("a change without the row that it needs")
    old, at = _row(message, 6, width)
    new = _row(message, at + 1, width)[0] if kind == _UPDATE else None
    return old, tag == _WHOLE, new


@strictly
def truncated(message: bytes) -> list[int]:
    (count,) = _INT.unpack_from(message, 1)
    return [_INT.unpack_from(message, 6 + 4 * place)[0] & 0xFFFFFFFF for place in range(count)]


def _row(message: bytes, at: int, width: int) -> tuple[Row, int]:
    if _SHORT.unpack_from(message, at)[0] != width:
        raise Malformed("a row with more values than columns, or fewer")
    text = message.decode("latin-1") if message.isascii() else None  # a part of it is had faster than decoded
    at += 2
    size_of = _SIZE.unpack_from
    values: list[Any] = []
    for _ in range(width):
        kind = message[at]
        if kind == _TUPLE_TEXT:
            begin = at + 5
            at = begin + size_of(message, at + 1)[0]
            values.append(message[begin:at].decode() if text is None else text[begin:at])
            continue
        if kind not in (_TUPLE_NULL, _TUPLE_UNCHANGED):
            raise Malformed(f"a value of kind {kind}")
        values.append(None if kind == _TUPLE_NULL else UNCHANGED)
        at += 1
    if at > len(message):
        raise Malformed("a value that goes on behind the end")
    return tuple(values), at


def _string(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(b"\0", at)
    return message[at:end].decode(), end + 1
