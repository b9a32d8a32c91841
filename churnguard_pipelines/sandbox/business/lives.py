"""The customers' lives: who signs up, and what each decides in each billing period."""

from __future__ import annotations

from collections.abc import Callable

from churnguard_pipelines.sandbox.business import billing, collection, payments, subscriptions
from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.entities import (
    CheckoutSession,
    Coupon,
    Customer,
    Interval,
    Price,
    Product,
    PromotionCode,
    Subscription,
)
from churnguard_pipelines.sandbox.business.instants import DAY, HOUR, add_months

FIRST = (
    "Northwind",
    "Blue",
    "Golden",
    "Silver",
    "Bright",
    "Quiet",
    "Rapid",
    "Green",
    "Urban",
    "Alpine",
    "Coastal",
    "Prime",
)
SECOND = (
    "Harbor",
    "Forge",
    "Bakery",
    "Logistics",
    "Dental",
    "Robotics",
    "Studio",
    "Farms",
    "Media",
    "Freight",
    "Law",
    "Labs",
)
COUNTRIES = {"usd": ("US", "CA", "GB"), "eur": ("DE", "FR", "NL", "IT"), "jpy": ("JP",)}
CARDS = (("visa", "4242"), ("mastercard", "4444"), ("amex", "0005"), ("visa", "1881"))
FEEDBACK = ("too_expensive", "missing_features", "switched_service", "unused", "too_complex", "other", None)
TRIAL_DAYS = 14


def start(business: Business) -> None:
    """Opens the business: signups, the weekly win-back letter, housekeeping and payouts follow by themselves."""
    payments.open_bank_account(business)
    if business.target == 0:
        return
    business.at(business.now + HOUR, _next_signup, business)
    business.at(business.now + 60 * DAY, _win_back, business)
    business.at(business.now + 20 * DAY, _housekeeping, business)


def _next_signup(business: Business) -> None:
    rng = business.rng
    if rng.random() < 0.22:
        open_checkout(business)
    else:
        sign_up(business)
    span = business.anchor - business.opened
    progress = min(1.0, (business.now - business.opened) / span)
    pause = span / business.target / (0.85 + 0.45 * progress)
    business.at(business.now + 1 + int(rng.expovariate(1 / pause)), _next_signup, business)


def open_checkout(business: Business) -> None:
    """A checkout session: completed within minutes, or given up and expired after a day."""
    rng = business.rng
    name, email = _name(business)
    currency = _currency(business)
    price = rng.choice(business.catalog.plans[currency, "month"])
    session = CheckoutSession(
        business.new_id("cs_test_a1"),
        business.now,
        currency,
        price.unit_amount,
        business.now + DAY,
        email,
        name,
    )
    business.checkout_sessions.add(session)
    if rng.random() < 0.7:
        business.at(business.now + rng.randrange(60, 1800), _complete_checkout, business, session, price)
    else:
        business.at(session.expires, _expire_checkout, business, session)


def _complete_checkout(business: Business, session: CheckoutSession, price: Price) -> None:
    customer = add_customer(business, session.currency, session.name, session.email)
    subscription = subscriptions.begin(business, customer, [(price, 1)])
    invoice = subscription.latest_invoice
    session.status, session.customer, session.subscription = "complete", customer.id, subscription.id
    session.invoice = invoice.id if invoice else None
    business.emit("checkout.session.completed", session)
    follow(business, subscription)


def _expire_checkout(business: Business, session: CheckoutSession) -> None:
    session.status = "expired"
    business.emit("checkout.session.expired", session)


def _name(business: Business) -> tuple[str, str]:
    rng, number = business.rng, len(business.customers) + 1
    name = f"{rng.choice(FIRST)} {rng.choice(SECOND)} {number}"
    return name, f"billing@{name.lower().replace(' ', '-')}.example.com"


def _currency(business: Business) -> str:
    shares = business.profile.currencies
    return business.rng.choices(list(shares), list(shares.values()))[0]


def add_customer(
    business: Business, currency: str | None = None, name: str | None = None, email: str | None = None
) -> Customer:
    rng = business.rng
    currency = currency or _currency(business)
    made_name, made_email = _name(business)
    customer = Customer(
        business.new_id("cus_S"),
        business.now,
        name or made_name,
        email or made_email,
        rng.choice(COUNTRIES[currency]),
        currency,
        number=(business.customers.newest() or _NOBODY).number + 1,
        card=rng.choice(CARDS),
        shaky=rng.random() < 0.05,
    )
    business.customers.add(customer)
    business.emit("customer.created", customer)
    return customer


