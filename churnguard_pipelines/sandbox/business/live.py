"""Lets things happen while somebody watches: one at a time, at the present instant."""

from __future__ import annotations

from collections.abc import Callable

from churnguard_pipelines.sandbox.business import collection, decisions, signups, subscriptions
from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.entities import Subscription


def happen(business: Business) -> None:
    """One thing, drawn by the business's own generator; falls back to a signup where nobody fits."""
    action = business.rng.choices(list(THINGS), list(THINGS.values()))[0]
    if not action(business):
        _sign_up(business)


def _some(business: Business, fits: Callable[[Subscription], bool]) -> Subscription | None:
    """A subscription that fits, found by a few looks at random."""
    count = business.subscriptions.after(business.now)
    for _ in range(60 if count else 0):
        place = business.rng.randrange(count)
        found = business.subscriptions.down(place, place + 1, fits, 1)
        if found:
            return found[0]
    return None


def _running(subscription: Subscription) -> bool:
    return decisions.is_steady(subscription) and not subscription.pending


def _sign_up(business: Business) -> bool:
    signups.sign_up(business)
    return True


def _checkout(business: Business) -> bool:
    signups.open_checkout(business)
    return True


def _change(business: Business) -> bool:
    if subscription := _some(business, _running):
        decisions.change_something(business, subscription)
    return subscription is not None


def _pause(business: Business) -> bool:
    if subscription := _some(business, _running):
        subscriptions.set_pause(business, subscription, True)
    return subscription is not None


def _resume(business: Business) -> bool:
    if subscription := _some(business, lambda s: s.paused and s.status == "active"):
        subscriptions.set_pause(business, subscription, False)
    return subscription is not None


def _cancel(business: Business) -> bool:
    if subscription := _some(business, _running):
        collection.end(business, subscription, "cancellation_requested")
    return subscription is not None


def _cancel_later(business: Business) -> bool:
    if subscription := _some(business, _running):
        subscriptions.cancel_at_period_end(business, subscription, "too_expensive")
    return subscription is not None


def _come_back(business: Business) -> bool:
    def gone(subscription: Subscription) -> bool:
        customer = subscription.customer
        return not customer.deleted and all(each.ended_at is not None for each in customer.subscriptions)

    if subscription := _some(business, gone):
        signups.subscribe(business, subscription.customer)
    return subscription is not None


def _fail(business: Business) -> bool:
    """An upgrade whose payment does not go through at first."""
    if subscription := _some(business, lambda s: _running(s) and not s.customer.shaky):
        customer = subscription.customer
        customer.shaky = True
        item = subscription.items[0]
        changes = [(item, item.price, (item.quantity or 1) + 1)]
        subscriptions.change(business, subscription, [*changes], invoice_now=True)
        customer.shaky = False
    return subscription is not None


def _give_back(business: Business) -> bool:
    if subscription := _some(business, _running):
        decisions.give_back(business, subscription)
    return subscription is not None


def _move(business: Business) -> bool:
    if subscription := _some(business, lambda s: not s.customer.deleted):
        decisions.move(business, subscription)
    return subscription is not None


def _forget(business: Business) -> bool:
    if subscription := _some(business, lambda s: s.ended_at is not None and not s.customer.deleted):
        subscriptions.delete_customer(business, subscription.customer)
    return subscription is not None


THINGS: dict[Callable[[Business], bool], float] = {
    _sign_up: 22,
    _checkout: 6,
    _change: 26,
    _pause: 3,
    _resume: 3,
    _cancel: 4,
    _cancel_later: 6,
    _come_back: 4,
    _fail: 4,
    _give_back: 6,
    _move: 8,
    _forget: 1,
}
