"""What the customers decide in each billing period: to leave, to change their plan, to pause, to ask for money back."""

from __future__ import annotations

from collections.abc import Callable

from churnguard_pipelines.sandbox.business import billing, collection, payments, subscriptions
from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.entities import Subscription
from churnguard_pipelines.sandbox.business.instants import DAY, HOUR

FEEDBACK = ("too_expensive", "missing_features", "switched_service", "unused", "too_complex", "other", None)


def follow(business: Business, subscription: Subscription) -> None:
    """Draws what happens in the running period, and comes back at its end."""
    if subscription.ended_at is not None:
        return
    business.at(subscription.period_end, follow, business, subscription)
    if subscription.status == "active" and not subscription.paused:
        rounds = 1 if subscription.interval == "month" else 4
        for _ in range(rounds):
            _decide(business, subscription)


def _decide(business: Business, subscription: Subscription) -> None:
    rng = business.rng
    first, last = max(business.now, subscription.period_start) + 2 * HOUR, subscription.period_end - 2 * HOUR
    if first >= last:
        return

    def later(action: Callable[..., None], *args: object) -> None:
        business.at(rng.randrange(first, last), action, business, subscription, *args)

    luck = rng.random()
    for share, action, args in DECISIONS:
        luck -= share
        if luck < 0:
            later(action, *args)
            if action is change_something and rng.random() < 0.2:
                later(action, *args)
            return


def is_steady(subscription: Subscription) -> bool:
    """Running, paid, and nothing else decided for its next renewal."""
    return (
        subscription.status == "active"
        and not subscription.paused
        and not subscription.pause_for
        and not subscription.cancel_at_period_end
        and subscription.schedule is None
        and not subscription.customer.deleted
    )


def leave(business: Business, subscription: Subscription, at_period_end: bool) -> None:
    if subscription.ended_at is not None or subscription.cancel_at_period_end:
        return
    if not at_period_end:
        collection.end(business, subscription, "cancellation_requested")
    elif subscription.status in ("active", "trialing"):
        subscriptions.cancel_at_period_end(business, subscription, business.rng.choice(FEEDBACK))
        left = subscription.period_end - business.now
        if business.rng.random() < 0.12:
            business.at(business.now + left // 2, subscriptions.keep_after_all, business, subscription)


def change_something(business: Business, subscription: Subscription) -> None:
    """More or fewer seats, another plan, an add-on more or less."""
    if not is_steady(subscription) or subscription.period_end - business.now < 2 * HOUR:
        return
    rng = business.rng
    item = subscription.items[0]
    seats = item.quantity or 1
    kind = rng.random()
    now = rng.random() < 0.25
    if kind < 0.5:
        less = seats > 1 and rng.random() < 0.3
        changed = max(1, seats - rng.randrange(1, 4)) if less else seats + rng.randrange(1, 5)
        subscriptions.change(business, subscription, [(item, item.price, changed)], invoice_now=now)
    elif kind < 0.8:
        plans = business.catalog.plans[subscription.currency, subscription.interval]
        others = [plan for plan in plans if plan is not item.price]
        subscriptions.change(business, subscription, [(item, rng.choice(others), seats)], invoice_now=now)
    elif len(subscription.items) > 1 and subscription.items[-1].quantity is not None and rng.random() < 0.4:
        last = subscription.items[-1]
        subscriptions.change(business, subscription, [(last, last.price, 0)], invoice_now=now)
    else:
        taken = {each.price.id for each in subscription.items}
        offers = business.catalog.add_ons[subscription.currency, subscription.interval]
        free = [price for price in offers if price.id not in taken]
        if free:
            subscriptions.change(business, subscription, [(None, rng.choice(free), 1)], invoice_now=now)


def _pause_next(business: Business, subscription: Subscription) -> None:
    """Only monthly ones, and not where a change would hang over into the paused period's void invoice."""
    if is_steady(subscription) and subscription.interval == "month" and not subscription.pending:
        subscription.pause_for = business.rng.randrange(1, 4)


def _plan_next(business: Business, subscription: Subscription) -> None:
    if is_steady(subscription):
        plans = business.catalog.plans[subscription.currency, subscription.interval]
        seats = subscription.items[0].quantity or 1
        price = business.rng.choice(plans)
        subscriptions.plan_change(business, subscription, price, seats + business.rng.randrange(0, 3))


def _reward_next(business: Business, subscription: Subscription) -> None:
    if is_steady(subscription) and not subscription.discounts:
        offers = business.catalog.coupons_for(subscription.currency)
        subscription.next_coupon = business.rng.choice(offers)


def _commit_to_a_year(business: Business, subscription: Subscription) -> None:
    monthly = subscription.interval == "month" and all(item.quantity is not None for item in subscription.items)
    if is_steady(subscription) and monthly and not subscription.pending:
        subscriptions.switch_to_yearly(business, subscription)


def _one_off(business: Business, subscription: Subscription) -> None:
    if subscription.customer.deleted:
        return
    invoice = billing.one_off(business, subscription.customer)
    if business.rng.random() < 0.3:
        business.at(business.now + 3 * HOUR, billing.delete_draft, business, invoice)
    else:
        business.at(business.now + HOUR, collection.finalize, business, invoice)


def give_back(business: Business, subscription: Subscription) -> None:
    """A refund of all or half of the latest payment, or a credit note."""
    invoice = subscription.latest_invoice
    charge = invoice.payment_intent.charge if invoice and invoice.payment_intent else None
    if invoice is None or charge is None or charge.failure:
        return
    luck = business.rng.random()
    if luck < 0.4:
        payments.credit_note(business, invoice, max(1, invoice.lines[0].amount // 4))
    else:
        payments.refund(business, charge, invoice.due if luck < 0.7 else max(1, invoice.due // 2))


def _dispute(business: Business, subscription: Subscription) -> None:
    invoice = subscription.latest_invoice
    if invoice and invoice.payment_intent and invoice.payment_intent.charge:
        payments.dispute(business, invoice.payment_intent.charge)


def move(business: Business, subscription: Subscription) -> None:
    customer = subscription.customer
    if not customer.deleted:
        before, customer.description = customer.description, f"Moved on day {business.now // DAY}"
        business.emit("customer.updated", customer, {"description": before})


def _forget(business: Business, subscription: Subscription) -> None:
    if not subscription.customer.deleted:
        subscriptions.delete_customer(business, subscription.customer)


# Share of subscription periods (quarters of yearly ones) in which each is decided
DECISIONS: tuple[tuple[float, Callable[..., None], tuple[object, ...]], ...] = (
    (0.02, leave, (True,)),
    (0.009, leave, (False,)),
    (0.09, change_something, ()),
    (0.007, _pause_next, ()),
    (0.005, _plan_next, ()),
    (0.006, _reward_next, ()),
    (0.004, _commit_to_a_year, ()),
    (0.007, _one_off, ()),
    (0.015, give_back, ()),
    (0.003, _dispute, ()),
    (0.006, move, ()),
    (0.0007, _forget, ()),
)
