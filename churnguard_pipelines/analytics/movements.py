"""Monthly MRR movements from each customer's MRR at the ends of months. Pure arithmetic in integers and fractions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction

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

    def add_all(self, other: Movements) -> None:
        for name in ("starting", *KINDS, "ending"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class CustomerMonth:
    """``mrr`` in minor units of the customer's currency at the month's end, ``carried`` in the reporting currency's."""

    customer: tuple[str, str]
    currency: str
    month: date
    mrr: int
    carried: int


def kind_of(before: int, after: int, known: bool) -> str | None:
    """``known``: the customer had MRR at the end of an earlier month."""
    if before == after:
        return None
    if before == 0:
        return "reactivation" if known else "new"
    if after == 0:
        return "churn"
    return "expansion" if after > before else "contraction"


def carry(kind: str | None, before: int, after: int, carried: int, rate: Fraction) -> int:
    """The customer's new value in the reporting currency: won and grown at the month's rate, shrunk in proportion."""
    if kind is None:
        return carried
    if kind in ("new", "reactivation"):
        return half_up(after * rate)
    if kind == "churn":
        return 0
    if kind == "expansion":
        return half_up(carried + (after - before) * rate)
    return half_up(Fraction(carried * after, before))


def follow(
    customer: tuple[str, str],
    currency: str,
    months: Sequence[date],
    mrr: Iterable[int],
    rate: Callable[[str, date], Fraction],
    add: Callable[[date, str, str | None, int, int, int, int], None],
) -> list[CustomerMonth]:
    """Walk one customer through the months: tell ``add(month, currency, kind, before, after, carried before, after)``
    each month's movement, and return the months in which there was MRR."""
    kept: list[CustomerMonth] = []
    before, carried, known = 0, 0, False
    for month, after in zip(months, mrr, strict=True):
        if before or after:
            kind = kind_of(before, after, known)
            value = carry(kind, before, after, carried, rate(currency, month)) if kind else carried
            add(month, currency, kind, before, after, carried, value)
            if after:
                kept.append(CustomerMonth(customer, currency, month, after, value))
            before, carried, known = after, value, known or after > 0
    return kept
