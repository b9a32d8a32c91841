"""HubSpot's instants: milliseconds within, ISO 8601 in v3 with as many digits as it likes, epoch in v1."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(at: int) -> str:
    """As v3 shows an instant: whole seconds without a fraction, otherwise three digits."""
    moment = datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{at % 1000:03d}Z" if at % 1000 else f"{moment}Z"


def iso_micros(at: int) -> str:
    """As lists and marketing show it: six digits."""
    return f"{datetime.fromtimestamp(at // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}000Z"


def iso_millis(at: int) -> str:
    """As the value of a property of type datetime: always three digits."""
    return f"{datetime.fromtimestamp(at // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"


def millis(text: str) -> int | None:
    """Of an ISO instant or a date, or of epoch milliseconds as digits; None where it is neither."""
    if text.lstrip("-").isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000
