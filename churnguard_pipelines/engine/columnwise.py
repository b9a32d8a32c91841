"""Brings whole columns of values to their type: a few passes over each instead of a call per value."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence, Set
from datetime import UTC, date, datetime
from math import isfinite
from types import NoneType
from typing import Any

from churnguard_pipelines.engine.values import CONVERTERS, INT64, LARGEST_VIEWED_DOUBLE, TypeMismatch
from churnguard_pipelines.records import ColumnType

Values = Sequence[Any]

_SHAPE = str.maketrans("123456789", "0" * 9)
_PLAIN_MOMENT = re.compile(r"0000-00-00[T ]00:00:00(\.0{1,6})?(Z|\+00:?00)")
"""With all digits 0: what PostgreSQL reads as Python does, if it is UTC."""
_PLAIN_DAY = "0000-00-00"
_FIRST_DAYS, _LAST_DAY = "0001-01-02", "9999-12-31"
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?")


def convert(kind: ColumnType, values: Values) -> tuple[Values, Sequence[int]]:
    """As the warehouse writer copies them, null for what does not fit, and the places of that."""
    if fits(kind, values):
        return values, ()
    one = CONVERTERS[kind]
    try:
        return [None if value is None else one(value) for value in values], ()
    except TypeMismatch:
        return _one_by_one(one, values)


def fits(kind: ColumnType, values: Values) -> bool:
    """Whether all of them go into a column of this type as they are. False where only a look at each would tell."""
    types = set(map(type, values)) - {NoneType}
    return not types or (kind in _FIT and _FIT[kind](values, types))


def shown(kind: ColumnType, values: Values) -> bool:
    """Whether an integration's view shows all of them in this type. False where only a look at each would tell."""
    if fits(kind, values):
        return kind is not ColumnType.DOUBLE or max(map(abs, filter(None, values)), default=0) < LARGEST_VIEWED_DOUBLE
    return kind in (ColumnType.NUMERIC, ColumnType.DOUBLE) and all(
        value is None or (type(value) is str and _PLAIN_NUMBER.fullmatch(value)) for value in values
    )


def _one_by_one(one: Callable[[Any], Any], values: Values) -> tuple[Values, Sequence[int]]:
    converted: list[Any] = []
    misfits: list[int] = []
    for place, value in enumerate(values):
        try:
            converted.append(None if value is None else one(value))
        except TypeMismatch:
            converted.append(None)
            misfits.append(place)
    return converted, misfits


def _text(values: Values, types: Set[type]) -> bool:
    if types != {str}:
        return False
    together = "".join(filter(None, values))
    if "\0" in together:
        return False
    try:
        return together.isascii() or bool(together.encode())
    except UnicodeEncodeError:  # half a surrogate pair somewhere
        return False


def _whole(values: Values, types: Set[type]) -> bool:
    if types != {int}:
        return False
    numbers = [value for value in values if value is not None]
    return bool(min(numbers) >= -INT64 and max(numbers) < INT64)


def _numbers(values: Values, types: Set[type]) -> bool:
    if not types <= {int, float}:
        return False
    whole = [value for value in values if type(value) is int]
    return (not whole or _whole(whole, {int})) and all(isfinite(value) for value in values if type(value) is float)


def _floats(values: Values, types: Set[type]) -> bool:
    return types == {float} and _numbers(values, types)


def _truths(values: Values, types: Set[type]) -> bool:
    return types == {bool}


def _moments(values: Values, types: Set[type]) -> bool:
    """All are written alike, in UTC, and are moments. Those at the edges of time are left to a closer look."""
    if types != {str} or "" in values:
        return False
    texts = [value for value in values if value is not None]
    shape = texts[0].translate(_SHAPE)
    if not _PLAIN_MOMENT.fullmatch(shape) or not _alike(texts, shape):
        return False
    if min(texts) < _FIRST_DAYS or max(texts) >= _LAST_DAY:
        return False
    try:
        return {moment.tzinfo for moment in map(datetime.fromisoformat, texts)} == {UTC}
    except ValueError:
        return False


def _days(values: Values, types: Set[type]) -> bool:
    if types != {str}:
        return False
    texts = [value for value in values if value is not None]
    if not _alike(texts, _PLAIN_DAY):
        return False
    try:
        deque(map(date.fromisoformat, texts), maxlen=0)
    except ValueError:
        return False
    return True


def _alike(texts: Sequence[str], shape: str) -> bool:
    """All of them are written so, with any digit for 0."""
    return set(map(len, texts)) == {len(shape)} and "".join(texts).translate(_SHAPE) == shape * len(texts)


_FIT: dict[ColumnType, Callable[[Values, Set[type]], bool]] = {
    ColumnType.TEXT: _text,
    ColumnType.BIGINT: _whole,
    ColumnType.NUMERIC: _numbers,
    ColumnType.DOUBLE: _floats,
    ColumnType.BOOLEAN: _truths,
    ColumnType.TIMESTAMP: _moments,
    ColumnType.DATE: _days,
}
