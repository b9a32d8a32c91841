"""Subscriptions: begun, renewed, changed, paused, canceled; and what each of these leaves for a reader of the API.

Stripe shows what is, not what was. Of the past, these traces exist:

- a period billed: a line with the period, price and quantity of the item, `parent.subscription_item_details` with
  `proration: false`, on an invoice whose `billing_reason` is `subscription_create`, `subscription_cycle` or
  `subscription_update` (the last where a change of interval began a new period);
- a trial: such a line of amount 0 for [trial_start, trial_end), and `trial_start`, `trial_end` on the subscription;
- a change of price or quantity inside a period: two proration lines for [change, period_end): the negative one with the
  old price and quantity, the positive one with the new; only one where an item was added or removed. They begin life as
  pending invoice items and come on the next invoice of the subscription, if need be a last one at its end; yearly
  subscriptions and changes in the first two days of a period are invoiced at once;
- a change at a renewal (by a schedule): the next period's line simply has the new price and quantity;
- a pause: in the history pauses begin and end at period boundaries, so the paused periods are exactly those whose
  `subscription_cycle` invoice is void (an hour after its creation). The period billed is that of its lines that begin
  when it was created: an invoice's own period looks back, and so do lines of metered prices. While somebody watches
  (after the anchor) pauses come and go at any instant: `customer.subscription.updated` events tell;
- a discount: begins with the subscription or at a renewal; on every invoice from then on, with start and end;
- failed first payments: the subscription is `incomplete_expired` and never counted;
- the end: `ended_at`. A canceled subscription keeps its last items.

What changes without any event, as at Stripe: `invoiceitem.invoice`, `times_redeemed` of coupons and promotion codes,
and the status of balance transactions (those inside disputes too).
"""

from __future__ import annotations

from typing import Any

from churnguard_pipelines.sandbox.business import billing, collection
from churnguard_pipelines.sandbox.business.company import INTERVAL_MONTHS, Business
from churnguard_pipelines.sandbox.business.entities import (
    Coupon,
    Customer,
    Discount,
    Invoice,
    Item,
    Price,
    PromotionCode,
    Schedule,
    Subscription,
)
from churnguard_pipelines.sandbox.business.instants import DAY, HOUR, add_months

PAUSED = {"behavior": "void", "resumes_at": None}
EXPIRES_AFTER = 23 * HOUR


def begin(
    business: Business,
    customer: Customer,
    choice: list[tuple[Price, int | None]],
    *,
    trial_days: int = 0,
    coupons: tuple[Coupon, ...] = (),
    promotion_code: PromotionCode | None = None,
) -> Subscription:
    """A new subscription with its first invoice: paid, or `incomplete` for 23 hours where the payment fails."""
    now = business.now
    interval = choice[0][0].interval
    assert interval is not None
    trial_end = now + trial_days * DAY if trial_days else None
    anchor = trial_end or now
    end = trial_end or add_months(now, INTERVAL_MONTHS[interval])
    items = [Item(business.new_id("si_"), now, price, quantity) for price, quantity in choice]
    subscription = Subscription(
        business.new_id("sub_1S"), now, customer, items, customer.currency, interval, anchor, now, end
    )
    if trial_end:
        subscription.status, subscription.trial_start, subscription.trial_end = "trialing", now, trial_end
        business.at(trial_end - 3 * DAY, _trial_will_end, business, subscription)
    customer.subscriptions.append(subscription)
    business.subscriptions.add(subscription)
    for coupon in coupons:
        add_discount(business, subscription, coupon, promotion_code)
        promotion_code = None
    licensed = [item for item in items if item.quantity is not None]
    lines = [billing.item_line(business, subscription, item, trial=bool(trial_end)) for item in licensed]
    subscription.status = subscription.status if trial_end else "incomplete"
    invoice = billing.draw_up(business, customer, subscription, "subscription_create", lines)
    business.emit("customer.subscription.created", subscription)
    _pay_first(business, subscription, invoice)
    business.at(end, renew, business, subscription, end)
    return subscription


def _pay_first(business: Business, subscription: Subscription, invoice: Invoice) -> None:
    collection.finalize(business, invoice)
    if subscription.status != "incomplete":
        business.note(subscription)
        return
    if invoice.status == "paid":
        subscription.status = "active"
        business.emit("customer.subscription.updated", subscription, {"status": "incomplete"})
        business.note(subscription)
    else:
        business.at(business.now + EXPIRES_AFTER, _expire, business, subscription, invoice)


def _expire(business: Business, subscription: Subscription, invoice: Invoice) -> None:
    if subscription.ended_at is not None:
        return
    subscription.status, subscription.ended_at = "incomplete_expired", business.now
    collection.void(business, invoice)
    business.emit("customer.subscription.updated", subscription, {"status": "incomplete"})


