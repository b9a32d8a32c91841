"""Converts the values of binary log rows to the text that PostgreSQL reads, by one function per column and table.

The text is the same that the server writes when the table is read (see ``mysql_types``).
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final
from uuid import UUID

from churnguard_pipelines.connectors.mysql.catalog import FoundColumn
from churnguard_pipelines.connectors.mysql.charsets import BINARY, Decode
from churnguard_pipelines.connectors.mysql.decimal import decimal, decimal_size
from churnguard_pipelines.connectors.mysql.events import TableMap, real_kind
from churnguard_pipelines.connectors.mysql.json import text as json_text
from churnguard_pipelines.connectors.mysql.types import JSON_AS_POSTGRESQL_READS_IT, SPATIAL
from churnguard_pipelines.engine.malformed import Malformed, strictly
from churnguard_pipelines.mirror_types import Base
from churnguard_pipelines.mirrors import Values

Read = Callable[[bytes, int], tuple[Any, int]]
"""From the bytes at a place: the value, and the place after it."""

_ENUM, _SET = 247, 248
_INTEGERS: Final = (1, 2, 9, 3, 8)
_STRINGS: Final = (15, 252, 253, 254)
_FAMILIES: Final = {
    "tinyint": _INTEGERS, "smallint": _INTEGERS, "mediumint": _INTEGERS, "int": _INTEGERS, "bigint": _INTEGERS,
    "float": (4, 5), "double": (4, 5), "decimal": (246,), "date": (10,), "datetime": (18,), "timestamp": (17,),
    "time": (19,), "year": (13,), "bit": (16,), "enum": (_ENUM,), "set": (_SET,), "json": (245,),
    "uuid": (254,), "inet6": (254,), "inet4": (254,), "vector": (*_STRINGS, 242),
} | dict.fromkeys(SPATIAL, (255,))  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIZES: Final = {1: 1, 2: 2, 9: 3, 3: 4, 8: 8, 4: 4, 5: 8, 10: 3, 13: 1}
_JSON = re.compile(JSON_AS_POSTGRESQL_READS_IT)
_FRACTIONS: Final = {17: 4, 18: 5, 19: 3}  # before their fractions of a second
_MOST_IMAGES: Final = 1_000_000  # a row of nulls takes a byte there, and a hundred here
_TWO_DIGITS: Final = tuple(f"{number:02d}" for number in range(100))


class Undecodable(Exception):
    """The rows of this table cannot be read; says why."""


def suits(column: FoundColumn, code: int, metadata: bytes, charset: str | None) -> bool:
    """Whether the column may have looked like that. ``charset``: of its characters then, if the log tells."""
    kind, _ = real_kind(code, metadata)
    family = _FAMILIES.get(column.data_type, _STRINGS)
    binary = column.charset is None
    return kind in family and (family is not _STRINGS or charset is None or (charset == BINARY) == binary)


class Rows:
    """Takes rows apart. ``columns``: of the table map, None for those that are not wanted; ``order``: places of the
    wanted ones in the order in which their values are handed out; ``key``: those of the key; ``decoders``: of the
    characters of each, None for one that has none.

    ``whole`` and ``key_only`` say what is read of an image: with the latter all other values are None.
    """

    def __init__(
        self,
        map: TableMap,
        columns: Sequence[FoundColumn | None],
        order: Sequence[int],
        key: Collection[int],
        decoders: Sequence[Decode | None],
    ) -> None:
        unsigned = map.unsigned or tuple(column is not None and column.unsigned for column in columns)
        self.whole: list[Read] = []
        self.key_only: list[Read] = []
        for place, ((code, metadata), column, sign) in enumerate(zip(map.kinds, columns, unsigned, strict=True)):
            passed = _passed(code, metadata, column)
            read = passed
            if column is not None:
                read = _reader(code, metadata, column, sign, decoders[place], map.labels.get(place))
            self.whole.append(read)
            self.key_only.append(read if place in key else passed)
        self._order = order
        self._straight = list(order) == list(range(len(columns)))
        self.count = len(columns)
        self._bitmap = (self.count + 7) // 8

    @strictly
    def complete(self, data: bytes, at: int) -> bool:
        """Whether the bitmap at this place says that every column is there."""
        present = int.from_bytes(data[at : at + self._bitmap], "little")
        return present & ((1 << self.count) - 1) == (1 << self.count) - 1

    @strictly
    def images(self, data: bytes, at: int, *forms: list[Read]) -> list[Values]:
        """All row images from this place on, which have these forms by turns. Raises ``Malformed``."""
        found: list[Values] = []
        size, order = self._bitmap, self._order
        end = len(data)
        if not size:
            raise Malformed("rows without columns")
        while at < end:
            if len(found) >= _MOST_IMAGES:
                raise Malformed(f"more than {_MOST_IMAGES} rows at once")
            for readers in forms:
                nulls = int.from_bytes(data[at : at + size], "little")
                at += size
                row: list[Any] = []
                for read in readers:
                    if nulls & 1:
                        row.append(None)
                    else:
                        value, at = read(data, at)
                        row.append(value)
                    nulls >>= 1
                found.append(tuple(row) if self._straight else tuple([row[place] for place in order]))
        if at != end:
            raise Malformed("a row that goes on behind the end")
        return found

    @property
    def bitmap_size(self) -> int:
        return self._bitmap


def _passed(code: int, metadata: bytes, column: FoundColumn | None) -> Read:
    """Not looked at. Raises ``Undecodable`` for kinds that nobody knows the size of."""
    kind, size = real_kind(code, metadata)
    if kind in (254, 253, 15):
        return _counted(2 if size > 255 else 1, len)
    if kind in (252, 255, 245, 242):
        return _counted(size, len)
    if kind in _FRACTIONS:
        width = _FRACTIONS[kind] + (size + 1) // 2
    elif kind == 246:
        width = decimal_size(*metadata)
    elif kind == 16:
        width = (metadata[0] + 8 * metadata[1] + 7) // 8
    elif kind in (_ENUM, _SET):
        width = size
    elif kind in _SIZES:
        width = _SIZES[kind]
    else:
        raise Undecodable(
            f"its column {column.name if column else '?'} is stored in a way (kind {kind}) that we cannot read in the "
            "log. `ALTER TABLE … FORCE` brings old tables' columns up to date; compressed columns cannot be followed."
        )
    return lambda data, at: (None, at + width)


def _reader(
    code: int,
    metadata: bytes,
    column: FoundColumn,
    unsigned: bool,
    decode: Decode | None,
    labels: Sequence[bytes] | None,
) -> Read:
    kind, size = real_kind(code, metadata)
    if kind in _INTEGERS:
        return _integer(_SIZES[kind], unsigned)
    if kind in (_ENUM, _SET):
        known = column.members if labels is None or decode is None else tuple(map(decode, labels))
        return _enum(size, known) if kind == _ENUM else _set(size, known)
    if kind in (254, 253, 15):
        return _counted(2 if size > 255 else 1, _finish(column, size, decode))
    if kind in (252, 255, 245, 242):
        return _counted(size, _finish(column, 0, decode, document=kind == 245))
    if kind == 246:
        return decimal(*metadata)
    if kind in _FIXED:
        return _FIXED[kind](size)
    return _bits(metadata[0] + 8 * metadata[1], column)


def _integer(size: int, unsigned: bool) -> Read:
    signed = not unsigned

    def read(data: bytes, at: int) -> tuple[Any, int]:
        end = at + size
        return str(int.from_bytes(data[at:end], "little", signed=signed)), end

    return read


def _counted(size: int, finish: Callable[[bytes], Any]) -> Read:
    if size == 1:

        def read_short(data: bytes, at: int) -> tuple[Any, int]:
            begin = at + 1
            end = begin + data[at]
            return finish(data[begin:end]), end

        return read_short

    def read(data: bytes, at: int) -> tuple[Any, int]:
        begin = at + size
        end = begin + int.from_bytes(data[at:begin], "little")
        return finish(data[begin:end]), end

    return read


def _finish(column: FoundColumn, size: int, decode: Decode | None, *, document: bool = False) -> Callable[[bytes], Any]:
    """Bytes of a string as the column's text."""
    if document:
        return json_text
    if column.data_type in SPATIAL:
        return lambda value: "\\x" + value[4:].hex()
    if column.data_type == "uuid":
        return _uuid
    if column.data_type == "inet6":
        return lambda value: str(IPv6Address(value.ljust(16, b"\0")))
    if column.data_type == "inet4":
        return lambda value: str(IPv4Address(value.ljust(4, b"\0")))
    if decode is not None and column.charset is not None:
        return _json_of(decode) if column.kind.type.base is Base.JSON else decode
    if column.data_type == "binary":  # the log leaves out zeros at its end
        return lambda value: "\\x" + value.ljust(size, b"\0").hex()
    return lambda value: "\\x" + value.hex()


