"""What the warehouse knows about subscriptions: kept versions since the first sync, invoices and their lines before.

Times are epoch milliseconds, amounts minor units of the subscription's currency.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

import sqlalchemy as sa

MONTHS = {"month": Fraction(1), "year": Fraction(12), "week": Fraction(12, 52), "day": Fraction(12, 365)}
"""Length of a billing interval in months."""
FIRST_PAYMENT_WITHIN = 86_400_000
"""An incomplete subscription expires after 23 hours: a first payment that came later was not waited for."""
_METERED = "metered"
_WORTHLESS = ("incomplete", "incomplete_expired", "paused")
_DAY = 86_400_000
_RESOLVED_LATER = -1  # a discount's `end` where only its id is known so far

Key = tuple[str, str]
"""Integration and id."""


class Item(NamedTuple):
    """What one item costs: unit amount × quantity, every ``months`` months."""

    amount: Fraction
    months: Fraction


class Discount(NamedTuple):
    """A recurring discount from ``start`` until ``end`` (None: for ever). ``own``: the subscription's, not one that the
    customer has for whatever is billed."""

    id: str
    percent: Fraction | None
    amount: Fraction
    start: int
    end: int | None
    own: bool


class Version(NamedTuple):
    """A subscription as it stood from ``valid_from`` on. ``counts_from``: the end of its trial, 0 without one, None
    where it is worth nothing: paused, incomplete."""

    valid_from: int
    counts_from: int | None
    items: tuple[Item, ...]
    discounts: tuple[Discount, ...]


class Billed(NamedTuple):
    """A line for ``starts`` to ``ends``. A proration's ``credit`` takes terms away that were billed before; any other
    sets the item's terms. ``void``: nobody had to pay it."""

    starts: int
    ends: int
    proration: bool
    credit: bool
    item: str
    terms: Item
    void: bool


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


def collect(connection: sa.Connection, organization_id: str) -> Iterator[Evidence]:
    """Everything known of each of the organization's subscriptions, over all of its billing integrations.

    Rows are streamed, so that memory does not grow with the history. Ordered by integration and subscription.
    """
    coupons = {(row.integration_id, row.id): row for row in _rows(connection, "coupons", organization_id)}
    lines = _Groups(_rows(connection, "invoice_lines", organization_id))
    invoices = _Groups(_rows(connection, "invoices", organization_id))
    for key, versions in groupby(_rows(connection, "subscription_versions", organization_id), _key):
        found = _subscription(key, list(versions), coupons)
        found.billed = _billed(lines.of(key))
        for row in invoices.of(key):
            found.invoiced.append(Invoiced(row.created, _discounts(row.discounts, key[0], coupons)))
            if row.first_paid is not None and found.started < row.first_paid <= found.started + FIRST_PAYMENT_WITHIN:
                found.started = row.first_paid
        _resolve_unexpanded(found)
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


def _subscription(key: Key, rows: list[sa.Row[Any]], coupons: Mapping[Key, Any]) -> Evidence:
    """Its newest version tells the dates; a record that vanished from the source ended when it was last seen."""
    latest = rows[-1]
    ends = [at for at in (latest.ended, latest.vanished) if at is not None]
    versions = [
        Version(
            row.valid_from,
            None if row.paused or row.status in _WORTHLESS else (row.status == "trialing" and row.trial_end) or 0,
            tuple(_item(*each[:4]) for each in row.items or () if each[4] != _METERED),
            _discounts(row.discounts, key[0], coupons),
        )
        for row in rows
    ]
    return Evidence(
        key, (key[0], latest.customer), latest.currency, latest.started, latest.trial_start, latest.trial_end,
        min(ends, default=None), latest.status in ("incomplete", "incomplete_expired"), versions,
    )  # fmt: skip


def _billed(rows: Iterable[sa.Row[Any]]) -> list[Billed]:
    lines = list(rows)
    longest: dict[str | None, int] = {}
    for row in lines:
        longest[row.price] = max(longest.get(row.price, 0), row.ends - row.starts)
    found = []
    for row in lines:
        interval, count = row.interval, row.interval_count
        if interval is None:  # a price that is not in the warehouse: its longest period is a whole one
            interval, count = _inferred(longest[row.price])
        terms = _item(row.unit_amount, row.quantity, interval, count)
        found.append(Billed(row.starts, row.ends, row.proration, row.credit, row.item, terms, row.void))
    return found


def _inferred(period: int) -> tuple[str, int]:
    days = round(period / _DAY)
    if days >= 28:
        return "month", round(days / 30.44)
    return ("week", days // 7) if days and days % 7 == 0 else ("day", max(1, days))


@lru_cache(maxsize=10_000)
def _item(unit_amount: str | None, quantity: int, interval: str | None, count: int | None) -> Item:
    """One object for equal terms: an organization has few prices and many lines."""
    return Item(Fraction(unit_amount or 0) * quantity, MONTHS[interval or "month"] * (count or 1))


def _discounts(listed: Any, integration_id: str, coupons: Mapping[Key, Any]) -> tuple[Discount, ...]:
    """Recurring ones only. An id without its object stands for itself until another place tells what it is."""
    found = []
    for each in listed or ():
        if isinstance(each, str):
            found.append(Discount(each, None, Fraction(0), 0, _RESOLVED_LATER, True))
            continue
        coupon = coupons.get((integration_id, str((each.get("source") or {}).get("coupon"))))
        if coupon is None:
            continue  # `once`, or one that was deleted before anybody looked
        percent = None if coupon.percent_off is None else Fraction(coupon.percent_off)
        start, end, own = each["start"] * 1000, each.get("end"), each.get("subscription") is not None
        amount = Fraction(coupon.amount_off or 0)
        found.append(Discount(each["id"], percent, amount, start, end * 1000 if end else None, own))
    return tuple(found)


def _resolve_unexpanded(evidence: Evidence) -> None:
    """Events name discounts by id only; a fetched version or an invoice of the same subscription has them in full."""
    places = [each.discounts for each in evidence.versions] + [each.discounts for each in evidence.invoiced]
    known = {each.id: each for discounts in places for each in discounts if each.end != _RESOLVED_LATER}
    if all(each.end != _RESOLVED_LATER for discounts in places for each in discounts):
        return

    def resolved(discounts: tuple[Discount, ...]) -> tuple[Discount, ...]:
        return tuple(known[each.id] for each in discounts if each.id in known)

    evidence.versions = [each._replace(discounts=resolved(each.discounts)) for each in evidence.versions]
    evidence.invoiced = [each._replace(discounts=resolved(each.discounts)) for each in evidence.invoiced]
