"""Monthly MRR movements from each customer's MRR at the ends of months. Pure arithmetic in integers and fractions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import NamedTuple

from churnguard_pipelines.analytics.money import half_up

KINDS = ("new", "expansion", "contraction", "churn", "reactivation")


@dataclass(slots=True)
class Movements:
    """Minor units of ``currency``; contraction and churn are negative. ``starting`` + all five = ``ending``."""

    month: date
    currency: str
    starting: int = 0
    new: int = 0
    expansion: int = 0
    contraction: int = 0
    churn: int = 0
    reactivation: int = 0
    ending: int = 0

    def add(self, kind: str | None, before: int, after: int) -> None:
        self.starting += before
        self.ending += after
        if kind is not None:
            setattr(self, kind, getattr(self, kind) + after - before)


class CustomerMonth(NamedTuple):
    """``mrr`` in minor units of ``currency`` at the month's end, ``carried`` in the reporting currency's."""

    month: date
    currency: str
    mrr: int
    carried: int


class Totals:
    """Adds up an organization's movements, customer by customer.

    ``rate``: minor units of the reporting ``currency`` for one of another in a month; asked only where MRR moved.
    """

    def __init__(
        self, months: Sequence[date], currency: str, currencies: Iterable[str], rate: Callable[[str, date], Fraction]
    ) -> None:
        self._months, self._rate = months, rate
        local = sorted(set(currencies))
        self._local = {(month, each): Movements(month, each) for month in months for each in local}
        self._total = {month: Movements(month, currency) for month in months}

    @property
    def movements(self) -> list[Movements]:
        """In the reporting currency, oldest month first."""
        return list(self._total.values())

    @property
    def by_currency(self) -> list[Movements]:
        """In each billing currency, oldest month first."""
        return list(self._local.values())

    def add(self, mrr: Mapping[str, Sequence[int]]) -> Iterator[CustomerMonth]:
        """Walk a customer through the months, given its MRR at their ends by currency (some of it positive).

        Yields the months that ended with MRR; the customer is added once all of them were taken.
        """
        first = min(next(place for place, value in enumerate(values) if value) for values in mrr.values())
        for currency, values in mrr.items():
            before, carried = 0, 0
            for place, (month, after) in enumerate(zip(self._months, values, strict=True)):
                if not before and not after:
                    continue
                kind = kind_of(before, after, known=place > first)
                value = carry(kind, before, after, carried, self._rate(currency, month)) if kind else carried
                self._local[month, currency].add(kind, before, after)
                self._total[month].add(kind, carried, value)
                before, carried = after, value
                if after:
                    yield CustomerMonth(month, currency, after, value)


def kind_of(before: int, after: int, known: bool) -> str | None:
    """``known``: the customer had MRR at the end of an earlier month."""
    if before == after:
        return None
    if before == 0:
        return "reactivation" if known else "new"
    if after == 0:
        return "churn"
    return "expansion" if after > before else "contraction"


def carry(kind: str, before: int, after: int, carried: int, rate: Fraction) -> int:
    """The customer's new value in the reporting currency: won and grown at the month's rate, shrunk in proportion."""
    if kind in ("new", "reactivation"):
        return half_up(after * rate)
    if kind == "churn":
        return 0
    if kind == "expansion":
        return half_up(carried + (after - before) * rate)
    return half_up(Fraction(carried * after, before))
