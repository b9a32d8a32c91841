"""The conditions of an incremental read by a cursor field, and the greatest cursor among the documents it read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from bson import Decimal128, Int64, ObjectId
from bson.errors import InvalidId

from churnguard_pipelines.connectors.sdk.database import OVERLAP_SECONDS
from churnguard_pipelines.mirror_types import Base

_TYPES = (
    "minKey", "maxKey", "number", "string", "object", "array", "binData", "objectId", "bool", "date", "regex",
    "javascript", "timestamp",
)  # fmt: skip
_COMPARED: dict[Base, tuple[str, ...]] = {
    Base.TIMESTAMPTZ: ("date",),
    Base.BIGINT: ("number",),
    Base.DOUBLE: ("number",),
    Base.NUMERIC: ("number",),
    Base.TEXT: ("string", "objectId"),
}


def condition(column: str, kind: Base, after: str | None) -> dict[str, Any]:
    """For documents whose cursor is at or beyond ``after``, and all whose cursor cannot be compared with it: it is
    null, missing or of another type. ``kind``: the column's type. No condition where ``after`` says nothing."""
    since = [] if after is None else _values(kind, after)
    if not since:
        return {}
    others = [name for name in _TYPES if name not in _COMPARED[kind]]
    if kind is Base.TEXT and len(since) == 1:
        others.append("objectId")
    at_or_beyond = [{column: {"$gte": value}} for value in since]
    return {"$or": [*at_or_beyond, {column: None}, {column: {"$type": others}}]}


class Greatest:
    """Of the cursors seen. ``text``: None as long as there was none that could be compared."""

    def __init__(self, kind: Base) -> None:
        self._kind = kind
        self._found: Any = None
        self.text: str | None = None

    def see(self, value: Any) -> None:
        comparable, text = _comparable(self._kind, value)
        if comparable is not None and (self._found is None or comparable > self._found):
            self._found, self.text = comparable, text


def _values(kind: Base, after: str) -> list[Any]:
    """As the source compares them. None if it is not of that kind, or not finite: then all is read."""
    try:
        if kind is Base.TIMESTAMPTZ:
            moment = datetime.fromisoformat(after) - timedelta(seconds=OVERLAP_SECONDS)
            return [moment.astimezone(UTC).replace(tzinfo=None)]
        if kind in (Base.BIGINT, Base.DOUBLE, Base.NUMERIC):
            number = Decimal(after)
            if not number.is_finite():
                return []
            return [{Base.BIGINT: Int64, Base.DOUBLE: float, Base.NUMERIC: Decimal128}[kind](number)]
        if kind is Base.TEXT:
            return [after, ObjectId(after)]
    except InvalidId:
        return [after]
    except (ArithmeticError, ValueError):
        return []
    return []


def _comparable(kind: Base, value: Any) -> tuple[Any, str | None]:
    found = type(value)
    if kind is Base.TIMESTAMPTZ:
        return (value, f"{value.isoformat()}+00:00") if found is datetime else (None, None)
    if kind is Base.TEXT:
        return (str(value), str(value)) if found in (str, ObjectId) else (None, None)
    if found is Decimal128:
        value = value.to_decimal()
        return (value, str(value)) if value.is_finite() else (None, None)
    return (Decimal(value), str(value)) if found in (int, Int64, float) else (None, None)