def _json_of(decode: Decode) -> Callable[[bytes], str]:
    def text(value: bytes) -> str:
        written = decode(value)
        return written if _JSON.fullmatch(written) else json.dumps(written, ensure_ascii=False)

    return text


def _uuid(value: bytes) -> str:
    """MariaDB keeps the parts of a UUID in the reverse order, so that its variant's bit comes where others have their
    version, but those that sort well as they are."""
    value = value.ljust(16, b"\0")
    if value[6] & 0x80:
        value = value[12:] + value[10:12] + value[8:10] + value[6:8] + value[:6]
    return str(UUID(bytes=value))


def _enum(size: int, members: Sequence[str]) -> Read:
    labels = ("", *members)

    def read(data: bytes, at: int) -> tuple[Any, int]:
        number = int.from_bytes(data[at : at + size], "little")
        return (labels[number] if number < len(labels) else str(number)), at + size

    return read


def _set(size: int, members: Sequence[str]) -> Read:
    quoted = ['"' + each.replace("\\", "\\\\").replace('"', '\\"') + '"' for each in members]

    def read(data: bytes, at: int) -> tuple[Any, int]:
        bits = int.from_bytes(data[at : at + size], "little")
        chosen = ",".join(label for place, label in enumerate(quoted) if bits >> place & 1)
        return "{" + chosen + "}", at + size

    return read


