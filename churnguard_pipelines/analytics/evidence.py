"""What the warehouse knows about subscriptions: kept versions since the first sync, invoices and their lines before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.resources import files
from typing import Any, NamedTuple

import sqlalchemy as sa

MONTHS = {"month": Fraction(1), "year": Fraction(12), "week": Fraction(12, 52), "day": Fraction(12, 365)}
"""Length of a billing interval in months."""
METERED = "metered"
_DAY = 86_400_000
_INFERRED = ((300 * _DAY, "year"), (20 * _DAY, "month"), (5 * _DAY, "week"), (0, "day"))

Key = tuple[str, str]
"""Integration and id."""


class Item(NamedTuple):
    """What one item costs per interval: unit amount × quantity in minor units, every ``months`` months."""

    amount: Fraction
    months: Fraction


class Discount(NamedTuple):
    """A recurring discount from ``start`` until ``end`` (epoch milliseconds; None: for ever)."""

    id: str
    percent: Fraction | None
    amount: Fraction
    start: int
    end: int | None


class Version(NamedTuple):
    """A subscription as it stood from ``valid_from`` on. ``counts``: it is neither trialing, incomplete nor paused."""

    valid_from: int
    counts: bool
    ended: int | None
    items: tuple[Item, ...]
    discounts: tuple[Discount, ...]


class Billed(NamedTuple):
    """A line: ``credit`` takes the item's old terms away, any other sets its terms from ``starts`` on."""

    starts: int
    proration: bool
    credit: bool
    item: str
    terms: Item
    invoice: str | None
    void: bool


@dataclass(slots=True)
class Evidence:
    """All that is known of one subscription; times in epoch milliseconds."""

    customer: Key
    currency: str
    started: int
    trial_start: int | None
    trial_end: int | None
    ended: int | None
    never: bool
    """Its first payment failed: it never was a subscription."""
    versions: list[Version] = field(default_factory=list)
    billed: list[Billed] = field(default_factory=list)
    invoiced_discounts: list[tuple[int, tuple[Discount, ...]]] = field(default_factory=list)


def collect(connection: sa.Connection, organization_id: str) -> list[Evidence]:
    """Everything known of the organization's subscriptions, over all of its billing integrations."""
    coupons = {(row.integration_id, row.id): row for row in _rows(connection, "coupons", organization_id)}
    found: dict[Key, Evidence] = {}
    for row in _rows(connection, "subscription_versions", organization_id):
        key = (row.integration_id, row.subscription)
        if key not in found:
            found[key] = Evidence(
                (row.integration_id, row.customer), row.currency, row.started, None, None, None, False
            )
        known = found[key]
        known.trial_start, known.trial_end, known.ended = row.trial_start, row.trial_end, row.ended
        known.never = row.status == "incomplete_expired"
        counts = not row.paused and row.status not in ("trialing", "incomplete", "incomplete_expired")
        items = tuple(_item(*each) for each in row.items or () if each[4] != METERED)
        discounts = _discounts(row.discounts, row.integration_id, coupons, {})
        known.versions.append(Version(row.valid_from, counts, row.ended, items, discounts))
    _resolve_unexpanded(found)
    for row in _rows(connection, "invoice_lines", organization_id):
        if row.usage_type != METERED and (subscription := found.get((row.integration_id, row.subscription))):
            interval = row.interval or next(name for least, name in _INFERRED if row.ends - row.starts >= least)
            terms = _item(row.unit_amount, row.quantity, interval, row.interval_count, None)
            void = row.status in ("void", "deleted")
            subscription.billed.append(
                Billed(row.starts, row.proration, row.credit, row.item, terms, row.invoice, void)
            )
    for row in _rows(connection, "invoice_discounts", organization_id):
        if subscription := found.get((row.integration_id, row.subscription)):
            subscription.invoiced_discounts.append(
                (row.created, _discounts(row.discounts, row.integration_id, coupons, {}))
            )
    return list(found.values())


def _rows(connection: sa.Connection, name: str, organization_id: str) -> Iterator[sa.Row[Any]]:
    statement = sa.text(files(__package__).joinpath("sql", f"{name}.sql").read_text())
    options = {"stream_results": True, "max_row_buffer": 5_000}
    yield from connection.execute(statement, {"organization_id": organization_id}, execution_options=options)


def _item(unit_amount: str | None, quantity: int, interval: str | None, count: int | None, _usage: Any) -> Item:
    months = MONTHS[interval or "month"] * (count or 1)
    return Item(Fraction(unit_amount or 0) * quantity, months)


def _discounts(
    listed: Any, integration_id: str, coupons: dict[Key, Any], known: dict[str, Discount]
) -> tuple[Discount, ...]:
    """Recurring ones only. An id without its object stands for itself until another version tells what it is."""
    found = []
    for each in listed or ():
        if isinstance(each, str):
            found.append(Discount(each, None, Fraction(0), 0, 0))
            continue
        coupon = coupons.get((integration_id, str((each.get("source") or {}).get("coupon"))))
        if coupon is None:
            continue  # `once`, or one that was deleted before anybody looked
        percent = None if coupon.percent_off is None else Fraction(coupon.percent_off)
        end = each.get("end")
        found.append(
            Discount(
                each["id"], percent, Fraction(coupon.amount_off or 0), each["start"] * 1000, end * 1000 if end else None
            )
        )
    return tuple(found)


def _resolve_unexpanded(found: dict[Key, Evidence]) -> None:
    """Events name discounts by id only; the same subscription's fetched versions have them in full."""
    for evidence in found.values():
        known = {each.id: each for version in evidence.versions for each in version.discounts if each.end != 0}
        evidence.versions = [
            version._replace(discounts=tuple(known[each.id] for each in version.discounts if each.id in known))
            for version in evidence.versions
        ]
