"""Converts MySQL's binary JSON, as it stands in a binary log, to text.

https://dev.mysql.com/doc/dev/mysql-server/latest/json__binary_8h.html
"""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from typing import Final

from churnguard_pipelines.connectors.mysql.decimal import decimal
from churnguard_pipelines.connectors.mysql.types import NUL
from churnguard_pipelines.engine.malformed import Malformed, strictly

_OBJECTS, _ARRAYS = (0, 1), (2, 3)  # small, with offsets of two bytes, and large, with four
_LITERAL, _STRING, _OPAQUE = 4, 12, 15
_LITERALS: Final = ("null", "true", "false")
_NUMBERS: Final = {5: "<h", 6: "<H", 7: "<i", 8: "<I", 9: "<q", 10: "<Q", 11: "<d"}
_INLINE: Final = {2: (4, 5, 6), 4: (4, 5, 6, 7, 8)}  # by the size of offsets: what stands in the offset's place
_DECIMALS, _MOMENTS, _TIME = (0, 246), (10, 7, 12), 11
_DEEPEST = 100  # MySQL's own limit
_LONGEST_SIZE = 5  # bytes that tell a size


@strictly
def text(document: bytes) -> str:
    """An empty one, which an old server may leave in a column that it added, is null. Raises ``Malformed``."""
    return _value(document[0], document, 1, _Budget(len(document))) if document else "null"


class _Budget:
    """Values may point to one another's bytes: without it, some kilobytes could stand for any number of gigabytes."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.depth = 0

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0 or self.depth > _DEEPEST:
            raise Malformed("JSON whose parts are more than the whole, or nested too deeply")


def _value(kind: int, data: bytes, at: int, budget: _Budget) -> str:
    if kind in _OBJECTS or kind in _ARRAYS:
        return _container(data, at, 4 if kind in (1, 3) else 2, budget, is_object=kind in _OBJECTS)
    if kind == _LITERAL:
        return _LITERALS[data[at]]
    if kind in _NUMBERS:
        return repr(struct.unpack_from(_NUMBERS[kind], data, at)[0])
    if kind == _STRING:
        size, at = _size(data, at)
        budget.spend(size)
        return _string(data[at : at + size])
    if kind == _OPAQUE:
        return _opaque(data, at, budget)
    raise ValueError(f"JSON of kind {kind}")


def _container(data: bytes, base: int, width: int, budget: _Budget, *, is_object: bool) -> str:
    def number(at: int) -> int:
        return int.from_bytes(data[at : at + width], "little")

    count = number(base)
    entries = base + 2 * width
    values = entries + count * (width + 2 if is_object else 0)
    budget.depth += 1
    budget.spend(count * (width + 1))
    items = []
    for place in range(count):
        entry = values + place * (width + 1)
        kind = data[entry]
        at = entry + 1 if kind in _INLINE[width] else base + number(entry + 1)
        written = _value(kind, data, at, budget)
        if is_object:
            key = entries + place * (width + 2)
            begin, size = base + number(key), int.from_bytes(data[key + width : key + width + 2], "little")
            budget.spend(size)
            written = f"{_string(data[begin : begin + size])}: {written}"
        items.append(written)
    budget.depth -= 1
    return ("{" + ", ".join(items) + "}") if is_object else ("[" + ", ".join(items) + "]")


def _string(value: bytes) -> str:
    return json.dumps(value.decode().replace("\0", NUL), ensure_ascii=False)


def _size(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the least first."""
    size = 0
    for place in range(_LONGEST_SIZE):
        byte = data[at + place]
        size |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return size, at + place + 1
    raise Malformed("a size that does not end")


def _opaque(data: bytes, at: int, budget: _Budget) -> str:
    """A value of SQL's: decimals become numbers, moments text, anything else what the server shows of it."""
    kind = data[at]
    size, at = _size(data, at + 1)
    budget.spend(size)
    value = data[at : at + size]
    if kind in _DECIMALS:
        return decimal(value[0], value[1])(value, 2)[0]
    if kind in _MOMENTS or kind == _TIME:
        return f'"{_moment(kind, int.from_bytes(value, "little", signed=True))}"'
    return json.dumps(f"base64:type{kind}:{b64encode(value).decode()}")


def _moment(kind: int, packed: int) -> str:
    sign, packed = ("-", -packed) if packed < 0 else ("", packed)
    fraction, whole = packed & 0xFFFFFF, packed >> 24
    clock = f"{whole >> 12 & (1023 if kind == _TIME else 31):02d}:{whole >> 6 & 63:02d}:{whole & 63:02d}.{fraction:06d}"
    if kind == _TIME:
        return sign + clock
    months = whole >> 22
    day = f"{months // 13:04d}-{months % 13:02d}-{whole >> 17 & 31:02d}"
    return day if kind == 10 else f"{day} {clock}"
