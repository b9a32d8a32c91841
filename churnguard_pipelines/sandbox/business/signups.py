"""How a business gets its customers: signups, checkouts, trials, and letters to those who left."""

from __future__ import annotations

from churnguard_pipelines.sandbox.business import payments, subscriptions
from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.decisions import follow, leave
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
        business.at(later, leave, business, subscription, rng.random() < 0.8)
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
