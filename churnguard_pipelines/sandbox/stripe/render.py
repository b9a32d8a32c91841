"""Renders a record of the business as the object that Stripe's API shows for it at an instant."""

from __future__ import annotations

from collections.abc import Callable, Collection

from churnguard_pipelines.sandbox.business import entities
from churnguard_pipelines.sandbox.stripe import billing as stripe_billing
from churnguard_pipelines.sandbox.stripe import objects as stripe_objects
from churnguard_pipelines.sandbox.stripe import payments as stripe_payments
from churnguard_pipelines.sandbox.stripe.objects import Object

_PLAIN: dict[type, Callable[..., Object]] = {
    entities.Customer: stripe_objects.customer,
    entities.Product: stripe_objects.product,
    entities.PromotionCode: stripe_objects.promotion_code,
    entities.Discount: stripe_objects.discount,
    entities.InvoiceItem: stripe_billing.invoice_item,
    entities.PaymentIntent: stripe_payments.payment_intent,
    entities.Charge: stripe_payments.charge,
    entities.Refund: stripe_payments.refund,
    entities.CreditNote: stripe_payments.credit_note,
    entities.Payout: stripe_payments.payout,
    entities.CheckoutSession: stripe_objects.checkout_session,
}
_AT_AN_INSTANT: dict[type, Callable[..., Object]] = {
    entities.Schedule: stripe_billing.schedule,
    entities.Dispute: stripe_payments.dispute,
    entities.BalanceTransaction: stripe_payments.balance_transaction,
}
_EXPANDABLE: dict[type, Callable[..., Object]] = {
    entities.Price: stripe_objects.price,
    entities.Plan: stripe_objects.plan,
    entities.Coupon: stripe_objects.coupon,
    entities.Subscription: stripe_billing.subscription,
    entities.Invoice: stripe_billing.invoice,
}


def render(record: entities.Entity | entities.Discount, now: int, expand: Collection[str] = ()) -> Object:
    """The object as a dict of JSON types. `expand`: the paths within it that are asked for in full, or at all."""
    kind = type(record)
    if plain := _PLAIN.get(kind):
        return plain(record)
    if at_an_instant := _AT_AN_INSTANT.get(kind):
        return at_an_instant(record, now)
    return _EXPANDABLE[kind](record, expand)
