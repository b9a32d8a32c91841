"""What other formats know and JSON has no word for, as text that keeps all of it."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime, timedelta
from math import isfinite, isnan

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the zone is written beside it


def number(value: float) -> float | str:
    """As Protobuf's JSON has it."""
    if isfinite(value):
        return value
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def binary(value: bytes) -> str:
    return b64encode(value).decode()


def moment(seconds: int, nanoseconds: int = 0, *, zone: str = "Z") -> str:
    """ISO 8601, with as many digits as there are. Raises ``ValueError`` outside the years 1 to 9999."""
    try:
        text = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        raise ValueError("a moment outside the years 1 to 9999") from None
    return text + fraction(nanoseconds) + zone


def fraction(nanoseconds: int) -> str:
    if not nanoseconds:
        return ""
    digits = f"{nanoseconds:09d}"
    return "." + (digits if nanoseconds % 1000 else digits[:6] if nanoseconds % 1_000_000 else digits[:3])
