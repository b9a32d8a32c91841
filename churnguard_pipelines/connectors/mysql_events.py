"""The events of a MySQL or MariaDB binary log, as much of them as a follower of rows needs.

https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html and, for what is
MariaDB's own, https://mariadb.com/kb/en/replication-protocol/. All that read bytes raise ``Malformed``.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final, NamedTuple

from churnguard_pipelines.engine.malformed import Malformed, strictly

QUERY: Final = 2
ROTATE: Final = 4
FORMAT: Final = 15
XID: Final = 16
TABLE_MAP: Final = 19
GTIDS: Final = (33, 34, 162)  # with one, without one, MariaDB's: each begins a transaction
XA_PREPARE: Final = 38
PARTIAL_UPDATE: Final = 39
PACKED_TRANSACTION: Final = 40
QUERY_COMPRESSED: Final = 165
INSERTS: Final = frozenset((23, 30, 166, 169))
UPDATES: Final = frozenset((24, 31, 167, 170))
DELETES: Final = frozenset((25, 32, 168, 171))
ROWS: Final = INSERTS | UPDATES | DELETES
_VERSION_2: Final = frozenset((30, 31, 32, 169, 170, 171))
_COMPRESSED: Final = frozenset((165, 166, 167, 168, 169, 170, 171))

HEADER: Final = struct.Struct("<IBIIIH")
_METADATA_SIZES: Final = {4: 1, 5: 1, 15: 2, 16: 2, 17: 1, 18: 1, 19: 1, 242: 1, 245: 1, 246: 2, 247: 2, 248: 2,
                          252: 1, 253: 2, 254: 2, 255: 1}  # fmt: skip
_NUMBERS: Final = frozenset((1, 2, 3, 4, 5, 8, 9, 246))
_SIGNEDNESS, _NAMES = 1, 4
_MOST_INFLATED: Final = 256 << 20


class Event(NamedTuple):
    """``end``: the place after it in its file, 0 for one that stands in none. ``moment``: seconds since 1970."""

    kind: int
    moment: int
    end: int
    body: bytes


@dataclass(frozen=True, slots=True)
class TableMap:
    """How the rows look that follow. ``kinds``: of the columns, with their metadata. ``names``, ``unsigned``: where the
    server logs them (``binlog_row_metadata``)."""

    id: int
    schema: str
    table: str
    kinds: tuple[tuple[int, bytes], ...]
    names: tuple[str, ...] | None
    unsigned: tuple[bool, ...] | None


@strictly
def event(packet: bytes) -> Event:
    moment, kind, _, _, end, _ = HEADER.unpack_from(packet)
    return Event(kind, moment, end, packet[HEADER.size :])


@strictly
def rotation(body: bytes) -> tuple[str, int]:
    """The next file, and the place in it."""
    return body[8:].decode(), struct.unpack_from("<Q", body)[0]


@strictly
def query(event: Event) -> tuple[str, str]:
    """Its default database, and the statement."""
    _, _, schema_size, _, variables_size = struct.unpack_from("<IIBHH", event.body)
    at = 13 + variables_size
    schema = event.body[at : at + schema_size].decode("utf-8", "replace")
    statement = event.body[at + schema_size + 1 :]
    if event.kind in _COMPRESSED:
        statement = _inflated(statement)
    return schema, statement.decode("utf-8", "replace")


@strictly
def table_id(body: bytes) -> int:
    """Of a table map, or of rows."""
    return int.from_bytes(body[:6], "little")


@strictly
def table_map(body: bytes) -> TableMap:
    at = 8
    schema, at = _short_string(body, at)
    table, at = _short_string(body, at)
    count, at = packed_integer(body, at)
    codes = body[at : at + count]
    metadata_size, at = packed_integer(body, at + count)
    kinds: list[tuple[int, bytes]] = []
    place = at
    for code in codes:
        size = _METADATA_SIZES.get(code, 0)
        kinds.append((code, body[place : place + size]))
        place += size
    names, unsigned = _optional(body, at + metadata_size + (count + 7) // 8, codes)
    return TableMap(table_id(body), schema, table, tuple(kinds), names, unsigned)


@strictly
def rows(event: Event) -> tuple[int, int, bytes]:
    """The number of columns, where the bitmaps of those that are there begin, and the data that both are in."""
    at = 8
    if event.kind in _VERSION_2:
        at += int(struct.unpack_from("<H", event.body, at)[0])
    count, at = packed_integer(event.body, at)
    if event.kind not in _COMPRESSED:
        return count, at, event.body
    bitmaps = (count + 7) // 8 * (2 if event.kind in UPDATES else 1)
    return count, at, event.body[: at + bitmaps] + _inflated(event.body[at + bitmaps :])


def packed_integer(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 0xFB:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size


def _short_string(data: bytes, at: int) -> tuple[str, int]:
    """Its size, its bytes, and a zero."""
    size = data[at]
    return data[at + 1 : at + 1 + size].decode(), at + size + 2


def _inflated(data: bytes) -> bytes:
    """After a byte that tells how many bytes tell the size."""
    inflating = zlib.decompressobj()
    found = inflating.decompress(data[1 + (data[0] & 7) :], _MOST_INFLATED)
    if not inflating.eof:
        raise Malformed("compressed bytes that do not end, or that stand for too many")
    return found


def _optional(data: bytes, at: int, codes: bytes) -> tuple[tuple[str, ...] | None, tuple[bool, ...] | None]:
    names: tuple[str, ...] | None = None
    unsigned: tuple[bool, ...] | None = None
    while at < len(data):
        kind = data[at]
        size, at = packed_integer(data, at + 1)
        field = data[at : at + size]
        at += size
        if kind == _NAMES:
            names = tuple(_strings(field))
        elif kind == _SIGNEDNESS:
            bits = iter("".join(f"{byte:08b}" for byte in field))
            unsigned = tuple(code in _NUMBERS and next(bits, "0") == "1" for code in codes)
    return names, unsigned


def _strings(data: bytes) -> list[str]:
    found, at = [], 0
    while at < len(data):
        size, at = packed_integer(data, at)
        found.append(data[at : at + size].decode())
        at += size
    return found
