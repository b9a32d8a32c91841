"""The evidence about each subscription: its kept versions since the first sync, and its invoices and their lines
before.

Times are epoch milliseconds, amounts minor units of the subscription's currency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

import sqlalchemy as sa

from churnguard_pipelines.analytics.pricing import NOTHING, WHOLE, Discount, Item, cost, months_of

FIRST_PAYMENT_WITHIN = 86_400_000
"""An incomplete subscription expires after 23 hours: a first payment that came later was not waited for."""
PAUSED, UNPAID, TRIAL, ENDED = "paused", "unpaid", "trial", "ended"
"""Why a subscription is worth nothing."""
_METERED = "metered"
_WORTHLESS = {"incomplete": TRIAL, "incomplete_expired": ENDED, "paused": PAUSED, "unpaid": UNPAID}
_DAY = 86_400_000
_RESOLVED_LATER = -1  # a discount's `end` where only its id is known so far
_FINAL_AFTER = 7_200_000  # an invoice is a draft for an hour; then a discount that counts once is gone

Key = tuple[str, str]
"""Integration and id."""


class Version(NamedTuple):
    """A subscription as it stood from ``valid_from`` on. ``counts_from``: the end of its trial, 0 without one, None
    where it is worth nothing for the ``cause``: paused, unpaid, incomplete."""

    valid_from: int
    counts_from: int | None
    items: tuple[Item, ...]
    discounts: tuple[Discount, ...]
    cause: str | None = None
    trial_start: int | None = None


class Billed(NamedTuple):
    """A line of an invoice. A line for ``starts`` to ``ends``. A proration's ``credit`` takes terms away that were
    billed before; any other sets the item's terms. ``void``: nobody had to pay it. ``net``: the share of it that is no
    tax, None where it does not tell; ``discounted``: what each discount took off."""

    starts: int
    ends: int
    proration: bool
    credit: bool
    item: str
    terms: Item
    void: bool
    net: Fraction | None = None
    discounted: Mapping[str, Fraction] = {}


class Invoiced(NamedTuple):
    """The recurring discounts that an invoice for a whole period shows."""

    created: int
    discounts: tuple[Discount, ...]


@dataclass(slots=True)
class Evidence:
    """All that is known of one subscription. ``versions``, ``billed`` and ``invoiced``: oldest first."""

    key: Key
    customer: Key
    currency: str
    started: int
    """When it first could have been worth something: its start, or its first payment shortly after."""
    trial_start: int | None
    trial_end: int | None
    ended: int | None
    never: bool
    """It has not come to be: its first payment failed or has not come yet."""
    versions: list[Version]
    billed: list[Billed] = field(default_factory=list)
    invoiced: list[Invoiced] = field(default_factory=list)


def collect(connection: sa.Connection, organization_id: str, *, unpaid_counts: bool = False) -> Iterator[Evidence]:
    """Everything known of each of the organization's subscriptions, over all of its billing integrations.

    Rows are streamed, so that memory does not grow with the history. Ordered by integration and subscription.
    ``unpaid_counts``: whether one that Stripe gave up collecting is worth something until it ends.
    """
    coupons = {(row.integration_id, row.id): row for row in _rows(connection, "coupons", organization_id)}
    lines = _Groups(_rows(connection, "invoice_lines", organization_id))
    invoices = _Groups(_rows(connection, "invoices", organization_id))
    for key, versions in groupby(_rows(connection, "subscription_versions", organization_id), _key):
        found = _subscription(key, list(versions), coupons, unpaid_counts)
        found.billed = _billed(lines.of(key), found.currency)
        for row in invoices.of(key):
            found.invoiced.append(Invoiced(row.created, _discounts(row.discounts, key[0], coupons, found.currency)))
            if row.first_paid is not None and found.started < row.first_paid <= found.started + FIRST_PAYMENT_WITHIN:
                found.started = row.first_paid
        _resolve_unexpanded(found)
        _resolve_unknown(found)
        yield found


class _Groups:
    """Rows by rising keys, to be asked for by rising keys; what nobody asks for is passed over."""

    def __init__(self, rows: Iterable[sa.Row[Any]]) -> None:
        self._groups = groupby(rows, _key)
        self._next = next(self._groups, None)

    def of(self, key: Key) -> Iterable[sa.Row[Any]]:
        while self._next is not None and self._next[0] < key:
            self._next = next(self._groups, None)
        return self._next[1] if self._next is not None and self._next[0] == key else ()


def _key(row: sa.Row[Any]) -> Key:
    return row.integration_id, row.subscription


def _rows(connection: sa.Connection, name: str, organization_id: str) -> Iterator[sa.Row[Any]]:
    statement = sa.text(files(__package__).joinpath("sql", f"{name}.sql").read_text())
    options = {"stream_results": True, "max_row_buffer": 5_000}
    yield from connection.execute(statement, {"organization_id": organization_id}, execution_options=options)


def _subscription(key: Key, rows: list[sa.Row[Any]], coupons: Mapping[Key, Any], unpaid_counts: bool) -> Evidence:
    """Its newest version tells the dates; a record that vanished from the source ended when it was last seen."""
    latest = rows[-1]
    ends = [at for at in (latest.ended, latest.vanished) if at is not None]
    versions = [_version(row, key[0], coupons, unpaid_counts) for row in rows]
    return Evidence(
        key, (key[0], latest.customer), latest.currency, latest.started, latest.trial_start, latest.trial_end,
        min(ends, default=None), latest.status in ("incomplete", "incomplete_expired"), versions,
    )  # fmt: skip


def _version(row: sa.Row[Any], integration_id: str, coupons: Mapping[Key, Any], unpaid_counts: bool) -> Version:
    cause = PAUSED if row.paused else UNPAID if row.failed else _WORTHLESS.get(row.status)
    worthless = cause is not None and not (cause == UNPAID and unpaid_counts)
    items, discounts = [], list(row.discounts or ())
    for id, quantity, price, own, tax_rates in row.items or ():
        price = price or {}
        recurring = price.get("recurring") or {}
        if recurring.get("usage_type") == _METERED:
            continue
        amount, problem = cost(price, Fraction(quantity), row.currency)
        net = _untaxed(tax_rates or row.tax_rates or (), row.automatic_tax and price.get("tax_behavior") != "exclusive")
        product = price.get("product")
        product = product["id"] if isinstance(product, dict) else product
        of = price.get("id"), Fraction(quantity)
        items.append(Item(amount, months_of(recurring), id, product, net, problem, of))
        discounts += own or ()
    counts_from = None if worthless else (row.status == "trialing" and row.trial_end) or 0
    return Version(
        row.valid_from, counts_from, tuple(items), _discounts(discounts, integration_id, coupons, row.currency), cause,
        row.trial_start if row.status == "trialing" else None,
    )  # fmt: skip


def _untaxed(rates: Iterable[Mapping[str, Any]], reckoned: bool) -> Fraction | None:
    """The share of a price that is no tax. ``reckoned``: Stripe finds the rate for each invoice."""
    if reckoned:
        return None
    included = (Fraction(str(rate.get("percentage") or 0)) for rate in rates if rate.get("inclusive"))
    tax = sum(included, NOTHING)
    return 100 / (100 + tax) if tax else WHOLE


def _billed(rows: Iterable[sa.Row[Any]], currency: str) -> list[Billed]:
    lines = list(rows)
    longest: dict[str | None, int] = {}
    for row in lines:
        longest[row.price_id] = max(longest.get(row.price_id, 0), row.ends - row.starts)
    return [_line(list(parts), longest, currency) for _, parts in groupby(lines, _one_line(lines))]


def _one_line(lines: Sequence[sa.Row[Any]]) -> Any:
    """Stripe writes a line for each tier of a graduated price; all others stand for themselves."""
    places = {id(row): place for place, row in enumerate(lines)}

    def same(row: sa.Row[Any]) -> Any:
        if row.price is None or row.price.get("tiers_mode") != "graduated":
            return places[id(row)]
        return row.bill, row.item, row.price_id, row.starts, row.ends, row.proration, row.credit

    return same


def _line(parts: Sequence[sa.Row[Any]], longest: Mapping[str | None, int], currency: str) -> Billed:
    row = parts[0]
    quantity = sum((Fraction(part.quantity) for part in parts), NOTHING)
    amount = Fraction(sum(part.amount or 0 for part in parts))
    price: Mapping[str, Any]
    if row.price is None:  # it is not in the warehouse: its longest period is a whole one
        price = {"unit_amount_decimal": row.unit_amount, "recurring": _inferred(longest[row.price_id])}
    else:
        price = row.price
        if price.get("currency") not in (None, currency) and price.get("billing_scheme") != "tiered":
            options = {currency: {"unit_amount_decimal": row.unit_amount}, **(price.get("currency_options") or {})}
            price = {**price, "currency_options": options}
    value, problem = cost(price, quantity, currency)
    if amount and not row.proration and (problem or len(parts) > 1 or row.price is None):
        value, problem = amount, None  # a whole period costs what was billed for it
    discounted: dict[str, Fraction] = {}
    for each in (each for part in parts for each in part.discounted or ()):
        discounted[each["discount"]] = discounted.get(each["discount"], NOTHING) + each["amount"]
    taxes = [tax for part in parts for tax in part.taxes or () if tax.get("tax_behavior") == "inclusive"]
    net = _net(amount, sum(discounted.values(), NOTHING), taxes)
    months, product = months_of(price.get("recurring") or {}), row.product or price.get("product")
    terms = Item(value, months, row.item, product, WHOLE, problem, (row.price_id, quantity))
    return Billed(row.starts, row.ends, row.proration, row.credit, row.item, terms, row.void, net, discounted)


def _net(amount: Fraction, discounts: Fraction, inclusive: Sequence[Mapping[str, Any]]) -> Fraction | None:
    """The share of a line that is no tax. A line of nothing, or with nothing left of it, does not tell."""
    if amount == discounts:
        return None
    if not inclusive:
        return WHOLE
    tax = sum(each["amount"] for each in inclusive)
    taxed = max((each.get("taxable_amount") or 0 for each in inclusive), default=0) or amount - discounts - tax
    return Fraction(taxed, taxed + tax) if taxed + tax else None


def _inferred(period: int) -> Mapping[str, Any]:
    days = round(period / _DAY)
    if days >= 28:
        return {"interval": "month", "interval_count": round(days / 30.44)}
    if days and days % 7 == 0:
        return {"interval": "week", "interval_count": days // 7}
    return {"interval": "day", "interval_count": max(1, days)}


def _discounts(listed: Any, integration_id: str, coupons: Mapping[Key, Any], currency: str) -> tuple[Discount, ...]:
    """Recurring ones only. An id without its object stands for itself until another place tells what it is."""
    found: dict[str, Discount] = {}
    for each in listed or ():
        if isinstance(each, str):
            found.setdefault(each, Discount(each, None, NOTHING, 0, _RESOLVED_LATER, True))
            continue
        item = each.get("subscription_item")
        if each.get("invoice") or (each.get("invoice_item") and not item):
            continue  # of this one invoice
        start, end = each["start"] * 1000, each["end"] * 1000 if each.get("end") else None
        own = item is not None or each.get("subscription") is not None
        coupon = coupons.get((integration_id, str((each.get("source") or {}).get("coupon"))))
        if coupon is None:  # deleted before anybody looked: its traces are resolved later
            found[each["id"]] = Discount(each["id"], None, NOTHING, start, end, own, item, told={})
        elif coupon.duration != "once":
            percent = None if coupon.percent_off is None else Fraction(coupon.percent_off)
            amount, problem = _amount_off(coupon, currency)
            products = frozenset(coupon.products or ()) if coupon.restricted else None
            found[each["id"]] = Discount(each["id"], percent, amount, start, end, own, item, products, problem=problem)
    return tuple(found.values())


def _amount_off(coupon: sa.Row[Any], currency: str) -> tuple[Fraction, str | None]:
    if coupon.percent_off is not None:
        return NOTHING, None
    amount = coupon.amount_off
    if coupon.currency not in (None, currency):
        amount = ((coupon.currency_options or {}).get(currency) or {}).get("amount_off")
    if amount is None:
        return NOTHING, f"what the coupon {coupon.id} takes off in {currency} is not known"
    return Fraction(amount), None


def _resolve_unexpanded(evidence: Evidence) -> None:
    """Events name discounts by id only; a fetched version or an invoice of the same subscription has them in full."""
    places = [each.discounts for each in evidence.versions] + [each.discounts for each in evidence.invoiced]
    known = {each.id: each for discounts in places for each in discounts if each.end != _RESOLVED_LATER}
    if all(each.end != _RESOLVED_LATER for discounts in places for each in discounts):
        return

    def resolved(discounts: tuple[Discount, ...]) -> tuple[Discount, ...]:
        return tuple(known[each.id] for each in discounts if each.id in known)

    _change_discounts(evidence, resolved)


def _resolve_unknown(evidence: Evidence) -> None:
    """Of a coupon that is gone it is not known whether it counts once: such a discount is gone after one invoice."""
    unknown = {each.id for _, discounts in evidence.invoiced for each in discounts if each.told is not None}
    unknown |= {each.id for version in evidence.versions for each in version.discounts if each.told is not None}
    if not unknown:
        return
    shown: dict[str, list[int]] = {}
    for created, discounts in evidence.invoiced:
        for each in discounts:
            shown.setdefault(each.id, []).append(created)
    lasting = {id for id, when in shown.items() if len(when) > 1}
    for version in evidence.versions:
        lasting |= {
            each.id for each in version.discounts
            if each.id in shown and version.valid_from > shown[each.id][0] + _FINAL_AFTER
        }  # fmt: skip

    def resolved(discounts: tuple[Discount, ...]) -> tuple[Discount, ...]:
        return tuple(
            each._replace(
                problem=f"the coupon of the discount {each.id} is gone, and one invoice does not tell whether it recurs"
            )
            if each.id in unknown - lasting and each.end is None and each.id in shown
            else each
            for each in discounts
        )

    _change_discounts(evidence, resolved)


def _change_discounts(evidence: Evidence, change: Callable[[tuple[Discount, ...]], tuple[Discount, ...]]) -> None:
    evidence.versions = [each._replace(discounts=change(each.discounts)) for each in evidence.versions]
    evidence.invoiced = [each._replace(discounts=change(each.discounts)) for each in evidence.invoiced]
