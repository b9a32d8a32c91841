"""Parses and writes JSON without loss: whole numbers beyond 64 bits keep every digit.

The fast parser makes a float of such a number. Few texts have as many digits in a row as one of them, and only those
are parsed by the slow one, which is held to the same rules: UTF-8, no NaN, no infinity, no half of a surrogate pair.
"""

from __future__ import annotations

import json
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
    try:
        value = json.loads(data.decode(), parse_int=whole, parse_float=_finite, parse_constant=_refuse)
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(value, ensure_ascii=False).encode()  # which half of a pair cannot be
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "not UTF-8, or a number beyond a double"
        raise json.JSONDecodeError(reason, "", 0) from None
    return value


def dumps(value: Any, *, sort_keys: bool = False) -> bytes:
    """Of what :func:`loads` has read."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except orjson.JSONEncodeError:  # a number beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys).encode()


def whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= MOST_DIGITS else digits


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError
    return number


def _refuse(_name: str) -> NoReturn:
    raise ValueError
