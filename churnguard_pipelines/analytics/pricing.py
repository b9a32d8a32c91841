"""Computes what the items of a subscription cost and what discounts take off, as Stripe's prices and coupons define it.

Amounts are minor units of the subscription's currency. What cannot be valued carries a ``problem``, a text for people,
and counts 0: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache, reduce
from math import ceil, floor, gcd, lcm
from typing import Any, NamedTuple

from churnguard_pipelines.analytics.money import half_up

MONTHS = {"month": Fraction(1), "year": Fraction(12), "week": Fraction(12, 52), "day": Fraction(12, 365)}
"""Length of a billing interval in months."""
NOTHING, WHOLE = Fraction(0), Fraction(1)


class Item(NamedTuple):
    """The price of one item of a subscription. What one item costs: ``amount`` every ``months`` months. ``net``: the
    share of it that is no tax; None where only what was billed tells. ``of``: the price's id and the quantity."""

    amount: Fraction
    months: Fraction
    id: str = ""
    product: str | None = None
    net: Fraction | None = WHOLE
    problem: str | None = None
    of: tuple[str | None, Fraction] | None = None


class Discount(NamedTuple):
    """A recurring discount from ``start`` until ``end`` (None: for ever). ``own``: the subscription's, not one that the
    customer has for whatever is billed. ``item``, ``products``: what alone it takes something off. ``told``: of a
    coupon that is not known, what it took off each item's period by the lines of invoices."""

    id: str
    percent: Fraction | None
    amount: Fraction
    start: int
    end: int | None
    own: bool
    item: str | None = None
    products: frozenset[str] | None = None
    told: Mapping[str, Fraction] | None = None
    problem: str | None = None

    def takes_off(self, item: Item) -> bool:
        return self.item in (None, item.id) and (self.products is None or item.product in self.products)


def months_of(recurring: Mapping[str, Any]) -> Fraction:
    """The length of a price's interval."""
    return MONTHS[recurring.get("interval") or "month"] * (recurring.get("interval_count") or 1)


def cost(price: Mapping[str, Any], quantity: Fraction, currency: str) -> tuple[Fraction, str | None]:
    """What ``quantity`` units cost in ``currency``, and why it cannot be said if it cannot.

    ``price``: as Stripe's API shows it, with its ``tiers`` and ``currency_options``.
    """
    option: Mapping[str, Any] = price
    if price.get("currency") not in (None, currency):
        option = (price.get("currency_options") or {}).get(currency) or {}
        if not option:
            return NOTHING, f"the price {price.get('id')} is not known in {currency}"
    if price.get("billing_scheme") == "tiered":
        return _tiered(price, option.get("tiers") or (), quantity)
    unit = _decimal(option, "unit_amount")
    if unit is None:
        return NOTHING, f"the price {price.get('id')} has no amount for a unit"
    if transform := price.get("transform_quantity"):
        groups = quantity / transform["divide_by"]
        quantity = Fraction(ceil(groups) if transform["round"] == "up" else floor(groups))
    return unit * quantity, None


def _tiered(price: Mapping[str, Any], tiers: Any, quantity: Fraction) -> tuple[Fraction, str | None]:
    """Volume: all units at the price of the tier that the quantity is in. Graduated: those of each tier at its own."""
    mode, total, below = price.get("tiers_mode"), NOTHING, NOTHING
    for tier in tiers if mode in ("graduated", "volume") else ():
        if below >= quantity:
            break
        end = quantity if tier.get("up_to") is None else min(quantity, Fraction(tier["up_to"]))
        units = end - below if mode == "graduated" else quantity
        if mode == "graduated" or end == quantity:
            total += (_decimal(tier, "unit_amount") or 0) * units + (_decimal(tier, "flat_amount") or 0)
        below = end
    known = tiers and below >= quantity
    return (total, None) if known else (NOTHING, f"the tiers of the price {price.get('id')} are not known")


def _decimal(of: Mapping[str, Any], name: str) -> Fraction | None:
    exact = of.get(f"{name}_decimal")
    value = of.get(name) if exact is None else exact
    return None if value is None else Fraction(str(value))


def monthly(items: Sequence[Item], discounts: Sequence[Discount]) -> int:
    """What the invoices come to, by the month, without tax, rounded half up to a minor unit.

    An item's own discounts go first; then percentages, then fixed amounts. A fixed amount comes off each invoice, so
    that with items of several intervals it counts as often as the shortest of them is billed.
    """
    costs = [_after_own(item, discounts) for item in items]
    shared = [each for each in discounts if each.item is None]
    for discount in shared:
        costs = [_less(discount, item, left) for item, left in zip(items, costs, strict=True)]
    amounts = [each for each in shared if each.amount]
    if not amounts:
        each_month = (_untaxed(item, left) / item.months for item, left in zip(items, costs, strict=True))
        return half_up(sum(each_month, NOTHING))
    cycle = reduce(_least_common, (item.months for item in items), items[0].months if items else WHOLE)
    total = NOTHING
    for due in _invoices(items, cycle):
        left = {place: costs[place] for place in due}
        for discount in amounts:
            within = [place for place in due if discount.takes_off(items[place])]
            if whole := sum((left[place] for place in within), NOTHING):
                kept = max(NOTHING, 1 - discount.amount / whole)
                left |= {place: left[place] * kept for place in within}
        total += sum((_untaxed(items[place], left[place]) for place in due), NOTHING)
    return half_up(total / cycle)


def _after_own(item: Item, discounts: Sequence[Discount]) -> Fraction:
    left, amounts = item.amount, NOTHING
    for discount in discounts:
        if discount.item is not None and discount.takes_off(item):
            left, amounts = _less(discount, item, left), amounts + discount.amount
    return max(NOTHING, left - amounts) if amounts else left


def _less(discount: Discount, item: Item, left: Fraction) -> Fraction:
    """Percentages, and what invoices tell of an unknown coupon."""
    if discount.told is not None:
        return max(NOTHING, left - discount.told.get(item.id, NOTHING))
    if discount.percent is None or not discount.takes_off(item):
        return left
    return left * _kept(discount.percent)


@lru_cache(maxsize=1_000)
def _kept(percent: Fraction) -> Fraction:
    return 1 - percent / 100


def _untaxed(item: Item, left: Fraction) -> Fraction:
    return left if item.net is WHOLE else left * (item.net or NOTHING)


def _invoices(items: Sequence[Item], cycle: Fraction) -> Iterator[list[int]]:
    """Which items each invoice of a cycle bills."""
    times = {item.months * count for item in items for count in range(int(cycle / item.months))}
    for time in times:
        yield [place for place, item in enumerate(items) if (time / item.months).denominator == 1]


def _least_common(one: Fraction, other: Fraction) -> Fraction:
    return Fraction(lcm(one.numerator, other.numerator), gcd(one.denominator, other.denominator))


def problems(items: Sequence[Item], discounts: Sequence[Discount]) -> tuple[str, ...]:
    """What could not be valued, each thing once."""
    found = [item.problem for item in items] + [discount.problem for discount in discounts]
    found += [f"which share of {item.id} is tax is not known" for item in items if item.net is None and item.amount]
    for discount in discounts:
        if discount.told is not None and not discount.told and discount.problem is None:
            found.append(f"the coupon of the discount {discount.id} is not known, and no invoice tells its amount")
        if discount.products is not None and any(item.product is None for item in items):
            found.append(f"whether the discount {discount.id} is for all items is not known")
    return tuple(dict.fromkeys(each for each in found if each))
