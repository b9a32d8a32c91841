"""Converts BSON to what PostgreSQL reads: keys as text, fields as typed columns, whole documents as Extended JSON.

The matrix stands in docs/mongodb.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from bson import Decimal128, Int64, ObjectId, Regex, Timestamp, json_util
from bson.binary import UUID_SUBTYPE, Binary
from bson.code import Code
from bson.codec_options import CodecOptions, DatetimeConversion, TypeDecoder, TypeRegistry
from bson.datetime_ms import DatetimeMS
from bson.errors import InvalidBSON

from churnguard_pipelines.mirror_types import Base
from churnguard_pipelines.mirrors import SourceTable, Values
from churnguard_pipelines.store.raw.copy_text import encode

KEY, WHOLE, CONTENT = "_id", "document", "content"
CONTENT_SOURCE = "GridFS chunks"
NUL_STANDS_AS = "\u2400"  # PostgreSQL's text holds any character but NUL

NOT_KEPT = "a document that MongoDB would not keep: without an _id, or nested deeper than 100 levels"

_CANONICAL = json_util.CANONICAL_JSON_OPTIONS.with_options(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
_RELAXED = json_util.RELAXED_JSON_OPTIONS
_OURS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_OBJECT_ID = re.compile(r"[0-9a-f]{24}")
_LIKE_ANOTHER = re.compile(
    r"[0-9a-f]{24}|true|false|null|-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|[\[{\"].*|.*\0.*", re.DOTALL
)
_BELOW_LONG = 2.0**63
_EXACT_DOUBLE = 2**53
_SIGNIFICAND = 2**113 - 1
_MOST_SIGNIFICAND = 10**34
_DAY = 86_400_000  # milliseconds
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  as the driver decodes: without a zone, UTC
_EPOCH_JULIAN = 2_440_588
_LAST_JULIAN = 109_203_527  # 294276-12-31, the last day that PostgreSQL knows; its first is 0


@dataclass(frozen=True, slots=True)
class NotFinite:
    """A double without digits, which JSON does not know. ``text``: as Extended JSON and PostgreSQL say it."""

    text: str


@dataclass(frozen=True, slots=True)
class Script:
    """JavaScript code. The driver's own class is a string, which JSON would take for one."""

    code: Code


class _Doubles(TypeDecoder):
    bson_type = float

    def transform_bson(self, value: float) -> float | NotFinite:
        if math.isfinite(value):
            return value
        return NotFinite("NaN" if value != value else "Infinity" if value > 0 else "-Infinity")


class _Scripts(TypeDecoder):
    bson_type = Code

    def transform_bson(self, value: Code) -> Script:
        return Script(value)


DECODING: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,  # what Python's datetime cannot hold stays a number
    unicode_decode_error_handler="replace",
    type_registry=TypeRegistry([_Doubles(), _Scripts()]),
)


def key_text(value: Any) -> str:
    """A document's ``_id``; different ids have different texts.

    An ObjectId is its 24 digits, a number its own, which are the same for an integer and an equal double, as they are
    the same id to MongoDB. A string is itself unless it could be taken for another id's text: then it is quoted.
    Anything else is canonical Extended JSON, which keeps its type.
    """
    kind = type(value)
    if kind is ObjectId or kind is int or kind is Int64:
        return str(value)
    if kind is str and not _LIKE_ANOTHER.fullmatch(value):
        return str(value)
    if kind is float:
        return str(int(value)) if value.is_integer() and abs(value) < _BELOW_LONG else repr(value)
    return extended(value)


def key_value(text: str) -> Any:
    """The ``_id`` that has this text."""
    if _OBJECT_ID.fullmatch(text):
        return ObjectId(text)
    return from_extended(text) if _LIKE_ANOTHER.fullmatch(text) else text


def extended(value: Any) -> str:
    """Canonical Extended JSON, from which :func:`from_extended` makes the same value."""
    return json_util.dumps(_native(value), json_options=_CANONICAL, separators=(",", ":"))


def from_extended(text: str) -> Any:
    return json_util.loads(text, json_options=_CANONICAL)


def json_text(value: Any) -> str:
    """Relaxed Extended JSON that jsonb can hold."""
    written = orjson.dumps(value, default=_relaxed, option=_OURS)
    if b"\\u0000" in written:
        written = orjson.dumps(_without_nul(orjson.loads(written)))
    return written.decode()


class Rows:
    """Documents of one table as rows of its columns. ``content_of``: of a file of GridFS, by its document."""

    def __init__(self, table: SourceTable, content_of: Callable[[Mapping[str, Any]], str | None]) -> None:
        self._content_of = content_of
        self._columns: list[tuple[str, Callable[[Any], Any]]] = []
        self._has_content = False
        self._strings = {1 + place for place, column in enumerate(table.columns) if column.type.base in _STRINGS}
        for column in table.columns:
            if column.name == CONTENT and column.source_type == CONTENT_SOURCE:
                self._has_content = True
            elif column.name not in (KEY, WHOLE):
                self._columns.append((column.name, _CONVERSIONS[column.type.base]))

    def values(self, document: Mapping[str, Any]) -> Values:
        """What does not fit its column is None there; the whole document has it. Raises ``InvalidBSON`` for a document
        that no MongoDB would keep: without an id, or deeper than its 100 levels."""
        try:
            return self._values(document)
        except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InvalidBSON(NOT_KEPT) from error

    def _values(self, document: Mapping[str, Any]) -> Values:
        get = document.get
        row: list[Any] = [key_text(document[KEY])]
        row += [None if (value := get(name)) is None else convert(value) for name, convert in self._columns]
        if self._has_content:
            row.append(self._content_of(document))
        row.append(json_text(document))
        return tuple(row)

    def copied(self, version: int, rows: Sequence[Values]) -> bytes:
        """As COPY reads them."""
        return encode([(version, *row) for row in rows], self._strings)


