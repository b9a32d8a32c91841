"""The business's own ledger of monthly recurring revenue, kept as things happen.

It is never computed from what the API shows: `Books.record` is told a subscription's new MRR at the instant it changes.

MRR of a subscription, in minor units of its currency: the sum of what its licensed items cost, less its recurring
discounts (percentages first, then amounts, never below 0; coupons of duration `once` do not count), divided by the
interval in months, rounded half up. 0 while trialing, incomplete, paused, and from its end on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

from churnguard_pipelines.sandbox.business.instants import instant, month_of, next_month, utc_date
from churnguard_pipelines.sandbox.business.rates import rate

MOVEMENTS = ("new", "expansion", "contraction", "churn", "reactivation")


def half_up(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def monthly(
    items: Iterable[tuple[int | Fraction, int]], months: int, percents: Sequence[float], amounts: Sequence[int]
) -> int:
    """MRR of (unit amount, quantity) pairs billed every `months` months under discounts in the order applied."""
    total = Fraction(sum(unit * quantity for unit, quantity in items))
    for percent in percents:
        total *= 1 - Fraction(str(percent)) / 100
    for amount in amounts:
        total = max(Fraction(0), total - amount)
    return half_up(total / months)


@dataclass(slots=True)
class _Account:
    currency: str
    changes: list[tuple[int, int]] = field(default_factory=list)  # (instant, the customer's MRR from then on)

    def at_ends(self, ends: Sequence[int]) -> Iterator[int]:
        """The customer's MRR just before each of the rising instants."""
        position, mrr = 0, 0
        for end in ends:
            while position < len(self.changes) and self.changes[position][0] < end:
                mrr = self.changes[position][1]
                position += 1
            yield mrr


class Books:
    """MRR per customer by the instants at which it changed, and the monthly movements that follow from it."""

    def __init__(self, opened: int, reporting_currency: str) -> None:
        self.opened = opened
        self.reporting_currency = reporting_currency
        self._subscriptions: dict[str, int] = {}
        self._customers: dict[str, _Account] = {}

    def record(self, at: int, customer: str, subscription: str, currency: str, mrr: int) -> None:
        """From `at` on, the subscription's MRR is `mrr`. Instants never decrease."""
        before = self._subscriptions.get(subscription, 0)
        if mrr == before:
            return
        self._subscriptions[subscription] = mrr
        account = self._customers.setdefault(customer, _Account(currency))
        assert account.currency == currency, f"{customer} changed its currency"
        total = (account.changes[-1][1] if account.changes else 0) + mrr - before
        if account.changes and account.changes[-1][0] == at:
            account.changes[-1] = (at, total)
        else:
            account.changes.append((at, total))

    def mrr_of(self, subscription: str) -> int:
        return self._subscriptions.get(subscription, 0)

    def movements(self, now: int) -> list[dict[str, Any]]:
        """One row per month (from the books' opening to the running one, whose end is `now`) and currency.

        `{"month": "2025-01-01", "currency", "starting", "new", "expansion", "contraction", "churn", "reactivation",
        "ending", "reporting": {"currency", "starting", …, "ending"}}`; contraction and churn are negative.
        """
        months, ends = self._months(now)
        rows: dict[tuple[date, str], dict[str, Any]] = {}
        for currency in sorted({account.currency for account in self._customers.values()}):
            for month in months:
                rows[month, currency] = self._row(month, currency)
        for account in self._customers.values():
            rates = [rate(account.currency, self.reporting_currency, min(_last_day(m), utc_date(now))) for m in months]
            before, carried, known = 0, 0, False
            for month, end_mrr, month_rate in zip(months, account.at_ends(ends), rates, strict=True):
                row = rows[month, account.currency]
                kind, value = _movement(before, end_mrr, carried, known, month_rate)
                _add(row, kind, before, end_mrr)
                _add(row["reporting"], kind, carried, value)
                before, carried, known = end_mrr, value, known or end_mrr > 0
        return [rows[key] for key in sorted(rows)]

    def _months(self, now: int) -> tuple[list[date], list[int]]:
        months = [month_of(self.opened)]
        ends: list[int] = []
        while True:
            following = next_month(months[-1])
            if instant(following) > now:
                return months, [*ends, now + 1]
            ends.append(instant(following))
            months.append(following)

    def _row(self, month: date, currency: str) -> dict[str, Any]:
        zeros = dict.fromkeys(("starting", *MOVEMENTS, "ending"), 0)
        return {
            "month": month.isoformat(),
            "currency": currency,
            **zeros,
            "reporting": {"currency": self.reporting_currency, **zeros},
        }


def _last_day(month: date) -> date:
    return next_month(month) - timedelta(days=1)


def _movement(before: int, after: int, carried: int, known: bool, month_rate: Fraction) -> tuple[str | None, int]:
    """The kind of a customer's movement and its new carrying value in the reporting currency."""
    if after == before:
        return None, carried
    if before == 0:
        return ("reactivation" if known else "new"), half_up(after * month_rate)
    if after == 0:
        return "churn", 0
    if after > before:
        return "expansion", half_up(carried + (after - before) * month_rate)
    return "contraction", half_up(Fraction(carried * after, before))


def _add(row: dict[str, Any], kind: str | None, before: int, after: int) -> None:
    row["starting"] += before
    row["ending"] += after
    if kind is not None:
        row[kind] += after - before
