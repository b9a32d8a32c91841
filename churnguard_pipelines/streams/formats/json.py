"""Messages that are JSON. The text itself is stored, so that nothing is written again and no digit is lost; here it is
made sure that PostgreSQL takes it, and understood as PostgreSQL does: of two fields of one name the last counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress

import orjson

from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.engine.values import has_nul
from churnguard_pipelines.store.ingest.rejected import deeper_than
from churnguard_pipelines.streams.formats.decoder import DEEPEST, MOST_VALUES, Decoded, Decoder, Undecodable

TOGETHER = 100
"""Messages looked at as one: a strange one costs its neighbours little."""

_LOOK = bytes.maketrans(b"123456789E+", b"000000000e-")
_STRANGE_NUMBERS = (b"0" * 20, b"-" + b"0" * 19, b"e-00000", b"e0000000000")
"""Whole numbers beyond 64 bits, and exponents that PostgreSQL may refuse where a double is zero; each digit a zero."""
_STRANGE_NUMBER = re.compile(rb"(?<![.0-9])[0-9]{19}|[0-9]{4000}|[0-9][eE][+-]?[0-9]{3}")
"""Those, and what may be beyond a double; a fraction of some digits more is none."""
_NUL = b"\\u0000"

MOST_WRITTEN = 500_000_000
"""Digits that a message's exponents stand for. PostgreSQL keeps 1e-9999 in a few bytes and writes out ten thousand: a
row of more than 1 GB would be stored, but nobody could read it, or back up the table that it is in."""
LONG = 400_000
"""Bytes of a message; a shorter one has no more."""
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""To the end where it is not closed: it would be looked for from each quotation mark on otherwise."""
_EXPONENT = re.compile(rb"[0-9][eE][+-]?0*([0-9]{1,5})")


class JsonDecoder(Decoder):
    def decode(self, values: Sequence[bytes]) -> Sequence[Decoded | Undecodable]:
        results: list[Decoded | Undecodable] = []
        for start in range(0, len(values), TOGETHER):
            results += _together(values[start : start + TOGETHER])
        return results

    def check(self) -> None:
        """Whatever is JSON can be."""


def _together(values: Sequence[bytes]) -> Iterable[Decoded | Undecodable]:
    great = max(map(len, values)) > 2 * DEEPEST and any(map(_is_great, values))
    if not (great or _is_strange(b"\n".join(values))):
        with suppress(json.JSONDecodeError):  # of one message; the others are in order
            return list(map(Decoded, map(orjson.loads, values), map(bytes.decode, values)))
    return map(decoded, values)


def decoded(value: bytes) -> Decoded | Undecodable:
    """One message, however strange."""
    with suppress(json.JSONDecodeError):  # it may have a number beyond a double
        if not (_is_strange(value) or _is_great(value)):
            return Decoded(orjson.loads(value), value.decode())
    try:
        return _looked_at(value)
    except json.JSONDecodeError as error:
        return Undecodable(_reason(value, error))


def _looked_at(value: bytes) -> Decoded | Undecodable:
    """Raises ``json.JSONDecodeError``."""
    if len(value) > MOST_VALUES and sum(map(value.count, (b",", b"[", b"{"))) > MOST_VALUES:
        return Undecodable(f"JSON with more than {MOST_VALUES:,} values")
    if len(value) > LONG and _is_vast(value):
        return Undecodable(f"JSON whose numbers have more than {MOST_WRITTEN:,} digits when they are written out")
    document = exact_json.exactly(value) if _STRANGE_NUMBER.search(value) else orjson.loads(value)
    if _is_great(value) and deeper_than(DEEPEST, document):
        return Undecodable(f"JSON nested deeper than {DEEPEST} levels")
    if _NUL in value and has_nul(document):
        return Undecodable("JSON with a NUL character, which PostgreSQL cannot store")
    return Decoded(document, value.decode())


def _is_strange(messages: bytes) -> bool:
    """Most are not, and that can be told of many at once."""
    if b"\\" in messages and _NUL in messages:
        return True
    looked = messages.translate(_LOOK)
    return any(each in looked for each in _STRANGE_NUMBERS)


def _is_great(value: bytes) -> bool:
    """Whether it may be too deep, have too many values, or numbers of too many digits."""
    if len(value) <= 2 * DEEPEST:
        return False
    return len(value) > LONG or value.count(b"[") + value.count(b"{") > DEEPEST


def _is_vast(value: bytes) -> bool:
    looked = value.translate(_LOOK)
    if looked.count(b"0e000") + looked.count(b"0e-000") < MOST_WRITTEN // 12_500:  # nearly always, text included
        return False
    return sum(int(each[1]) for each in _EXPONENT.finditer(_TEXT.sub(b"", value))) > MOST_WRITTEN


def _reason(value: bytes, error: json.JSONDecodeError) -> str:
    if not value:
        return "an empty message, which is no JSON"
    if value[0] == 0:
        return "a zero byte before JSON, as a schema registry's serializers write; is `schema_registry` left out?"
    return f"no JSON ({error})"
