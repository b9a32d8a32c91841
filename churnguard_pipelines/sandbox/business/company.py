"""One simulated SaaS business: its clock, its schedule of things to come, its records and its books.

A discrete-event simulation: `at` schedules an action, `run_until` does what is due in the order of the
instants. Everything follows from (profile, seed, anchor, scale); no wall clock and no global randomness is used, so the
same arguments give the same records to the byte. What happens is written in the modules above this one: `payments`,
`billing`, `collection`, `subscriptions`, `signups`, `decisions` (of the customers) and `live` (while somebody watches).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from math import prod
from random import Random
from typing import Any, Protocol

from churnguard_pipelines.sandbox.business.books import Books, monthly
from churnguard_pipelines.sandbox.business.catalog import make_catalog
from churnguard_pipelines.sandbox.business.entities import (
    BalanceTransaction,
    Charge,
    CheckoutSession,
    Coupon,
    CreditNote,
    Customer,
    Discount,
    Dispute,
    Entity,
    Event,
    Invoice,
    InvoiceItem,
    PaymentIntent,
    Payout,
    Plan,
    Price,
    Product,
    PromotionCode,
    Refund,
    Schedule,
    Subscription,
)
from churnguard_pipelines.sandbox.business.instants import add_months
from churnguard_pipelines.sandbox.business.record_list import RecordList

HISTORY_MONTHS = 24
INTERVAL_MONTHS = {"month": 1, "year": 12}


@dataclass(frozen=True)
class Profile:
    """Who a business is. `currencies` maps a currency to the share of customers that pay in it."""

    name: str
    account: str
    title: str
    country: str
    customers: int
    currencies: dict[str, float]
    reporting_currency: str


PROFILES = (
    Profile("acme", "acct_1SandboxAcme0001", "Acme Analytics", "US", 1600, {"usd": 1.0}, "usd"),
    Profile("globex", "acct_1SandboxGlobex01", "Globex", "DE", 900, {"eur": 0.55, "usd": 0.3, "jpy": 0.15}, "eur"),
)


def _left(coupon: Coupon, price: Price) -> Fraction:
    """The share of a price that a coupon for some products leaves."""
    if not coupon.products or not coupon.takes_off(price):
        return Fraction(1)
    return 1 - Fraction(str(coupon.percent_off)) / 100


class Provider(Protocol):
    """Shows the records of a business as its API does, and keeps events about them for `events_kept` seconds."""

    events_kept: int

    def shown(self, record: Entity | Discount, now: int) -> dict[str, Any]: ...

    def event(
        self, id: str, number: int, now: int, type: str, record: Entity | Discount, previous: dict[str, Any] | None
    ) -> bytes: ...


class Business:
    """The state of one account. `now` is the instant of what is happening; it never goes back."""

    def __init__(self, profile: Profile, provider: Provider, seed: int, anchor: int, scale: float = 1.0) -> None:
        self.profile = profile
        self.provider = provider
        self.seed = seed
        self.anchor = anchor
        self.target = round(profile.customers * scale)
        self.rng = Random(f"{seed}/{profile.name}")  # noqa: S311 - a simulation that must come out the same again
        self.opened = add_months(anchor, -HISTORY_MONTHS)
        self.now = self.opened
        self.books = Books(self.opened, profile.reporting_currency)
        self._scheduled: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._entries = count()
        self._ids = count(1)
        self._id_offset = self.rng.getrandbits(64)
        self._events_from = anchor - provider.events_kept

        self.customers: RecordList[Customer] = RecordList()
        self.products: RecordList[Product] = RecordList()
        self.prices: RecordList[Price] = RecordList()
        self.plans: RecordList[Plan] = RecordList()
        self.coupons: RecordList[Coupon] = RecordList()
        self.promotion_codes: RecordList[PromotionCode] = RecordList()
        self.subscriptions: RecordList[Subscription] = RecordList()
        self.schedules: RecordList[Schedule] = RecordList()
        self.checkout_sessions: RecordList[CheckoutSession] = RecordList()
        self.invoices: RecordList[Invoice] = RecordList()
        self.invoice_items: RecordList[InvoiceItem] = RecordList()
        self.payment_intents: RecordList[PaymentIntent] = RecordList()
        self.charges: RecordList[Charge] = RecordList()
        self.refunds: RecordList[Refund] = RecordList()
        self.disputes: RecordList[Dispute] = RecordList()
        self.credit_notes: RecordList[CreditNote] = RecordList()
        self.balance_transactions: RecordList[BalanceTransaction] = RecordList()
        self.payouts: RecordList[Payout] = RecordList()
        self.events: RecordList[Event] = RecordList()
        self.unpaid_out: dict[str, list[BalanceTransaction]] = {currency: [] for currency in profile.currencies}
        self._stock()

    def _stock(self) -> None:
        self.catalog = make_catalog(list(self.profile.currencies), self.now, self.new_id)
        for product in self.catalog.products:
            self.products.add(product)
        for price in self.catalog.prices:
            self.prices.add(price)
            if price.interval is not None:
                self.plans.add(Plan(price.id, price.created, price))
        for coupon in self.catalog.coupons:
            self.coupons.add(coupon)
        for code in self.catalog.promotion_codes:
            self.promotion_codes.add(code)

    # The schedule

    def at(self, due: int, action: Callable[..., None], *args: Any) -> None:
        """`action(*args)` happens at `due` (or at once when that is past)."""
        heapq.heappush(self._scheduled, (max(due, self.now), next(self._entries), action, args))

    def run_until(self, at: int) -> None:
        """Does everything due up to and including `at`, each thing at its own instant."""
        scheduled = self._scheduled
        while scheduled and scheduled[0][0] <= at:
            due, _, action, args = heapq.heappop(scheduled)
            self.now = due
            action(*args)
        self.now = max(self.now, at)

    # Records

    def new_id(self, prefix: str) -> str:
        """An id that never repeats: an odd multiplier permutes the 64-bit numbers."""
        mixed = (next(self._ids) * 0x9E3779B97F4A7C15 + self._id_offset) & 0xFFFFFFFFFFFFFFFF
        return f"{prefix}{mixed:016x}"

    @property
    def keeps_events(self) -> bool:
        """False for what the provider would not show any more at the anchor."""
        return self.now >= self._events_from

    def emit(self, type: str, record: Entity | Discount, previous: dict[str, Any] | None = None) -> None:
        """An event about `record` as it is now."""
        if not self.keeps_events:
            return
        id = self.new_id("evt_1S")
        body = self.provider.event(id, len(self.events), self.now, type, record, previous)
        self.events.add(Event(id, self.now, type, body))

    # Books

    def note(self, subscription: Subscription) -> None:
        """Tells the books what the subscription is worth from now on."""
        customer = subscription.customer.id
        self.books.record(self.now, customer, subscription.id, subscription.currency, self.mrr(subscription))

    def mrr(self, subscription: Subscription) -> int:
        if subscription.ended_at is not None or subscription.paused:
            return 0
        if subscription.status in ("trialing", "incomplete", "incomplete_expired"):
            return 0
        coupons = [
            discount.coupon
            for discount in subscription.discounts
            if discount.coupon.duration != "once" and (discount.end is None or self.now < discount.end)
        ]
        everywhere = [coupon for coupon in coupons if not coupon.products]
        costs = [
            (
                prod(
                    (_left(coupon, item.price) for coupon in coupons), start=Fraction(item.price.amount(item.quantity))
                ),
                1,
            )
            for item in subscription.items
            if item.quantity is not None
        ]
        return monthly(
            costs,
            INTERVAL_MONTHS[subscription.interval],
            [coupon.percent_off for coupon in everywhere if coupon.percent_off is not None],
            [coupon.amount_off for coupon in coupons if coupon.amount_off is not None],
        )