def _trial_will_end(business: Business, subscription: Subscription) -> None:
    if subscription.status == "trialing":
        business.emit("customer.subscription.trial_will_end", subscription)


def add_discount(
    business: Business, subscription: Subscription, coupon: Coupon, promotion_code: PromotionCode | None = None
) -> None:
    now = business.now
    end = add_months(now, coupon.months) if coupon.duration == "repeating" and coupon.months else None
    code = promotion_code.id if promotion_code else None
    discount = Discount(business.new_id("di_1S"), coupon, code, subscription.id, subscription.customer.id, now, end)
    subscription.discounts.append(discount)
    coupon.times_redeemed += 1
    if promotion_code:
        promotion_code.times_redeemed += 1
    business.emit("customer.discount.created", discount)
    if end is not None:
        business.at(end, _drop_discount, business, subscription, discount)


def _drop_discount(business: Business, subscription: Subscription, discount: Discount) -> None:
    if subscription.ended_at is None:
        before = [each.id for each in subscription.discounts]
        subscription.discounts.remove(discount)
        business.emit("customer.discount.deleted", discount)
        business.emit("customer.subscription.updated", subscription, {"discounts": before})
        business.note(subscription)


def renew(business: Business, subscription: Subscription, due: int) -> None:
    """The period is over: what was decided for this instant happens; the next is billed, or the subscription ends."""
    if subscription.ended_at is not None or subscription.period_end != due or subscription.status == "incomplete":
        return
    if subscription.cancel_at_period_end:
        collection.end(business, subscription, "cancellation_requested")
        return
    previous = _turn(business, subscription)
    before_start, before_end = subscription.period_start, subscription.period_end
    if subscription.status == "trialing":
        previous["status"], subscription.status = "trialing", "active"
    else:
        subscription.periods += 1
    months = INTERVAL_MONTHS[subscription.interval]
    subscription.period_start = due
    subscription.period_end = add_months(subscription.anchor, months * (subscription.periods + 1))
    business.note(subscription)
    lines = [
        billing.item_line(business, subscription, item)
        if item.quantity is not None
        else billing.usage_line(business, subscription, item, before_start, before_end)
        for item in subscription.items
    ]
    latest = subscription.latest_invoice
    invoice = billing.draw_up(
        business,
        subscription.customer,
        subscription,
        "subscription_cycle",
        lines,
        since=before_start,
        finalizes_at=due + HOUR,
    )
    business.at(due + HOUR, collection.finalize, business, invoice)
    previous["latest_invoice"] = latest.id if latest else None
    business.emit("customer.subscription.updated", subscription, previous)
    business.at(subscription.period_end, renew, business, subscription, subscription.period_end)


def _turn(business: Business, subscription: Subscription) -> dict[str, Any]:
    """Does what waits for the period's start; gives the attributes that were different before."""
    previous = _items_before(business, subscription)
    if subscription.paused and subscription.resume_at is not None and subscription.resume_at <= business.now:
        subscription.paused, subscription.resume_at = False, None
        previous["pause_collection"] = PAUSED
    if subscription.pause_for and subscription.status == "active" and not subscription.paused:
        months = INTERVAL_MONTHS[subscription.interval]
        subscription.paused = True
        subscription.resume_at = add_months(
            subscription.anchor, months * (subscription.periods + 1 + subscription.pause_for)
        )
        previous["pause_collection"] = None
    subscription.pause_for = 0
    if subscription.next_prices is not None:
        item, (price, quantity) = subscription.items[0], subscription.next_prices
        item.price, item.quantity, subscription.next_prices = price, quantity, None
    if subscription.next_coupon is not None:
        previous["discounts"] = [discount.id for discount in subscription.discounts]
        add_discount(business, subscription, subscription.next_coupon)
        subscription.next_coupon = None
    return previous


def _items_before(business: Business, subscription: Subscription) -> dict[str, Any]:
    if not business.keeps_events:
        return {}
    return {"items": {"data": business.provider.shown(subscription, business.now)["items"]["data"]}}


