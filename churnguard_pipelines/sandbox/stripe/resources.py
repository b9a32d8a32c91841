"""Which lists the simulated API has, and which of their parameters it understands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.record_list import RecordList

Test = Callable[[Any, str], bool]


@dataclass(frozen=True)
class Resource:
    """A list at /v1/{path}. `noun` as in "No such customer"; `permission` is what a restricted key needs."""

    path: str
    records: Callable[[Business], RecordList[Any]]
    noun: str
    permission: str
    filters: Mapping[str, Test] = field(default_factory=dict)


def _flag(name: str) -> Test:
    return lambda record, value: bool(getattr(record, name)) == (value == "true")


def _customer(record: Any, value: str) -> bool:
    return bool(record.customer.id == value)


def _subscription_status(record: Any, value: str) -> bool:
    if value == "all":
        return True
    if value == "ended":
        return record.status in ("canceled", "incomplete_expired")
    return bool(record.status == value)


def event_type_matches(wanted: str, type: str) -> bool:
    """`customer.*` means all types that begin so."""
    return type.startswith(wanted[:-1]) if wanted.endswith(".*") else type == wanted


_STATUS: Test = lambda record, value: record.status == value  # noqa: E731
_BY_INTENT: dict[str, Test] = {
    "charge": lambda record, value: record.charge.id == value,
    "payment_intent": lambda record, value: record.charge.intent.id == value,
}

RESOURCES = (
    Resource(
        "customers",
        lambda b: b.customers,
        "customer",
        "rak_customer_read",
        {"email": lambda r, value: r.email == value},
    ),
    Resource("products", lambda b: b.products, "product", "rak_product_read", {"active": _flag("active")}),
    Resource(
        "prices",
        lambda b: b.prices,
        "price",
        "rak_plan_read",
        {
            "active": _flag("active"),
            "product": lambda r, value: r.product.id == value,
            "currency": lambda r, value: r.currency == value,
            "type": lambda r, value: (r.interval is None) == (value == "one_time"),
        },
    ),
    Resource(
        "plans",
        lambda b: b.plans,
        "plan",
        "rak_plan_read",
        {
            "active": lambda r, value: r.price.active == (value == "true"),
            "product": lambda r, value: r.price.product.id == value,
        },
    ),
    Resource(
        "subscriptions",
        lambda b: b.subscriptions,
        "subscription",
        "rak_subscription_read",
        {
            "customer": _customer,
            "status": _subscription_status,
            "price": lambda r, value: any(item.price.id == value for item in r.items),
        },
    ),
    Resource(
        "subscription_schedules",
        lambda b: b.schedules,
        "subscription schedule",
        "rak_subscription_read",
        {"customer": _customer},
    ),
    Resource(
        "invoices",
        lambda b: b.invoices,
        "invoice",
        "rak_invoice_read",
        {
            "customer": _customer,
            "status": _STATUS,
            "subscription": lambda r, value: r.subscription is not None and r.subscription.id == value,
        },
    ),
    Resource(
        "invoiceitems",
        lambda b: b.invoice_items,
        "invoiceitem",
        "rak_invoice_read",
        {
            "customer": _customer,
            "invoice": lambda r, value: r.invoice == value,
            "pending": lambda r, value: (r.invoice is None) == (value == "true"),
        },
    ),
    Resource(
        "charges",
        lambda b: b.charges,
        "charge",
        "rak_charge_read",
        {
            "customer": lambda r, value: r.intent.customer.id == value,
            "payment_intent": lambda r, value: r.intent.id == value,
        },
    ),
    Resource(
        "payment_intents",
        lambda b: b.payment_intents,
        "payment_intent",
        "rak_payment_intent_read",
        {"customer": _customer},
    ),
    Resource("refunds", lambda b: b.refunds, "refund", "rak_charge_read", _BY_INTENT),
    Resource("disputes", lambda b: b.disputes, "dispute", "rak_dispute_read", _BY_INTENT),
    Resource(
        "credit_notes",
        lambda b: b.credit_notes,
        "credit_note",
        "rak_credit_note_read",
        {
            "invoice": lambda r, value: r.invoice.id == value,
            "customer": lambda r, value: r.invoice.customer.id == value,
        },
    ),
    Resource("coupons", lambda b: b.coupons, "coupon", "rak_coupon_read"),
    Resource(
        "promotion_codes",
        lambda b: b.promotion_codes,
        "promotion_code",
        "rak_promotion_code_read",
        {
            "active": _flag("active"),
            "code": lambda r, value: r.code == value,
            "coupon": lambda r, value: r.coupon.id == value,
        },
    ),
    Resource(
        "balance_transactions",
        lambda b: b.balance_transactions,
        "balance_transaction",
        "rak_balance_transaction_source_read",
        {
            "type": lambda r, value: r.type == value,
            "currency": lambda r, value: r.currency == value,
            "source": lambda r, value: r.source == value,
        },
    ),
    Resource("payouts", lambda b: b.payouts, "payout", "rak_payout_read", {"status": _STATUS}),
    Resource(
        "checkout/sessions",
        lambda b: b.checkout_sessions,
        "checkout.session",
        "rak_checkout_session_read",
        {
            "customer": lambda r, value: r.customer == value,
            "subscription": lambda r, value: r.subscription == value,
            "status": _STATUS,
        },
    ),
    Resource(
        "events",
        lambda b: b.events,
        "event",
        "rak_event_read",
        {"type": lambda r, value: event_type_matches(value, r.type)},
    ),
)
BY_PATH = {resource.path: resource for resource in RESOURCES}