_NOBODY = Customer("cus_0", 0, "", "", "", "", number=0)


def sign_up(business: Business) -> Subscription:
    """A new customer with a subscription, often on trial."""
    customer = add_customer(business)
    trial = business.rng.random() < 0.35
    return subscribe(business, customer, trial_days=TRIAL_DAYS if trial else 0)


def subscribe(business: Business, customer: Customer, trial_days: int = 0) -> Subscription:
    """A subscription of the customer's taste; a second try a day later where the first payment fails."""
    rng = business.rng
    interval: Interval = "year" if rng.random() < 0.2 else "month"
    plans = business.catalog.plans[customer.currency, interval]
    add_ons = business.catalog.add_ons[customer.currency, interval]
    seats = 1 + int(rng.expovariate(0.25))
    choice: list[tuple[Price, int | None]] = [(rng.choices(plans, (5, 4, 2))[0], seats)]
    taste = rng.random()
    if taste < 0.01:
        choice += [(price, seats) for price in add_ons]  # the bundle: more entries than an included list holds
    elif taste < 0.2:
        choice += [(price, rng.randrange(1, 4)) for price in rng.sample(add_ons, rng.randrange(1, 3))]
    elif taste < 0.24 and interval == "month":
        choice.append((business.catalog.metered[customer.currency], None))
    coupons, code = _coupons(business, customer)
    subscription = subscriptions.begin(
        business, customer, choice, trial_days=trial_days, coupons=coupons, promotion_code=code
    )
    if subscription.status == "incomplete" and rng.random() < 0.6:
        business.at(business.now + DAY + HOUR, _try_again, business, customer)
    if trial_days and rng.random() < 0.3:
        later = business.now + rng.randrange(1, trial_days) * DAY
        business.at(later, _leave, business, subscription, rng.random() < 0.8)
    follow(business, subscription)
    return subscription


def _try_again(business: Business, customer: Customer) -> None:
    if not customer.deleted:
        subscribe(business, customer)


def _coupons(business: Business, customer: Customer) -> tuple[tuple[Coupon, ...], PromotionCode | None]:
    rng = business.rng
    luck = rng.random()
    if luck > 0.16:
        return (), None
    offers = business.catalog.coupons_for(customer.currency)
    if luck < 0.01:
        percent = rng.choice([coupon for coupon in offers if coupon.percent_off is not None])
        amount = rng.choice([coupon for coupon in offers if coupon.amount_off is not None])
        return (amount, percent), None
    coupon = rng.choice(offers)
    codes = [code for code in business.catalog.promotion_codes if code.coupon is coupon]
    return (coupon,), codes[0] if codes and rng.random() < 0.7 else None


# A subscription's decisions, drawn at the start of each period


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


def _leave(business: Business, subscription: Subscription, at_period_end: bool) -> None:
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
    (0.02, _leave, (True,)),
    (0.009, _leave, (False,)),
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


def _win_back(business: Business) -> None:
    """Once a week: some who left between 20 and 150 days ago come back, as the same customer."""
    for customer in business.customers:
        if customer.subscriptions and all(each.ended_at is not None for each in customer.subscriptions):
            gone = business.now - max(each.ended_at or 0 for each in customer.subscriptions)
            if 20 * DAY < gone < 150 * DAY and business.rng.random() < 0.02:
                subscribe(business, customer)
    business.at(business.now + 7 * DAY, _win_back, business)


def _housekeeping(business: Business) -> None:
    """Every month: an offer nobody took is withdrawn, a product that never sold is deleted."""
    now = business.now
    coupon = Coupon(f"OFFER-{now // DAY}", now, "This month only", "once", percent_off=5.0)
    business.coupons.add(coupon)
    business.emit("coupon.created", coupon)
    idea = Product(business.new_id("prod_"), now, f"Idea {now // DAY}", updated=now)
    business.products.add(idea)
    business.emit("product.created", idea)
    business.at(now + 12 * DAY, _withdraw, business, coupon, idea)
    business.at(add_months(now, 1), _housekeeping, business)


def _withdraw(business: Business, coupon: Coupon, idea: Product) -> None:
    business.coupons.delete(coupon)
    business.emit("coupon.deleted", coupon)
    business.products.delete(idea)
    business.emit("product.deleted", idea)
