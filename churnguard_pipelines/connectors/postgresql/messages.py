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
_COLUMN_TYPE = struct.Struct("!ii")

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
def insert(message: bytes) -> Row:
    return _row(message, 6)[0]


@strictly
def update(message: bytes) -> tuple[Row | None, bool, Row]:
    """The old row if it was sent, whether it is whole (else only its key columns count), and the new row."""
    if message[5:6] == b"N":
        return None, False, _row(message, 6)[0]
    old, at = _row(message, 6)
    return old, message[5:6] == b"O", _row(message, at + 1)[0]


@strictly
def delete(message: bytes) -> Row:
    """The old row, of which the key columns count."""
    return _row(message, 6)[0]


@strictly
def truncated(message: bytes) -> list[int]:
    (count,) = _INT.unpack_from(message, 1)
    return [_INT.unpack_from(message, 6 + 4 * place)[0] & 0xFFFFFFFF for place in range(count)]


def _row(message: bytes, at: int) -> tuple[Row, int]:
    (count,) = _SHORT.unpack_from(message, at)
    at += 2
    values: list[Any] = []
    for _ in range(count):
        kind = message[at]
        if kind == _TUPLE_TEXT:
            (size,) = _INT.unpack_from(message, at + 1)
            at += 5
            if not 0 <= size <= len(message) - at:  # a size below zero would read what was read once more
                raise Malformed("a value that goes on behind the end")
            values.append(message[at : at + size].decode())
            at += size
            continue
        if kind not in (_TUPLE_NULL, _TUPLE_UNCHANGED):
            raise Malformed(f"a value of kind {kind}")
        values.append(None if kind == _TUPLE_NULL else UNCHANGED)
        at += 1
    return tuple(values), at


def _string(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(b"\0", at)
    return message[at:end].decode(), end + 1