def change(
    business: Business,
    subscription: Subscription,
    changes: list[tuple[Item | None, Price, int]],
    *,
    invoice_now: bool = False,
) -> None:
    """Items get a new price and quantity now, prorated. None adds an item; quantity 0 takes an item away."""
    previous = _items_before(business, subscription)
    now = business.now
    for item, price, quantity in changes:
        if item is None:
            item = Item(business.new_id("si_"), now, price, quantity)
            subscription.items.append(item)
        else:
            billing.prorate(business, subscription, item, -1)
            item.price, item.quantity = price, quantity
        if quantity == 0:
            subscription.items.remove(item)
        else:
            billing.prorate(business, subscription, item, +1)
    early = now < subscription.period_start + 2 * DAY
    if invoice_now or early or subscription.interval == "year":
        latest = subscription.latest_invoice
        invoice = billing.draw_up(business, subscription.customer, subscription, "subscription_update", [])
        previous["latest_invoice"] = latest.id if latest else None
        business.emit("customer.subscription.updated", subscription, previous)
        collection.finalize(business, invoice)
    else:
        business.emit("customer.subscription.updated", subscription, previous)
    business.note(subscription)


def switch_to_yearly(business: Business, subscription: Subscription) -> None:
    """All items by the year from now on: a new period begins, the rest of the old one is given back."""
    previous = _items_before(business, subscription)
    previous["billing_cycle_anchor"] = subscription.anchor
    for item in subscription.items:
        billing.prorate(business, subscription, item, -1)
        item.price = business.catalog.yearly(item.price)
    now = business.now
    subscription.interval, subscription.anchor, subscription.periods = "year", now, 0
    subscription.period_start, subscription.period_end = now, add_months(now, 12)
    lines = [billing.item_line(business, subscription, item) for item in subscription.items]
    invoice = billing.draw_up(business, subscription.customer, subscription, "subscription_update", lines)
    business.emit("customer.subscription.updated", subscription, previous)
    business.note(subscription)
    collection.finalize(business, invoice)
    business.at(subscription.period_end, renew, business, subscription, subscription.period_end)


def set_pause(business: Business, subscription: Subscription, paused: bool) -> None:
    """At any instant: only while somebody watches, because no invoice tells of it."""
    subscription.paused, subscription.resume_at = paused, None
    previous = {"pause_collection": None if paused else PAUSED}
    business.note(subscription)
    business.emit("customer.subscription.updated", subscription, previous)


def cancel_at_period_end(business: Business, subscription: Subscription, feedback: str | None) -> None:
    subscription.cancel_at_period_end = True
    subscription.cancel_at = subscription.period_end
    subscription.canceled_at = business.now
    subscription.reason, subscription.feedback = "cancellation_requested", feedback
    business.emit(
        "customer.subscription.updated",
        subscription,
        {"cancel_at_period_end": False, "cancel_at": None, "canceled_at": None},
    )


def keep_after_all(business: Business, subscription: Subscription) -> None:
    if not subscription.cancel_at_period_end or subscription.ended_at is not None:
        return
    previous = {
        "cancel_at_period_end": True,
        "cancel_at": subscription.cancel_at,
        "canceled_at": subscription.canceled_at,
    }
    subscription.cancel_at_period_end = False
    subscription.cancel_at = subscription.canceled_at = None
    subscription.reason = subscription.feedback = None
    business.emit("customer.subscription.updated", subscription, previous)


def plan_change(business: Business, subscription: Subscription, price: Price, quantity: int) -> Schedule:
    """A schedule: at the next renewal the first item gets another price and quantity; then the schedule lets go."""
    item = subscription.items[0]
    months = INTERVAL_MONTHS[subscription.interval]
    turn = subscription.period_end
    end = add_months(subscription.anchor, months * (subscription.periods + 2))
    schedule = Schedule(
        business.new_id("sub_sched_1S"),
        business.now,
        subscription.customer,
        subscription,
        (item.price.id, item.quantity or 1),
        (price.id, quantity),
        subscription.period_start,
        turn,
        end,
    )
    business.schedules.add(schedule)
    subscription.schedule = schedule
    subscription.next_prices = (price, quantity)
    business.emit("subscription_schedule.created", schedule)
    business.emit("customer.subscription.updated", subscription, {"schedule": None})
    business.at(turn, _phase_turned, business, schedule)
    business.at(end, _release, business, schedule)
    return schedule


def _phase_turned(business: Business, schedule: Schedule) -> None:
    if schedule.status == "active":
        business.emit("subscription_schedule.updated", schedule)


def _release(business: Business, schedule: Schedule) -> None:
    if schedule.status != "active":
        return
    schedule.status, schedule.released_at = "released", business.now
    schedule.subscription.schedule = None
    business.emit("subscription_schedule.released", schedule, {"status": "active"})
    business.emit("customer.subscription.updated", schedule.subscription, {"schedule": schedule.id})


def delete_customer(business: Business, customer: Customer) -> None:
    """The customer goes; its subscriptions end now and stay listed, as its invoices do."""
    for subscription in customer.subscriptions:
        if subscription.ended_at is None:
            collection.end(business, subscription, "cancellation_requested")
    business.customers.delete(customer)
    business.emit("customer.deleted", customer)
