"""Calendar months in UTC, and the instants (epoch milliseconds) at which they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Calendar:
    """The calendar months from the first one with MRR to the running one. ``months``: their first days, oldest first;
    ``ends``: the instant at which the next one begins, for the running month just after now; ``today``: the day of now.
    """

    months: Sequence[date]
    ends: Sequence[int]
    today: date

    @classmethod
    def since(cls, first: int, now: datetime) -> Calendar:
        """From the month of ``first`` to the one of ``now``; the source's clock has seconds, so all of the running
        second has happened. No months if ``first`` is later."""
        until = int(now.timestamp()) * 1000 + 1000
        months: list[date] = []
        ends: list[int] = []
        month = moment(first).date().replace(day=1)
        while first < until and instant(month) < until:
            months.append(month)
            month = next_month(month)
            ends.append(min(instant(month), until))
        return cls(months, ends, now.astimezone(UTC).date())

    def last_day(self, month: date) -> date:
        """Of the running month today."""
        return min(next_month(month) - timedelta(days=1), self.today)


def next_month(month: date) -> date:
    return (month + timedelta(days=32)).replace(day=1)


def instant(day: date) -> int:
    """Midnight."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds // 1000, UTC) + timedelta(milliseconds=milliseconds % 1000)
