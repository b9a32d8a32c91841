"""Parses the events of a MySQL or MariaDB binary log that a reader of rows needs.

https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html and, for what is
MariaDB's own, https://mariadb.com/kb/en/replication-protocol/. All that read bytes raise ``Malformed``.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import zstandard

from churnguard_pipelines.engine.malformed import Malformed, strictly

QUERY: Final = 2
ROTATE: Final = 4
FORMAT: Final = 15
XID: Final = 16
LOAD: Final = 18  # a query that reads a file
TABLE_MAP: Final = 19
GTIDS: Final = (33, 34, 162)  # with one, without one, MariaDB's: each begins a transaction
XA_PREPARE: Final = 38
PARTIAL_UPDATE: Final = 39
PACKED: Final = 40  # a whole transaction
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
_NUMBERS: Final = frozenset((1, 2, 3, 4, 5, 8, 9, 13, 246))
"""Kinds that both servers log the sign of: a YEAR, 13, is one, unsigned."""
_CHARACTERS: Final = {False: frozenset((15, 252, 253, 254, 242)), True: frozenset((15, 252, 253, 254, 255))}
"""Kinds that a server counts as strings of characters: vectors MySQL, MariaDB (True) what is spatial."""
_ENUM, _SET = 247, 248
_SIGNEDNESS, _CHARSETS, _CHARSET_EACH, _NAMES, _SETS, _ENUMS, _LABELS_CHARSETS, _LABELS_CHARSET_EACH = (
    1, 2, 3, 4, 5, 6, 10, 11,
)  # fmt: skip
_END_OF_FIELDS, _PACKING, _ZSTD = 0, 2, 0
_MOST_INFLATED: Final = 256 << 20


class Event(NamedTuple):
    """One event of a binary log. ``end``: the place after it in its file, 0 for one that stands in none. ``moment``:
    seconds since 1970."""

    kind: int
    moment: int
    end: int
    body: bytes


@dataclass(frozen=True, slots=True)
class TableMap:
    """How the rows look that follow. ``kinds``: of the columns, with their metadata. ``names``, ``unsigned``: where the
    server logs them (``binlog_row_metadata``). So are, by the column's place, the numbers of the ``collations`` of its
    characters, and the ``labels`` of an enum or a set, in those characters."""

    id: int
    schema: str
    table: str
    kinds: tuple[tuple[int, bytes], ...]
    names: tuple[str, ...] | None = None
    unsigned: tuple[bool, ...] | None = None
    collations: Mapping[int, int] = field(default_factory=dict)
    labels: Mapping[int, tuple[bytes, ...]] = field(default_factory=dict)


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
    at = (26 if event.kind == LOAD else 13) + variables_size
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
def table_map(body: bytes, *, mariadb: bool) -> TableMap:
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
    more = _optional(body, at + metadata_size + (count + 7) // 8, kinds, _CHARACTERS[mariadb])
    return TableMap(table_id(body), schema, table, tuple(kinds), **more)


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


def unpacked(event: Event, most: int) -> Iterator[Event]:
    """The events of a compressed transaction, one by one. They stand where it stands.

    Raises ``Malformed`` for one of more than ``most`` bytes.
    """
    stream = _payload(event.body)
    while header := _exactly(stream, HEADER.size):
        moment, kind, _, size, _, _ = HEADER.unpack(header)
        if not HEADER.size <= size <= most:
            raise Malformed("an event of an impossible size in a compressed transaction")
        yield Event(kind, moment, event.end, _exactly(stream, size - HEADER.size))


@strictly
def _payload(body: bytes) -> io.BufferedIOBase:
    """Behind fields of a number, a size and a value: how it is packed, and others."""
    at, packing = 0, _ZSTD
    while (kind := packed_integer(body, at))[0] != _END_OF_FIELDS:
        size, at = packed_integer(body, kind[1])
        if kind[0] == _PACKING:
            packing = packed_integer(body, at)[0]
        at += size
    payload = io.BytesIO(body[kind[1] :])
    if packing != _ZSTD:
        return payload
    return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(payload, read_across_frames=True))


def _exactly(stream: io.BufferedIOBase, size: int) -> bytes:
    """So many bytes, or none at the end."""
    try:
        found = stream.read(size)
    except zstandard.ZstdError as error:
        raise Malformed("a compressed transaction that cannot be unpacked") from error
    if found and len(found) < size:
        raise Malformed("a compressed transaction that ends too early")
    return found


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


def _optional(data: bytes, at: int, kinds: list[tuple[int, bytes]], characters: frozenset[int]) -> dict[str, Any]:
    real = [real_kind(*kind)[0] for kind in kinds]
    places = {
        "characters": [place for place, code in enumerate(real) if code in characters],
        "labels": [place for place, code in enumerate(real) if code in (_ENUM, _SET)],
    }
    collations: dict[int, int] = {}
    labels: dict[int, tuple[bytes, ...]] = {}
    found: dict[str, Any] = {"collations": collations, "labels": labels}
    while at < len(data):
        kind = data[at]
        size, at = packed_integer(data, at + 1)
        value = data[at : at + size]
        at += size
        if kind == _NAMES:
            found["names"] = tuple(each.decode() for each in _strings(value))
        elif kind == _SIGNEDNESS:
            bits = iter("".join(f"{byte:08b}" for byte in value))
            found["unsigned"] = tuple(code in _NUMBERS and next(bits, "0") == "1" for code in real)
        elif kind in (_CHARSETS, _LABELS_CHARSETS):
            of = places["characters" if kind == _CHARSETS else "labels"]
            default, *exceptions = _integers(value)
            collations |= dict.fromkeys(of, default)
            collations |= {of[exceptions[n]]: exceptions[n + 1] for n in range(0, len(exceptions), 2)}
        elif kind in (_CHARSET_EACH, _LABELS_CHARSET_EACH):
            of = places["characters" if kind == _CHARSET_EACH else "labels"]
            collations |= zip(of, _integers(value), strict=True)
        elif kind in (_ENUMS, _SETS):
            wanted = _ENUM if kind == _ENUMS else _SET
            labels |= zip((place for place, code in enumerate(real) if code == wanted), _lists(value), strict=True)
    return found


def real_kind(code: int, metadata: bytes) -> tuple[int, int]:
    """The kind of a column and the most bytes of it: in a table map, some kinds hide in that of CHAR."""
    if code != 254:
        return code, int.from_bytes(metadata, "little")
    first, second = metadata
    if first in (_ENUM, _SET):
        return first, second
    if first & 0x30 != 0x30:
        return first | 0x30, second | ((first & 0x30 ^ 0x30) << 4)
    return first, second


def _integers(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        number, at = packed_integer(data, at)
        found.append(number)
    return found


def _strings(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        size, at = packed_integer(data, at)
        found.append(data[at : at + size])
        at += size
    return found


def _lists(data: bytes) -> Iterator[tuple[bytes, ...]]:
    """Of strings, each list after its length."""
    at = 0
    while at < len(data):
        count, at = packed_integer(data, at)
        found = []
        for _ in range(count):
            size, at = packed_integer(data, at)
            found.append(data[at : at + size])
            at += size
        yield tuple(found)
