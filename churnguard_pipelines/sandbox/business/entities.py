"""What the business has and does: compact mutable records with references between them.

They hold facts only; `stripe_objects.py` and `stripe_payments.py` say how Stripe shows them. Every record that Stripe
lists has `id`, `created` (seconds) and `place`, its position in its list (`record_list.py`). Money is in minor units.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Interval = Literal["month", "year"]


@dataclass(slots=True, eq=False)
class Entity:
    """What every listed record has; `deleted` ones are no longer listed."""

    id: str
    created: int
    place: int = field(default=-1, kw_only=True)
    deleted: bool = field(default=False, kw_only=True)


@dataclass(slots=True, eq=False)
class Product(Entity):
    name: str
    default_price: str | None = None
    active: bool = True
    updated: int = 0
    description: str | None = None


@dataclass(slots=True, eq=False)
class Price(Entity):
    """`interval` is None for a one-time price. A metered price bills usage of the period before. `tiers`, (up to, unit
    amount), say by volume what each unit costs; `package` units or a part of them cost one unit amount."""

    product: Product
    currency: str
    unit_amount: int
    interval: Interval | None
    metered: bool = False
    active: bool = True
    nickname: str | None = None
    rank: int = 0  # plans of one product family in the order of upgrading; add-ons have none
    tiers: tuple[tuple[int | None, int], ...] = ()
    package: int = 1

    def amount(self, quantity: int) -> int:
        """What so many units cost in a period."""
        for up_to, unit in self.tiers:
            if up_to is None or quantity <= up_to:
                return unit * quantity
        return self.unit_amount * -(-quantity // self.package)


@dataclass(slots=True, eq=False)
class Plan(Entity):
    """The old face of a recurring price: same id."""

    price: Price


@dataclass(slots=True, eq=False)
class Coupon(Entity):
    name: str
    duration: Literal["forever", "repeating", "once"]
    months: int | None = None
    percent_off: float | None = None
    amount_off: int | None = None
    currency: str | None = None
    times_redeemed: int = 0
    products: tuple[str, ...] = ()  # what alone it takes something off; empty: everything

    def takes_off(self, price: Price) -> bool:
        return not self.products or price.product.id in self.products


@dataclass(slots=True, eq=False)
class PromotionCode(Entity):
    code: str
    coupon: Coupon
    times_redeemed: int = 0
    active: bool = True


@dataclass(slots=True, eq=False)
class Discount:
    """A coupon applied to one subscription during [start, end)."""

    id: str
    coupon: Coupon
    promotion_code: str | None
    subscription: str
    customer: str
    start: int
    end: int | None
    checkout_session: str | None = None


@dataclass(slots=True, eq=False)
class Customer(Entity):
    name: str
    email: str
    country: str
    currency: str
    number: int
    balance: int = 0
    delinquent: bool = False
    invoices: int = 0
    phone: str | None = None
    description: str | None = None
    card: tuple[str, str] = ("visa", "4242")
    shaky: bool = False  # the card tends to be declined
    subscriptions: list[Subscription] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Item:
    """One price on a subscription; `quantity` is None for a metered price."""

    id: str
    created: int
    price: Price
    quantity: int | None
    billed_on: tuple[str, str] | None = None  # the invoice and line that billed the running period


@dataclass(slots=True, eq=False)
class Subscription(Entity):
    customer: Customer
    items: list[Item]
    currency: str
    interval: Interval
    anchor: int
    period_start: int
    period_end: int
    status: str = "active"
    periods: int = 0  # whole intervals since the anchor
    trial_start: int | None = None
    trial_end: int | None = None
    paused: bool = False
    cancel_at_period_end: bool = False
    cancel_at: int | None = None
    canceled_at: int | None = None
    ended_at: int | None = None
    reason: str | None = None
    feedback: str | None = None
    discounts: list[Discount] = field(default_factory=list)
    pending: list[InvoiceItem] = field(default_factory=list)
    latest_invoice: Invoice | None = None
    schedule: Schedule | None = None
    # Decided for the next period's start
    pause_for: int = 0  # periods
    resume_at: int | None = None
    next_prices: tuple[Price, int] | None = None
    next_coupon: Coupon | None = None


@dataclass(slots=True, eq=False)
class Line:
    id: str
    amount: int
    quantity: int
    price: Price
    start: int
    end: int
    description: str
    proration: bool = False
    subscription: str | None = None
    item: str | None = None
    invoice_item: str | None = None
    credited: tuple[str, str] | None = None
    discount_amounts: list[tuple[Discount, int]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class InvoiceItem(Entity):
    customer: Customer
    amount: int
    quantity: int
    price: Price
    start: int
    end: int
    description: str
    subscription: str | None = None
    item: str | None = None
    credited: tuple[str, str] | None = None
    invoice: str | None = None

    @property
    def proration(self) -> bool:
        return self.item is not None


@dataclass(slots=True, eq=False)
class Invoice(Entity):
    customer: Customer
    subscription: Subscription | None
    currency: str
    reason: str
    lines: list[Line]
    start: int
    end: int
    status: str = "draft"
    number: str | None = None
    discounts: list[Discount] = field(default_factory=list)
    subtotal: int = 0
    total: int = 0
    due: int = 0
    paid: int = 0
    starting_balance: int = 0
    ending_balance: int | None = None
    attempts: int = 0
    next_attempt: int | None = None
    auto_advance: bool = True
    finalizes_at: int | None = None
    finalized_at: int | None = None
    paid_at: int | None = None
    voided_at: int | None = None
    uncollectible_at: int | None = None
    credited: int = 0  # credit notes issued after payment
    payment_intent: PaymentIntent | None = None


@dataclass(slots=True, eq=False)
class PaymentIntent(Entity):
    customer: Customer
    invoice: Invoice | None
    amount: int
    currency: str
    status: str = "requires_payment_method"
    charge: Charge | None = None
    canceled_at: int | None = None


@dataclass(slots=True, eq=False)
class Charge(Entity):
    intent: PaymentIntent
    failure: str | None = None
    transaction: str | None = None
    refunded: int = 0
    disputed: bool = False
    card: tuple[str, str] = ("visa", "4242")


@dataclass(slots=True, eq=False)
class Refund(Entity):
    charge: Charge
    amount: int
    reason: str | None
    transaction: str


@dataclass(slots=True, eq=False)
class Dispute(Entity):
    charge: Charge
    amount: int
    reason: str
    status: str = "needs_response"
    transactions: list[BalanceTransaction] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class CreditNote(Entity):
    invoice: Invoice
    amount: int
    line: Line
    number: str
    reason: str
    refund: Refund | None
    line_id: str


@dataclass(slots=True, eq=False)
class BalanceTransaction(Entity):
    amount: int
    fee: int
    currency: str
    type: str
    source: str
    available_on: int
    description: str | None = None
    category: str = ""


@dataclass(slots=True, eq=False)
class Payout(Entity):
    amount: int
    currency: str
    arrival: int
    transaction: str
    status: str = "in_transit"


@dataclass(slots=True, eq=False)
class CheckoutSession(Entity):
    currency: str
    amount: int
    expires: int
    email: str
    name: str
    status: str = "open"
    customer: str | None = None
    subscription: str | None = None
    invoice: str | None = None


@dataclass(slots=True, eq=False)
class Schedule(Entity):
    """Two phases: what runs now, and what begins at `turn`."""

    customer: Customer
    subscription: Subscription
    before: tuple[str, int]
    after: tuple[str, int]
    start: int
    turn: int
    end: int
    status: str = "active"
    released_at: int | None = None
    canceled_at: int | None = None


@dataclass(slots=True, eq=False)
class Event(Entity):
    """`body` is the whole event as JSON, rendered when it happened."""

    type: str
    body: bytes
