"""Instants are integer seconds since 1970-01-01T00:00:00Z; months are counted by the UTC calendar."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime

HOUR = 3600
DAY = 86_400


def instant(moment: date) -> int:
    """The instant at which a UTC day begins."""
    return int(datetime(moment.year, moment.month, moment.day, tzinfo=UTC).timestamp())


def utc_date(at: int) -> date:
    return datetime.fromtimestamp(at, UTC).date()


def month_of(at: int) -> date:
    """The first day of the month in which `at` lies."""
    return utc_date(at).replace(day=1)


def next_month(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def add_months(at: int, months: int) -> int:
    """`at` moved by calendar months, clamped to the month's last day (31 January + 1 = 28 or 29 February)."""
    moment = datetime.fromtimestamp(at, UTC)
    index = moment.year * 12 + moment.month - 1 + months
    year, month = index // 12, index % 12 + 1
    day = min(moment.day, monthrange(year, month)[1])
    return int(moment.replace(year=year, month=month, day=day).timestamp())


def text(at: int) -> str:
    """`12 Mar 2025`, as on invoice lines."""
    return datetime.fromtimestamp(at, UTC).strftime("%d %b %Y")