def decimal_text(value: Decimal128) -> str:
    """As ``str`` says it, which builds a tuple of digits first: here that is only for what needs an exponent or is not
    finite. The layout is IEEE 754's decimal128 with a binary significand."""
    encoded = int.from_bytes(value.bid, "little")
    exponent = (encoded >> 113 & 0x3FFF) - 6176
    significand = encoded & _SIGNIFICAND
    if not (-34 <= exponent <= 0 and significand < _MOST_SIGNIFICAND):
        return str(value)
    digits = str(significand)
    whole = len(digits) + exponent
    if whole <= -6:
        return str(value)
    sign = "-" if encoded >> 127 else ""
    if exponent == 0:
        return sign + digits
    return f"{sign}{digits[:whole]}.{digits[whole:]}" if whole > 0 else f"{sign}0.{digits.zfill(-exponent)}"


def bytes_text(value: bytes) -> str:
    return f"\\x{value.hex()}"


def _text(value: Any) -> str | None:
    kind = type(value)
    if kind is str:
        return str(value).replace("\0", NUL_STANDS_AS)
    if kind is ObjectId:
        return str(value)
    if kind is Regex:
        flags = "".join(letter for bit, letter in ((re.I, "i"), (re.M, "m"), (re.S, "s"), (re.X, "x"))
                        if value.flags & bit)  # fmt: skip
        return f"/{value.pattern}/{flags}"
    if kind is Script:
        return str(value.code).replace("\0", NUL_STANDS_AS)
    return f"{value.time}:{value.inc}" if kind is Timestamp else None


def _boolean(value: Any) -> bool | None:
    return value if type(value) is bool else None


def _bigint(value: Any) -> int | None:
    kind = type(value)
    if kind is int or kind is Int64:
        return int(value)
    return int(value) if kind is float and value.is_integer() and -(2.0**63) <= value < 2.0**63 else None


def _double(value: Any) -> float | str | None:
    kind = type(value)
    if kind is float:
        return float(value)
    if kind is NotFinite:
        return str(value.text)
    return int(value) if kind in (int, Int64) and -_EXACT_DOUBLE <= value <= _EXACT_DOUBLE else None


def _numeric(value: Any) -> int | float | str | None:
    kind = type(value)
    if kind is Decimal128:
        text = decimal_text(value)
        return "NaN" if "NaN" in text else text  # a signalling or a signed one
    if kind is int or kind is Int64 or kind is float:
        return value  # type: ignore[no-any-return]
    return str(value.text) if kind is NotFinite else None


def _moment(value: Any) -> str | None:
    kind = type(value)
    if kind is datetime:
        return f"{value.isoformat()}Z"
    if kind is not DatetimeMS:
        return None
    days, rest = divmod(int(value), _DAY)
    julian = days + _EPOCH_JULIAN
    if not 0 <= julian <= _LAST_JULIAN:
        return None
    seconds, milliseconds = divmod(rest, 1000)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"
    return f"J{julian} {clock} UTC"


def _uuid(value: Any) -> str | None:
    return value.hex() if is_uuid(value) else None


def is_uuid(value: Any) -> bool:
    """Of the subtype that says so; the bytes of the older one stand in an order that depends on who wrote them."""
    return type(value) is Binary and value.subtype == UUID_SUBTYPE and len(value) == 16


def _bytea(value: Any) -> str | None:
    return bytes_text(value) if isinstance(value, bytes) else None


_CONVERSIONS: dict[Base, Callable[[Any], Any]] = {
    Base.TEXT: _text,
    Base.BOOLEAN: _boolean,
    Base.BIGINT: _bigint,
    Base.DOUBLE: _double,
    Base.NUMERIC: _numeric,
    Base.TIMESTAMPTZ: _moment,
    Base.UUID: _uuid,
    Base.BYTEA: _bytea,
    Base.JSONB: json_text,
}
_STRINGS = (Base.TEXT, Base.TIMESTAMPTZ, Base.UUID, Base.BYTEA, Base.JSONB)


def _relaxed(value: Any) -> Any:
    """What orjson does not know by itself."""
    kind = type(value)
    if kind is ObjectId:
        return {"$oid": str(value)}
    if kind is datetime and value >= _EPOCH:
        return {"$date": f"{value.isoformat(timespec='milliseconds' if value.microsecond else 'seconds')}Z"}
    if kind is Decimal128:
        return {"$numberDecimal": decimal_text(value)}
    if kind is NotFinite:
        return {"$numberDouble": value.text}
    return json_util.default(_native(value), _RELAXED)


def _native(value: Any) -> Any:
    """With the driver's own classes in place of ours."""
    if isinstance(value, dict):
        return {name: _native(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_native(item) for item in value]
    if type(value) is NotFinite:
        return float(value.text)
    return value.code if type(value) is Script else value


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", NUL_STANDS_AS)
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    return [_without_nul(item) for item in value] if isinstance(value, list) else value
