"""Collects invoices: finalizes them, charges, tries again, gives up, and does what follows for their subscription."""

from __future__ import annotations

from churnguard_pipelines.sandbox.business import billing, payments
from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.entities import Invoice, Subscription
from churnguard_pipelines.sandbox.business.instants import DAY

RETRY_AFTER = (3 * DAY, 5 * DAY, 7 * DAY)  # then the subscription is canceled
DECLINED = 0.035  # of first attempts
DECLINED_SHAKY = 0.3
DECLINED_AGAIN = 0.45


def finalize(business: Business, invoice: Invoice) -> None:
    """Draft to open (and on to its collection), or to void where the subscription's collection is paused."""
    if invoice.status != "draft" or invoice.deleted or invoice.customer.deleted:
        return
    customer = invoice.customer
    customer.invoices += 1
    invoice.number = f"{business.profile.name.upper()}-{customer.number:05d}-{customer.invoices:04d}"
    invoice.status = "open"
    invoice.finalizes_at = None
    invoice.finalized_at = business.now
    invoice.starting_balance = invoice.ending_balance = customer.balance
    invoice.due = max(0, invoice.total + customer.balance)
    if invoice.subscription is not None and invoice.subscription.paused:
        business.emit("invoice.finalized", invoice, {"status": "draft"})
        void(business, invoice)
        return
    if (balance := min(0, customer.balance + invoice.total)) != customer.balance:
        before, customer.balance = customer.balance, balance
        business.emit("customer.updated", customer, {"balance": before})
    invoice.ending_balance = customer.balance
    business.emit("invoice.finalized", invoice, {"status": "draft"})
    if invoice.due == 0:
        _paid(business, invoice)
    else:
        collect(business, invoice)


def collect(business: Business, invoice: Invoice) -> None:
    """One attempt to be paid; on failure the next is planned, or the invoice and its subscription are given up."""
    if invoice.status != "open":
        return
    customer, subscription = invoice.customer, invoice.subscription
    odds = DECLINED_AGAIN if invoice.attempts else DECLINED_SHAKY if customer.shaky else DECLINED
    if not customer.deleted and business.rng.random() >= odds:
        payments.attempt(business, invoice, succeeds=True)
        _paid(business, invoice)
        return
    payments.attempt(business, invoice, succeeds=False)
    first = invoice.attempts == 1
    if invoice.attempts > len(RETRY_AFTER) or customer.deleted or _is_over(subscription):
        invoice.next_attempt = None
        business.emit("invoice.payment_failed", invoice)
        _give_up(business, invoice)
        return
    invoice.next_attempt = business.now + RETRY_AFTER[invoice.attempts - 1]
    business.at(invoice.next_attempt, collect, business, invoice)
    business.emit("invoice.payment_failed", invoice)
    if not customer.delinquent:
        customer.delinquent = True
        business.emit("customer.updated", customer, {"delinquent": False})
    if first and subscription is not None and subscription.status == "active":
        subscription.status = "past_due"
        business.emit("customer.subscription.updated", subscription, {"status": "active"})


def _is_over(subscription: Subscription | None) -> bool:
    return subscription is not None and subscription.ended_at is not None


def _paid(business: Business, invoice: Invoice) -> None:
    invoice.status = "paid"
    invoice.paid = invoice.due
    invoice.paid_at = business.now
    invoice.next_attempt = None
    invoice.auto_advance = False
    business.emit("invoice.paid", invoice, {"status": "open"})
    business.emit("invoice.payment_succeeded", invoice)
    customer, subscription = invoice.customer, invoice.subscription
    if customer.delinquent:
        customer.delinquent = False
        business.emit("customer.updated", customer, {"delinquent": True})
    if subscription is not None and subscription.status == "past_due":
        subscription.status = "active"
        business.emit("customer.subscription.updated", subscription, {"status": "past_due"})


def _give_up(business: Business, invoice: Invoice) -> None:
    """The money is not expected any longer; a subscription that is still running ends."""
    invoice.status = "uncollectible"
    invoice.uncollectible_at = business.now
    invoice.auto_advance = False
    business.emit("invoice.marked_uncollectible", invoice, {"status": "open"})
    if invoice.subscription is not None and invoice.subscription.ended_at is None:
        end(business, invoice.subscription, "payment_failed")


def void(business: Business, invoice: Invoice) -> None:
    invoice.status = "void"
    invoice.voided_at = business.now
    invoice.auto_advance = False
    business.emit("invoice.voided", invoice, {"status": "open"})
    if invoice.payment_intent is not None:
        payments.cancel_intent(business, invoice.payment_intent)


def end(business: Business, subscription: Subscription, reason: str) -> None:
    """The subscription is canceled now; what is still pending goes on a last invoice."""
    if subscription.ended_at is not None:
        return
    subscription.status = "canceled"
    subscription.ended_at = business.now
    subscription.canceled_at = subscription.canceled_at or business.now
    subscription.reason = subscription.reason or reason
    subscription.paused = False
    schedule = subscription.schedule
    if schedule is not None and schedule.status == "active":
        schedule.status, schedule.canceled_at = "canceled", business.now
        business.emit("subscription_schedule.canceled", schedule, {"status": "active"})
    business.note(subscription)
    if subscription.pending:
        last = billing.draw_up(business, subscription.customer, subscription, "subscription_update", [])
        finalize(business, last)
    business.emit("customer.subscription.deleted", subscription)