def _bits(count: int, column: FoundColumn) -> Read:
    size = (count + 7) // 8
    boolean = column.kind.type.base is Base.BOOLEAN

    def read(data: bytes, at: int) -> tuple[Any, int]:
        number = int.from_bytes(data[at : at + size], "big")
        return (("f", "t")[number & 1] if boolean else f"{number:0{count}b}"), at + size

    return read


def _float(size: int) -> Read:
    form = struct.Struct("<f" if size == 4 else "<d")
    return lambda data, at: (repr(form.unpack_from(data, at)[0]), at + form.size)


def _date(_: int) -> Read:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        number = int.from_bytes(data[at : at + 3], "little")
        return _day(number >> 9, number >> 5 & 15, number & 31, ""), at + 3

    return read


def _year(_: int) -> Read:
    return lambda data, at: (str(data[at] + 1900 if data[at] else 0), at + 1)


def _timestamp(digits: int) -> Read:
    size = (digits + 1) // 2

    def read(data: bytes, at: int) -> tuple[Any, int]:
        seconds, end = int.from_bytes(data[at : at + 4], "big"), at + 4 + size
        fraction = _fraction(int.from_bytes(data[at + 4 : end], "big"), size, digits)
        if not seconds:  # the moment zero is no moment; 1970 begins with second 1
            return None, end
        moment = _EPOCH + timedelta(seconds=seconds)
        return f"{moment:%Y-%m-%d %H:%M:%S}{fraction}+00", end

    return read


def _datetime(digits: int) -> Read:
    size, two = (digits + 1) // 2, _TWO_DIGITS

    def read(data: bytes, at: int) -> tuple[Any, int]:
        number, end = int.from_bytes(data[at : at + 5], "big") & 0x7FFFFFFFFF, at + 5 + size
        fraction = _fraction(int.from_bytes(data[at + 5 : end], "big"), size, digits) if digits else ""
        clock = f" {two[number >> 12 & 31]}:{two[number >> 6 & 63]}:{two[number & 63]}{fraction}"
        months = number >> 22
        return _day(months // 13, months % 13, number >> 17 & 31, clock), end

    return read


def _time(digits: int) -> Read:
    size = (digits + 1) // 2
    bits, zero = 24 + 8 * size, 1 << (23 + 8 * size)

    def read(data: bytes, at: int) -> tuple[Any, int]:
        end = at + bits // 8
        number = int.from_bytes(data[at:end], "big") - zero
        sign, number = ("-", -number) if number < 0 else ("", number)
        fraction = _fraction(number & ((1 << 8 * size) - 1), size, digits)
        whole = number >> 8 * size
        return f"{sign}{whole >> 12 & 1023:02d}:{whole >> 6 & 63:02d}:{whole & 63:02d}{fraction}", end

    return read


def _fraction(number: int, size: int, digits: int) -> str:
    return f".{number:0{2 * size}d}"[: digits + 1] if digits else ""


def _day(year: int, month: int, day: int, clock: str) -> str | None:
    """None for what is no day."""
    if month == 0 or day == 0 or (day > 28 and day > _days(year, month)):
        return None
    rest = f"{_TWO_DIGITS[month]}-{_TWO_DIGITS[day]}{clock}"
    return f"{year:04d}-{rest}" if year else f"0001-{rest} BC"


def _days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


_FIXED: Final[dict[int, Callable[[int], Read]]] = {
    4: lambda _: _float(4), 5: lambda _: _float(8), 10: _date, 13: _year, 17: _timestamp, 18: _datetime, 19: _time,
}  # fmt: skip
