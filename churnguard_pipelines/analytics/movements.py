"""Monthly MRR movements from each customer's MRR at the ends of months. Pure arithmetic in integers and fractions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple

from churnguard_pipelines.analytics.money import half_up

NOTHING = Fraction(0)
KINDS = ("new", "expansion", "contraction", "churn", "reactivation")


@dataclass(slots=True)
class Movements:
    """The MRR movements of one month. Minor units of ``currency``; contraction and churn are negative. ``starting`` +
    all five = ``ending``.

    ``paused`` is how much of contraction and churn only pauses, ``resumed`` how much of expansion and reactivation was
    only paused."""

    month: date
    currency: str
    starting: int = 0
    new: int = 0
    expansion: int = 0
    contraction: int = 0
    churn: int = 0
    reactivation: int = 0
    ending: int = 0
    paused: int = 0
    resumed: int = 0

    def add(self, kind: str | None, before: int, after: int, on_hold: int = 0) -> None:
        """``on_hold``: how much of the difference was paused (negative) or resumed."""
        self.starting += before
        self.ending += after
        if kind is not None:
            setattr(self, kind, getattr(self, kind) + after - before)
        self.paused += min(on_hold, 0)
        self.resumed += max(on_hold, 0)


class CustomerMonth(NamedTuple):
    """A customer's MRR in one month. ``mrr`` in minor units of ``currency`` at the month's end, ``carried`` in the
    reporting currency's."""

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

    def add(
        self, mrr: Mapping[str, Sequence[int]], paused: Mapping[str, Sequence[int]] = MappingProxyType({})
    ) -> Iterator[CustomerMonth]:
        """Walk a customer through the months, given its MRR at their ends by currency (some of it positive), and what
        was paused then. In the reporting currency all of it is one movement, also where it went from one currency into
        another.

        Yields the months that ended with MRR; the customer is added once all of them were taken.
        """
        first = min(next(place for place, value in enumerate(values) if value) for values in mrr.values())
        carried = dict.fromkeys(mrr, 0)
        for place, month in enumerate(self._months[first:], first):
            whole, had, has, on_hold = sum(carried.values()), False, False, NOTHING
            for currency, values in mrr.items():
                before, after = values[place - 1] if place else 0, values[place]
                had, has = had or before > 0, has or after > 0
                kind = kind_of(before, after, known=place > first)
                if kind is None:
                    self._local[month, currency].add(None, before, after)
                    continue
                value = carry(kind, before, after, carried[currency], self._rate(currency, month))
                part = _on_hold(after - before, paused.get(currency, ()), place)
                self._local[month, currency].add(kind, before, after, part)
                on_hold += Fraction((value - carried[currency]) * part, after - before)
                carried[currency] = value
            total = sum(carried.values())
            if had or has:
                kind = _whole_kind(had, has, total - whole, known=place > first)
                self._total[month].add(kind, whole, total, _within(half_up(on_hold), total - whole))
            for currency, values in mrr.items():
                if values[place]:
                    yield CustomerMonth(month, currency, values[place], carried[currency])


def _on_hold(difference: int, paused: Sequence[int], place: int) -> int:
    """How much of what was lost is paused now (negative), or of what was won was paused before."""
    if not paused:
        return 0
    return _within((paused[place - 1] if place else 0) - paused[place], difference)


def _within(part: int, whole: int) -> int:
    return min(max(part, 0), whole) if whole > 0 else max(min(part, 0), whole)


def _whole_kind(had: bool, has: bool, difference: int, known: bool) -> str | None:
    """Of a customer over all currencies; values that a currency's rate makes 0 are still there."""
    if not had:
        return kind_of(0, 1, known)
    if not has:
        return "churn"
    return kind_of(1, 1 + difference, known) if difference >= 0 else "contraction"


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
