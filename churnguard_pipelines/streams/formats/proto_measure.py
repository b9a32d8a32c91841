"""How many values a Protobuf message makes, before it is read: two bytes are a message within it that has all of its
type's defaults.
"""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.streams.formats.decoder import MOST_VALUES

_CUT = "a message that is cut"


class Measure:
    """Of messages of one type."""

    def __init__(self, kind: Descriptor) -> None:
        self._kind = kind
        self._largest = 1 + max(len(each.fields) for each in _reachable(kind))

    def check(self, message: bytes) -> None:
        """Raises ``Malformed`` for a message of more than :data:`MOST_VALUES`."""
        if (len(message) // 2 + 1) * self._largest <= MOST_VALUES:
            return
        left = MOST_VALUES - len(self._kind.fields)
        waiting: list[tuple[int, int, Descriptor | None]] = [(0, len(message), self._kind)]
        while waiting:
            at, end, kind = waiting.pop()
            outer: list[Descriptor | None] = []
            """Of groups, which end where their end is told."""
            while at < end:
                tag, at = varint(message, at, end)
                field = kind.fields_by_number.get(tag >> 3) if kind is not None else None
                left -= field is not None
                match tag & 7:  # https://protobuf.dev/programming-guides/encoding/#structure
                    case 0:
                        _, at = varint(message, at, end)
                    case 1:
                        at += 8
                    case 5:
                        at += 4
                    case 2:
                        size, at = varint(message, at, end)
                        if size > end - at:
                            raise Malformed(_CUT)
                        if field is not None and field.type == FieldDescriptor.TYPE_MESSAGE:
                            left -= len(field.message_type.fields)
                            waiting.append((at, at + size, field.message_type))
                        elif field is not None and field.type not in _WHOLE:
                            left -= size
                        at += size
                    case 3:
                        outer.append(kind)
                        kind = field.message_type if field is not None else None
                        left -= len(kind.fields) if kind is not None else 0
                    case 4 if outer:
                        kind = outer.pop()
                    case _:
                        raise Malformed("a message that is no Protobuf")
                if left < 0:
                    raise Malformed(f"a message with more than {MOST_VALUES:,} values")


_WHOLE = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
"""Sized, and one value; of others it is a list."""


def varint(message: bytes, at: int, end: int) -> tuple[int, int]:
    """And where it ends. Raises ``Malformed``."""
    result, shift = 0, 0
    while at < end and shift < 70:
        byte = message[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
    raise Malformed(_CUT)


def _reachable(kind: Descriptor) -> list[Descriptor]:
    found, waiting = {kind.full_name: kind}, [kind]
    while waiting:
        for field in waiting.pop().fields:
            below = field.message_type
            if below is not None and below.full_name not in found:
                found[below.full_name] = below
                waiting.append(below)
    return [*found.values()]
