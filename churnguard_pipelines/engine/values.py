"""Converts provider values to values that fit a raw column. Each function takes one JSON value that is not None and
returns what the warehouse writer copies as text, or raises :class:`TypeMismatch` with a reason that never repeats the
value."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any

import orjson

from churnguard_pipelines.records import ColumnType

INT64 = 1 << 63
LONGEST_KEY = 500
"""Characters; the primary key's B-tree takes no entry beyond about 2,700 bytes."""

NUMERIC_DIGITS = 4000
"""Digits before or after the point. PostgreSQL takes more; Python does not print more (4,300)."""

_DIGITS = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]{1,6})?")
_VIEWED_MOMENT = re.compile(
    r"(?!0001-01-01.{0,30}\+|9999-12-31.{0,30}-)[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]{1,9})?)?"
    r"(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)?)?"
)
"""As views.moment_of() reads them."""
_VIEWED_NUMBER = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]{1,4})?")
_LONGEST_VIEWED_NUMBER = 4100
"""Both as views.to_numeric() reads them."""
LARGEST_VIEWED_DOUBLE = 1.797e308
"""From here on views.to_double() shows nothing."""
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_MINUTES = [f" {minute // 60:02d}:{minute % 60:02d}:" for minute in range(1440)]
_SECONDS = [f"{second:02d}+00" for second in range(60)]
_days: dict[int, str] = {}


class TypeMismatch(Exception):
    """The value cannot be stored in its column; ``str()`` is the reason."""


def key(value: Any) -> str:
    """A record's identity: text, or a whole number as text."""
    if value is None or value == "":
        raise TypeMismatch("missing")
    if type(value) is not str and type(value) is not int:
        raise _unexpected("text or a whole number", value)
    found = text(value)
    if len(found) > LONGEST_KEY:
        raise TypeMismatch(f"longer than {LONGEST_KEY} characters")
    return found


def text(value: Any) -> str:
    """Text as it is; other scalars as JSON writes them; objects and lists as JSON text."""
    if isinstance(value, str):
        return _storable(value)
    if isinstance(value, (dict, list)):
        return json_text(value)
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal)):
        try:
            return str(_finite(value))
        except ValueError:
            raise TypeMismatch("a number too long to be stored") from None
    if isinstance(value, datetime):
        return moment(value).isoformat(" ")
    if isinstance(value, bytes):
        raise _unexpected("text", value)
    return _storable(str(value))


def bigint(value: Any) -> int:
    """Whole numbers within 64 bits, also written as a float without fraction or as digits."""
    if isinstance(value, bool):
        raise _unexpected("a whole number", value)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, (float, Decimal)):
        if not -INT64 <= _finite(value) < INT64:
            raise TypeMismatch("a whole number beyond 64 bits")
        if value % 1:
            raise TypeMismatch("expected a whole number, got one with a fraction")
        value = int(value)
    if not isinstance(value, int):
        raise _unexpected("a whole number", value)
    if not -INT64 <= value < INT64:
        raise TypeMismatch("a whole number beyond 64 bits")
    return value


