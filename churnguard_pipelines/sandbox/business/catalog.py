"""What the simulated businesses sell: products, prices and coupons, per currency."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from churnguard_pipelines.sandbox.business.entities import Coupon, Interval, Price, Product, PromotionCode

PLANS = (("Starter", 1900), ("Team", 3900), ("Business", 7900))  # per seat and month, US cents
ADD_ONS = (
    ("Analytics", 900),
    ("API access", 1500),
    ("Single sign-on", 1200),
    ("Audit log", 800),
    ("Backup", 700),
    ("Priority support", 2900),
    ("Playground", 600),
    ("Reports", 1100),
    ("Forecast", 1900),
    ("Connectors", 1400),
    ("Archive", 500),
)
VOLUME = {"Backup": 2, "Reports": 5}  # more units than that cost four fifths each
PACKAGES = {"Archive": 10}  # units that are sold together
YEAR = 10  # a year costs ten months
FACTORS = {"usd": (1, 1), "eur": (9, 10), "jpy": (3, 2)}  # price in minor units = US cents × factor


@dataclass
class Catalog:
    """`plans[currency, interval]` in the order of upgrading; `add_ons` and `metered` likewise."""

    products: list[Product] = field(default_factory=list)
    prices: list[Price] = field(default_factory=list)
    coupons: list[Coupon] = field(default_factory=list)
    promotion_codes: list[PromotionCode] = field(default_factory=list)
    plans: dict[tuple[str, Interval], list[Price]] = field(default_factory=dict)
    add_ons: dict[tuple[str, Interval], list[Price]] = field(default_factory=dict)
    metered: dict[str, Price] = field(default_factory=dict)
    one_time: dict[str, Price] = field(default_factory=dict)

    def yearly(self, price: Price) -> Price:
        """The same product's price by the year."""
        offers = self.plans[price.currency, "year"] + self.add_ons[price.currency, "year"]
        return next(offer for offer in offers if offer.product is price.product)

    def coupons_for(self, currency: str) -> list[Coupon]:
        return [coupon for coupon in self.coupons if coupon.currency in (None, currency)]


def make_catalog(currencies: list[str], created: int, new_id: Callable[[str], str]) -> Catalog:
    """Everything on offer on the business's first day."""
    catalog = Catalog()

    def product(name: str) -> Product:
        made = Product(new_id("prod_"), created, name, updated=created, description=f"{name} of the simulated business")
        catalog.products.append(made)
        return made

    def price(
        product: Product, currency: str, cents: int, interval: Interval | None, *, metered: bool = False, rank: int = 0
    ) -> Price:
        times, by = FACTORS[currency]
        amount = max(1, cents * times // by)
        made = Price(new_id("price_1S"), created, product, currency, amount, interval, metered, rank=rank)
        if interval is not None and product.name in VOLUME:
            made.tiers = (VOLUME[product.name], amount), (None, amount * 4 // 5)
        made.package = PACKAGES.get(product.name, 1)
        made.nickname = f"{product.name} {currency.upper()} {'monthly' if interval == 'month' else interval or 'once'}"
        catalog.prices.append(made)
        product.default_price = product.default_price or made.id
        return made

    intervals: tuple[tuple[Interval, int], ...] = (("month", 1), ("year", YEAR))
    for names, offers in ((PLANS, catalog.plans), (ADD_ONS, catalog.add_ons)):
        for rank, (name, cents) in enumerate(names):
            offered = product(name)
            for currency in currencies:
                for interval, factor in intervals:
                    made = price(offered, currency, cents * factor, interval, rank=rank)
                    offers.setdefault((currency, interval), []).append(made)
    calls, onboarding, legacy = product("API calls"), product("Onboarding"), product("Classic")
    for currency in currencies:
        catalog.metered[currency] = price(calls, currency, 2, "month", metered=True)
        catalog.one_time[currency] = price(onboarding, currency, 49_900, None)
        price(legacy, currency, 2500, "month").active = False
    legacy.active = False
    _coupons(catalog, currencies, created, new_id)
    return catalog


def _coupons(catalog: Catalog, currencies: list[str], created: int, new_id: Callable[[str], str]) -> None:
    add = catalog.coupons.append
    plans = tuple(product.id for product in catalog.products[: len(PLANS)])
    add(Coupon("WELCOME20", created, "20 % off for 3 months", "repeating", 3, percent_off=20.0))
    add(Coupon("LAUNCH", created, "25.5 % off plans for ever", "forever", percent_off=25.5, products=plans))
    add(Coupon("NONPROFIT", created, "Half price", "forever", percent_off=50.0))
    add(Coupon("FIRST10", created, "10 % off the first invoice", "once", percent_off=10.0))
    add(Coupon("LOYAL15", created, "15 % off for a year", "repeating", 12, percent_off=15.0))
    for currency in currencies:
        times, by = FACTORS[currency]
        fixed, some = 1000 * times // by, 500 * times // by
        add(Coupon(f"FIXED-{currency.upper()}", created, "Fixed off", "forever", amount_off=fixed, currency=currency))
        add(Coupon(f"HALFYEAR-{currency.upper()}", created, "Off for 6 months", "repeating", 6, None, some, currency))
    for code, coupon in (
        ("HELLO", catalog.coupons[0]),
        ("EARLYBIRD", catalog.coupons[1]),
        ("TRYME", catalog.coupons[3]),
    ):
        catalog.promotion_codes.append(PromotionCode(new_id("promo_1S"), created, code, coupon))
