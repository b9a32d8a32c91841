"""Parses and writes JSON without loss: whole numbers beyond 64 bits keep every digit.

The fast parser makes a float of such a number. Few texts have as many digits in a row as one of them, and only those
are parsed by the slow one, which is held to the same rules: UTF-8, no NaN, no infinity, no half of a surrogate pair.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, NoReturn

import orjson

MOST_DIGITS = 4000
"""Of a number; a longer one arrives as the text of its digits. Python does not convert more than 4,300."""

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19  # the least that is beyond 64 bits


def loads(data: bytes) -> Any:
    """Raises ``json.JSONDecodeError``."""
    if _LONG not in data.translate(_DIGITS):
        return orjson.loads(data)
    return _slowly(data, whole, _finite, "not UTF-8, or a number beyond a double")


def exactly(data: bytes) -> Any:
    """The same of numbers that PostgreSQL stores and no double is: those are ``Decimal``. Slow, whatever they are.

    Raises ``json.JSONDecodeError``, for a number of more than :data:`MOST_DIGITS` before or after the point, too.
    """
    return _slowly(data, _storable, _storable, f"not UTF-8, or a number of more than {MOST_DIGITS:,} digits")


def dumps(value: Any, *, sort_keys: bool = False) -> bytes:
    """Of what :func:`loads` has read."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except orjson.JSONEncodeError:  # a number beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys).encode()


def whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= MOST_DIGITS else digits


def _slowly(data: bytes, whole: Callable[[str], Any], fraction: Callable[[str], Any], refused: str) -> Any:
    try:
        value = json.loads(data.decode(), parse_int=whole, parse_float=fraction, parse_constant=_refuse)
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(value, ensure_ascii=False, default=str).encode()  # which half of a pair cannot be
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else refused
        raise json.JSONDecodeError(reason, "", 0) from None
    return value


def _storable(text: str) -> int | float | Decimal:
    if len(text) > 2 * MOST_DIGITS + 20:
        raise ValueError
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent beyond all bounds
        raise ValueError from None
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "JSON has no other than finite numbers"
    if number.adjusted() >= MOST_DIGITS or exponent < -MOST_DIGITS:
        raise ValueError
    if text.lstrip("-").isdigit():
        return int(text)
    return double if isfinite(double := float(text)) else number


def _finite(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError
    return number


def _refuse(_name: str) -> NoReturn:
    raise ValueError