def numeric(value: Any) -> int | float | Decimal:
    """Exact where the provider is: text and Decimal keep every digit."""
    if isinstance(value, bool):
        raise _unexpected("a number", value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        try:
            value = Decimal(value)
        except InvalidOperation:
            raise TypeMismatch("a number beyond what can be stored") from None
    if isinstance(value, int):
        value = Decimal(value) if abs(value) >= INT64 else value
    if not isinstance(value, (int, float, Decimal)):
        raise _unexpected("a number", value)
    if isinstance(value, Decimal) and _finite(value):
        exponent = value.as_tuple().exponent
        if value.adjusted() > NUMERIC_DIGITS or (isinstance(exponent, int) and exponent < -NUMERIC_DIGITS):
            raise TypeMismatch("a number beyond what can be stored")
        return value
    _finite(value)
    return value


def double(value: Any) -> float:
    if isinstance(value, bool):
        raise _unexpected("a number", value)
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise _unexpected("a number", value)
    if not isinstance(value, (str, int, float, Decimal)):
        raise _unexpected("a number", value)
    try:
        number = float(value)
    except (OverflowError, ValueError):  # the latter of a signaling NaN
        number = float("inf")
    if not isfinite(number):
        raise TypeMismatch("a number beyond what can be stored")
    return number


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise _unexpected("true or false", value)


def timestamp(value: Any) -> str | None:
    """Epoch seconds or ISO 8601 (without an offset: UTC), years 1 to 9999, as UTC text. An empty text is no moment."""
    if type(value) is int:
        day, second = divmod(value, 86400)
        minute, second = divmod(second, 60)
        return (_days.get(day) or _day(day)) + _MINUTES[minute] + _SECONDS[second]
    if value == "":
        return None
    return moment(value).isoformat(" ")


def moment(value: Any) -> datetime:
    """The same as :func:`timestamp`, as a UTC datetime."""
    if isinstance(value, bool):
        raise _unexpected("a date and time", value)
    try:
        if isinstance(value, (int, float, Decimal)):
            return datetime.fromtimestamp(float(value), UTC)
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(found, date) and not isinstance(found, datetime):
            found = datetime.combine(found, time())
        if isinstance(found, datetime):
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (OverflowError, OSError):
        raise TypeMismatch("a moment outside the years 1 to 9999 (epoch seconds are meant, not milliseconds)") from None
    except ValueError:
        if isinstance(value, str):
            raise _unexpected("a date and time in ISO 8601", value) from None
        raise TypeMismatch("a moment outside the years 1 to 9999 (epoch seconds are meant, not milliseconds)") from None
    raise _unexpected("a date and time", value)


def day(value: Any) -> str | None:
    """ISO 8601 date, also with a time of 00:00:00. An empty text is no date."""
    if value == "":
        return None
    if isinstance(value, (str, date)):
        try:
            found = datetime.fromisoformat(value) if isinstance(value, str) else value
        except ValueError:
            raise _unexpected("a date in ISO 8601", value) from None
        if not isinstance(found, datetime):
            return found.isoformat()
        if found.time() == time():
            return found.date().isoformat()
        raise TypeMismatch("expected a date, got one with a time of day")
    raise _unexpected("a date", value)


def json_text(value: Any) -> str:
    """Any JSON value as text that ``jsonb`` takes. What JSON does not know (dates, decimals, …) becomes a string."""
    try:
        data = orjson.dumps(value, default=str).decode()
    except (orjson.JSONEncodeError, RecursionError):  # integers beyond 64 bits, very deep, lone surrogates
        try:
            data = _storable(json.dumps(value, ensure_ascii=False, default=str))
        except (ValueError, RecursionError):
            raise TypeMismatch("JSON nested too deep or with a number too long to be stored") from None
    if "\\u0000" in data and has_nul(value):
        raise TypeMismatch("holds a NUL character, which PostgreSQL cannot store")
    return data


CONVERTERS: dict[ColumnType, Callable[[Any], Any]] = {
    ColumnType.TEXT: text,
    ColumnType.BIGINT: bigint,
    ColumnType.NUMERIC: numeric,
    ColumnType.DOUBLE: double,
    ColumnType.BOOLEAN: boolean,
    ColumnType.TIMESTAMP: timestamp,
    ColumnType.DATE: day,
    ColumnType.JSON: json_text,
}


def viewed(kind: ColumnType, value: Any) -> None:
    """Raises ``TypeMismatch`` for what an integration's view shows as null: what does not fit; texts of more than 4,100
    characters that are numbers; the last thousandth of what a double precision holds; and moments that are not written
    as ``2026-01-31``, ``2026-01-31T10:00``, … with seconds, their fractions and an offset where there is one.
    """
    converted = CONVERTERS[kind](value)
    if kind is ColumnType.DOUBLE and abs(converted) >= LARGEST_VIEWED_DOUBLE:
        raise TypeMismatch("a number beyond what can be shown")
    if not isinstance(value, str) or not value:
        return
    if kind in (ColumnType.TIMESTAMP, ColumnType.DATE) and not _VIEWED_MOMENT.fullmatch(value):
        raise TypeMismatch("a date or time that is not written as 2026-01-31T10:00:00Z")
    number = len(value) <= _LONGEST_VIEWED_NUMBER and _VIEWED_NUMBER.fullmatch(value)
    if kind in (ColumnType.NUMERIC, ColumnType.DOUBLE) and not number:
        raise TypeMismatch("a number of too many digits")


def type_name(value: Any) -> str:
    """What a person calls the value's type."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", int: "a whole number", float: "a number", dict: "an object", list: "a list"}
    return names.get(type(value), type(value).__name__)


def has_nul(value: Any) -> bool:
    """However deep it is."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            if "\0" in each:
                return True
        elif isinstance(each, dict):
            waiting += each
            waiting += each.values()
        elif isinstance(each, (list, tuple)):
            waiting += each
    return False


def _day(number: int) -> str:
    try:
        name = date.fromordinal(_EPOCH_DAY + number).isoformat()
    except (ValueError, OverflowError):
        raise TypeMismatch("a moment outside the years 1 to 9999 (epoch seconds are meant, not milliseconds)") from None
    if len(_days) > 50_000:
        _days.clear()
    _days[number] = name
    return name


def _storable(value: str) -> str:
    if "\0" in value:
        raise TypeMismatch("holds a NUL character, which PostgreSQL cannot store")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TypeMismatch("holds half of a surrogate pair, which is not a character") from None
    return value


def _finite(value: Any) -> Any:
    # Not isfinite() for a Decimal or an int: it goes through a float, which overflows.
    if not (value.is_finite() if isinstance(value, Decimal) else isinstance(value, int) or isfinite(value)):
        raise TypeMismatch("not a finite number")
    return value


def _unexpected(expected: str, value: Any) -> TypeMismatch:
    return TypeMismatch(f"expected {expected}, got {type_name(value)}")
