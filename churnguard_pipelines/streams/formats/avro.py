"""Messages in Avro: bare, in a schema registry's envelope, or in Avro's own single-object encoding. Decimals keep every
digit as text, moments are ISO 8601, bytes base64.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import date
from functools import cached_property
from typing import Any
from uuid import UUID

import fastavro
from fastavro.read import LOGICAL_READERS
from fastavro.schema import fingerprint, to_parsing_canonical_form

from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.engine.values import NUMERIC_DIGITS
from churnguard_pipelines.streams.formats import beyond_json
from churnguard_pipelines.streams.formats.avro_schema import OURS, AvroShape, measure
from churnguard_pipelines.streams.formats.decoder import MOST_VALUES, Decoded, Undecodable, written
from churnguard_pipelines.streams.formats.registry import Source
from churnguard_pipelines.streams.formats.schemas import Schema

_SINGLE_OBJECT = b"\xc3\x01"
_MOST_DECIMAL_BYTES = NUMERIC_DIGITS * 2 // 5  # 2.4 digits each
_DAY = 86_400
_1970 = date(1970, 1, 1).toordinal()


class AvroSchema(Schema):
    def __init__(self, source: Source) -> None:
        self._shape = AvroShape(source.text, source.references)

    def decoded(self, message: bytes) -> Decoded | Undecodable:
        if message.startswith(_SINGLE_OBJECT) and message[2:10] == self._fingerprint:
            message = message[10:]
        try:
            if self._shape.must_be_measured or len(message) > MOST_VALUES:
                measure(self._shape, message)
            stream = io.BytesIO(message)
            found: Any = fastavro.schemaless_reader(stream, self._shape.schema, None)
        except Malformed as error:
            return Undecodable(str(error))
        except Exception as error:  # whatever a stranger's message brings about
            return Undecodable(f"it does not fit its Avro schema ({type(error).__name__}){_hint(message)}")
        if stream.tell() != len(message):
            return Undecodable(f"it is longer than its Avro schema has it{_hint(message)}")
        return written(found["value"])

    def missing(self, path: Sequence[str]) -> Sequence[str] | None:
        return self._shape.missing(path)

    @cached_property
    def _fingerprint(self) -> bytes:
        return bytes.fromhex(fingerprint(to_parsing_canonical_form(self._shape.parsed), "CRC-64-AVRO"))


def _hint(message: bytes) -> str:
    if message.startswith(_SINGLE_OBJECT):
        return "; it may be a single object of another schema"
    if message.startswith(b"Obj\x01"):
        return "; it is a whole Avro file"
    return "; it may have a schema registry's envelope" if message.startswith(b"\0") else ""


def _decimal(value: bytes, writer: Any, _reader: Any = None) -> str:
    if len(value) > _MOST_DECIMAL_BYTES:
        raise Malformed("a decimal of too many digits")
    number, scale = int.from_bytes(value, signed=True), writer["scale"]
    digits = f"{abs(number):0{scale + 1}d}"
    text = f"{digits[:-scale]}.{digits[-scale:]}" if scale else digits
    return f"-{text}" if number < 0 else text


def _duration(value: bytes, _writer: Any, _reader: Any = None) -> str:
    months, days, millis = (int.from_bytes(value[at : at + 4], "little") for at in (0, 4, 8))
    seconds, millis = divmod(millis, 1000)
    return f"P{months}M{days}DT{seconds}{beyond_json.fraction(millis * 1_000_000)}S"


def _date(value: int, _writer: Any, _reader: Any = None) -> str:
    try:
        return date.fromordinal(_1970 + value).isoformat()
    except (ValueError, OverflowError):
        raise Malformed("a date outside the years 1 to 9999") from None


def _time(a_second: int) -> Callable[..., str]:
    def read(value: int, _writer: Any, _reader: Any = None) -> str:
        seconds, rest = divmod(value, a_second)
        if not 0 <= seconds < _DAY:
            raise Malformed("a time of day beyond its end")
        minutes, second = divmod(seconds, 60)
        fraction = beyond_json.fraction(rest * (1_000_000_000 // a_second))
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}{fraction}"

    return read


def _timestamp(a_second: int, zone: str) -> Callable[..., str]:
    def read(value: int, _writer: Any, _reader: Any = None) -> str:
        seconds, rest = divmod(value, a_second)
        try:
            return beyond_json.moment(seconds, rest * (1_000_000_000 // a_second), zone=zone)
        except ValueError as error:
            raise Malformed(str(error)) from None

    return read


_UNITS = {"millis": 1_000, "micros": 1_000_000, "nanos": 1_000_000_000}
_READERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("bytes", "binary"): lambda value, *_: beyond_json.binary(value),
    ("fixed", "binary"): lambda value, *_: beyond_json.binary(value),
    ("float", "number"): lambda value, *_: beyond_json.number(value),
    ("double", "number"): lambda value, *_: beyond_json.number(value),
    ("bytes", "decimal"): _decimal,
    ("fixed", "decimal"): _decimal,
    ("fixed", "uuid"): lambda value, *_: str(UUID(bytes=value)),
    ("fixed", "duration"): _duration,
    ("int", "date"): _date,
    ("int", "time-millis"): _time(_UNITS["millis"]),
    ("long", "time-micros"): _time(_UNITS["micros"]),
    **{("long", f"timestamp-{unit}"): _timestamp(size, "Z") for unit, size in _UNITS.items()},
    **{("long", f"local-timestamp-{unit}"): _timestamp(size, "") for unit, size in _UNITS.items()},
}
LOGICAL_READERS.update({f"{kind}-{OURS}{name}": read for (kind, name), read in _READERS.items()})
"""fastavro's one table for all; the names are ours alone."""
