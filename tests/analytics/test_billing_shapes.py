"""What prices, coupons and taxes of every shape come to, by invoices before the first sync and by what it saw after."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import permutations
from typing import Any

import pytest

from churnguard_pipelines.analytics.pricing import Discount, Item, cost, monthly, problems
from tests.analytics.conftest import Billing, endings, moved

JSON = dict[str, Any]
TIERS: list[JSON] = [{"up_to": 10, "unit_amount": 1000}, {"up_to": None, "unit_amount": 800}]
FLAT: list[JSON] = [{"up_to": 10, "unit_amount": 1000}, {"up_to": None, "unit_amount": 800, "flat_amount": 500}]


def priced(**fields: Any) -> JSON:
    return {"id": "p", "currency": "usd", "billing_scheme": "per_unit", "unit_amount": None, **fields}


def tiered(mode: str, tiers: list[JSON]) -> JSON:
    return priced(billing_scheme="tiered", tiers_mode=mode, tiers=tiers)


@pytest.mark.parametrize(
    ("price", "quantity", "amount"),
    [
        (tiered("graduated", TIERS), 15, 14_000),
        (tiered("volume", TIERS), 15, 12_000),
        (tiered("graduated", FLAT), 15, 14_500),
        (tiered("volume", FLAT), 15, 12_500),
        (tiered("graduated", FLAT), 10, 10_000),
        (tiered("volume", FLAT), 10, 10_000),
        (tiered("graduated", FLAT), 0, 0),
        (tiered("volume", [{"up_to": None, "unit_amount": None, "flat_amount": 700}]), 3, 700),
        (tiered("graduated", [{"up_to": 1, "unit_amount_decimal": "0.5", "unit_amount": None},
                              {"up_to": None, "flat_amount_decimal": "10.25"}]), 3, "10.75"),
        (priced(unit_amount=1000, transform_quantity={"divide_by": 10, "round": "up"}), 25, 3000),
        (priced(unit_amount=1000, transform_quantity={"divide_by": 10, "round": "down"}), 25, 2000),
        (priced(unit_amount=1000, transform_quantity={"divide_by": 10, "round": "up"}), 20, 2000),
        (priced(unit_amount=0, unit_amount_decimal="0.05"), 30, "1.5"),
        (priced(unit_amount=1000, currency="eur", currency_options={"usd": {"unit_amount": 800}}), 2, 1600),
        (tiered("volume", TIERS) | {"currency": "eur", "currency_options": {"usd": {"tiers": TIERS[1:]}}}, 2, 1600),
    ],
)  # fmt: skip
def test_what_a_quantity_costs(price: JSON, quantity: int, amount: int | str) -> None:
    assert cost(price, Fraction(quantity), "usd") == (Fraction(amount), None)


@pytest.mark.parametrize(
    ("price", "says"),
    [
        (tiered("volume", []), "tiers of the price p are not known"),
        (tiered("volume", TIERS[:1]), "tiers of the price p are not known"),  # what is above costs nobody knows what
        (tiered("dutch auction", TIERS), "tiers of the price p are not known"),
        (priced(), "the price p has no amount"),
        (priced(unit_amount=5, currency="eur"), "the price p is not known in usd"),
        (priced(unit_amount=5, currency="eur", currency_options={"gbp": {"unit_amount": 4}}), "not known in usd"),
        (tiered("volume", TIERS) | {"currency": "eur", "currency_options": {"usd": {"unit_amount": None}}}, "tiers"),
    ],
)
def test_what_cannot_be_valued_is_named_and_not_guessed(price: JSON, says: str) -> None:
    amount, problem = cost(price, Fraction(15), "usd")
    assert amount == 0
    assert problem is not None
    assert says in problem


def off(amount: int, **fields: Any) -> Discount:
    return Discount("d", None, Fraction(amount), 0, None, True, **fields)


def percent(of: int, **fields: Any) -> Discount:
    return Discount("d", Fraction(of), Fraction(0), 0, None, True, **fields)


MONTH, YEAR = Item(Fraction(1000), Fraction(1), "si_a", "A"), Item(Fraction(12_000), Fraction(12), "si_b", "B")
OTHER = Item(Fraction(1000), Fraction(1), "si_b", "B")


@pytest.mark.parametrize(
    ("items", "discounts", "mrr"),
    [
        ([YEAR, MONTH], [off(600)], 1400),  # it comes off every invoice, of which there is one a month
        ([YEAR, MONTH], [off(1500)], 958),  # eleven invoices of nothing, one of 11,500
        ([YEAR], [off(1200)], 900),
        ([MONTH, OTHER], [off(500, products=frozenset("A"))], 1500),
        ([MONTH, OTHER], [off(5000, products=frozenset("A"))], 1000),
        ([MONTH, OTHER], [percent(50, item="si_a")], 1500),
        ([MONTH, OTHER], [off(300, item="si_b"), percent(50)], 850),  # an item's own go first
        ([MONTH, OTHER], [percent(50, products=frozenset("C"))], 2000),
        ([YEAR, MONTH], [off(600, products=frozenset("B"))], 1950),  # once a year
        ([MONTH._replace(net=Fraction(5, 6)), OTHER], [off(400)], 1467),  # 800 with a sixth of tax, and 800
        (
            [Item(Fraction(700), Fraction(12, 52), "w"), MONTH],
            [off(100)],
            3533,
        ),  # in three months 12 × 600, 2 × 900 and 1600
    ],
)
def test_what_invoices_come_to_by_the_month(items: list[Item], discounts: list[Discount], mrr: int) -> None:
    for ordered in permutations(items):
        assert monthly(ordered, discounts) == mrr
        assert problems(ordered, discounts) == ()


def month(books: Billing, *items: tuple[str, str, int], **fields: Any) -> list[int]:
    """What the subscription is worth at the ends of November, by its invoice alone, and December, by what was seen."""
    lines = fields.pop("lines", {})
    shown = {"discounts": fields["discounts"]} if "discounts" in fields else {}
    books.subscription("sub_1", *items, start="2025-11-10", **fields)
    billed = [books.line(*item, "2025-11-10", "2026-11-10") | lines.get(item[0], {}) for item in items]
    books.invoice("2025-11-10", *billed, **shown)
    return list(endings(books.mrr()).values())


def test_units_are_sold_in_packages(books: Billing) -> None:
    books.price("p", 1000, transform_quantity={"divide_by": 10, "round": "up"})
    assert month(books, ("si_1", "p", 25)) == [3000, 3000]


@pytest.mark.parametrize(("mode", "mrr"), [("volume", 4500), ("graduated", 4700)])
def test_tiers(books: Billing, mode: str, mrr: int) -> None:
    tiers = [{"up_to": 2, "unit_amount": 1000}, {"up_to": None, "unit_amount": 900}]
    books.price("p", None, billing_scheme="tiered", tiers_mode=mode, tiers=tiers)
    assert month(books, ("si_1", "p", 5)) == [mrr, mrr]


def test_a_graduated_price_has_a_line_for_each_tier(books: Billing) -> None:
    books.price("p", None, billing_scheme="tiered", tiers_mode="graduated", tiers=FLAT)
    books.subscription("sub_1", ("si_1", "p", 15), start="2025-10-10")
    first, rest = ("2025-10-10", "2025-11-10"), ("2025-11-20", "2025-12-10")
    books.invoice(
        "2025-10-10", books.line("si_1", "p", 10, *first, amount=10_000),
        books.line("si_1", "p", 2, *first, amount=1600), books.line("si_1", "p", 0, *first, amount=500),
    )  # fmt: skip
    books.invoice(
        "2025-12-10",
        books.credit("si_1", "p", 10, *rest), books.credit("si_1", "p", 2, *rest),
        books.debit("si_1", "p", 10, *rest), books.debit("si_1", "p", 5, *rest),
    )  # fmt: skip
    assert endings(books.mrr("2025-12-05")) == {"2025-10": 12_100, "2025-11": 14_500, "2025-12": 14_500}


@pytest.fixture
def british(another: Callable[..., Billing]) -> Billing:
    """Reports in pounds, so that no rate is needed."""
    return another("globex", currency="gbp")


def test_a_price_in_another_currency_than_its_own(british: Billing) -> None:
    books = british
    books.price("p", 1000, currency_options={"gbp": {"unit_amount": 800}, "usd": {"unit_amount": 1000}})
    month(books, ("si_1", "p", 1), currency="gbp", lines={"si_1": {"pricing": pricing("p", "800")}})
    assert [(row.currency, row.ending) for row in books.mrr().by_currency] == [("gbp", 800)] * 2


def pricing(price: str, unit: str) -> JSON:
    return {"price_details": {"price": price, "product": None}, "unit_amount_decimal": unit}


def test_an_option_that_is_not_known_counts_nothing_and_is_named(british: Billing) -> None:
    books = british
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-11-10", currency="gbp")
    report = books.mrr()
    assert report.movements[-1].ending == 0
    assert [(each.subscription, each.problem, each.until) for each in report.unvalued] == [
        ("sub_1", "the price p is not known in gbp", None)
    ]


def test_what_an_invoice_told_holds_while_the_price_does_not_tell(british: Billing) -> None:
    """Or not being able to value it would look like a loss; another quantity is another matter."""
    books = british
    books.price("p", 1000)
    lines = {"si_1": {"pricing": pricing("p", "800")}}
    assert month(books, ("si_1", "p", 2), currency="gbp", lines=lines) == [1600, 1600]
    assert books.mrr().unvalued == []
    books.subscription("sub_1", ("si_1", "p", 3), start="2025-11-10", currency="gbp", seen="2025-12-31 12:30")
    report = books.mrr("2025-12-31 13:00")
    assert (report.movements[-1].ending, len(report.unvalued)) == (0, 1)


def test_an_amount_off_in_another_currency(british: Billing) -> None:
    books = british
    books.price("p", 1000, currency="gbp")
    books.coupon("c", "forever", amount=500, currency="usd", currency_options={"gbp": {"amount_off": 400}})
    month(books, ("si_1", "p", 1), currency="gbp", discounts=[books.discount("c", "2025-11-10")])
    assert [row.ending for row in books.mrr().by_currency] == [600, 600]


def test_a_coupon_for_one_product_and_one_for_one_item(books: Billing) -> None:
    books.price("a", 1000, product="prod_a")
    books.price("b", 1000, product="prod_b")
    books.coupon("c", "forever", percent=50, applies_to={"products": ["prod_a"]})
    own = books.discount("d", "2025-11-10") | {"subscription_item": "si_2"}
    books.coupon("d", "forever", amount=100)
    item = {"price": books.prices["b"], "id": "si_2", "quantity": 1, "discounts": [own]}
    books.price("b", 1000, product="prod_b", listed=False)
    made = month(
        books, ("si_1", "a", 1), ("si_2", "b", 1), discounts=[books.discount("c", "2025-11-10")],
        lines={"si_1": product("a", "prod_a"), "si_2": product("b", "prod_b") | {"discounts": [own]}},
        items={"data": [{"price": books.prices["a"], "id": "si_1", "quantity": 1}, item]},
    )  # fmt: skip
    assert made == [1400, 1400]


def product(price: str, product: str) -> JSON:
    return {"pricing": {"price_details": {"price": price, "product": product}, "unit_amount_decimal": "1000"}}


def test_a_discount_of_one_invoice_is_not_recurring(books: Billing) -> None:
    books.price("p", 1000)
    once = books.discount(books.coupon("half", "forever", percent=50), "2025-11-10") | {"invoice": "in_1"}
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-11-10")
    books.periods("si_1", "p", 1, "2025-11-10", "2025-12-10", discounts=[once])
    assert set(endings(books.mrr()).values()) == {1000}


def test_a_coupon_deleted_before_the_first_sync_is_known_by_its_lines(books: Billing) -> None:
    books.price("p", 10_000)
    gone = books.discount("gone", "2025-11-10")
    told = {"discount_amounts": [{"amount": 2000, "discount": gone["id"]}]}
    assert month(books, ("si_1", "p", 1), discounts=[gone], lines={"si_1": told}) == [8000, 8000]


def test_one_invoice_does_not_tell_whether_a_deleted_coupon_recurs(books: Billing) -> None:
    books.price("p", 10_000)
    gone = books.discount("gone", "2025-09-10")
    told = {"discount_amounts": [{"amount": 2000, "discount": gone["id"]}]}
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-10")
    books.invoice("2025-09-10", books.line("si_1", "p", 1, "2025-09-10", "2025-10-10") | told, discounts=[gone])
    books.periods("si_1", "p", 1, "2025-10-10", "2025-11-10", "2025-12-10")
    report = books.mrr("2025-12-01")
    assert set(endings(report).values()) == {10_000}
    assert [(str(each.since.date()), str(each.until)[:10]) for each in report.unvalued] == [
        ("2025-09-10", "2025-10-10")
    ]


def test_two_invoices_tell_that_a_deleted_coupon_recurs(books: Billing) -> None:
    books.price("p", 10_000)
    gone = books.discount("gone", "2025-09-10")
    told = {"discount_amounts": [{"amount": 2000, "discount": gone["id"]}]}
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-10")
    for start, end in (("2025-09-10", "2025-10-10"), ("2025-10-10", "2025-11-10")):
        books.invoice(start, books.line("si_1", "p", 1, start, end) | told, discounts=[gone])
    books.periods("si_1", "p", 1, "2025-11-10", "2025-12-10")
    report = books.mrr("2025-12-01")
    assert list(endings(report).values()) == [8000, 8000, 10_000, 10_000]
    assert report.unvalued == []


def test_a_price_with_its_tax_in_it(books: Billing) -> None:
    books.price("p", 1200)
    taxes = [{"amount": 200, "taxable_amount": 1000, "tax_behavior": "inclusive"}]
    rates = [{"inclusive": True, "percentage": 20}, {"inclusive": False, "percentage": 7}]
    assert month(books, ("si_1", "p", 1), lines={"si_1": {"taxes": taxes}}, default_tax_rates=rates) == [1000, 1000]


@pytest.mark.parametrize(
    ("taxes", "mrr"),
    [
        ([{"amount": 100, "taxable_amount": 500, "tax_behavior": "inclusive"}], 1000),  # of half: a discount
        ([{"amount": 200, "taxable_amount": 1200, "tax_behavior": "exclusive"}], 1200),
        ([{"amount": 0, "taxable_amount": 0, "tax_behavior": "inclusive"}], 1200),  # reverse charge
        ([], 1200),
    ],
)
def test_a_tax_that_stripe_finds_is_known_by_what_was_billed(books: Billing, taxes: list[JSON], mrr: int) -> None:
    books.price("p", 1200, tax_behavior="inclusive")
    lines = {"si_1": {"taxes": taxes}}
    assert month(books, ("si_1", "p", 1), lines=lines, automatic_tax={"enabled": True}) == [mrr, mrr]


def test_a_tax_that_nobody_can_know_yet_is_named(books: Billing) -> None:
    books.price("p", 1200, tax_behavior="inclusive")
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-12-10", automatic_tax={"enabled": True})
    (found,) = books.mrr().unvalued
    assert found.problem == "which share of si_1 is tax is not known"


def test_currencies_whose_minor_units_stripe_has_its_own_ideas_of(books: Billing) -> None:
    """37,000 shillings are 3,700,000 to Stripe."""
    books.rate("2025-10-01", "ugx", "3885.37")
    books.rate("2025-11-30", "usd", "1.0501")
    books.price("p", 3_700_000, currency="ugx")
    month(books, ("si_1", "p", 1), currency="ugx")
    assert [row.new for row in books.mrr().movements] == [1000, 0]


def test_who_is_not_asked_to_pay_any_more_is_lost(books: Billing) -> None:
    books.price("p", 1000)
    for status, seen in (("active", "2025-10-11"), ("past_due", "2025-11-11"), ("unpaid", "2025-11-22")):
        books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-10", status=status, seen=seen)
    books.periods("si_1", "p", 1, "2025-12-10", "2026-01-10", status="draft", auto_advance=False)
    report = books.mrr()
    assert [moved(row) for row in report.movements] == [{"new": 1000}, {"churn": -1000}, {}]
    assert books.causes() == [None, "unpaid"]
    books.count_unpaid()
    assert set(endings(books.mrr()).values()) == {1000}


@pytest.mark.parametrize("unpaid", [{"status": "void"}, {"status": "draft", "auto_advance": False}])
def test_what_was_given_up_before_the_first_sync_was_no_pause(books: Billing, unpaid: JSON) -> None:
    books.price("p", 1000)
    gone = {"status": "canceled", "ended_at": "2025-12-05", "cancellation_details": {"reason": "payment_failed"}}
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-10", **gone)
    books.periods("si_1", "p", 1, "2025-10-10", "2025-11-10")
    books.periods("si_1", "p", 1, "2025-11-10", "2025-12-10", **unpaid)
    report = books.mrr()
    assert [(moved(row), row.paused) for row in report.movements[1:]] == [({"churn": -1000}, 0), ({}, 0)]
    assert books.causes() == [None, "unpaid", "ended"]


@pytest.mark.parametrize("seen", [True, False])
def test_a_trial_laid_over_what_was_paid_for_loses_nothing(books: Billing, seen: bool) -> None:
    books.price("p", 1000)
    trial = {"trial_start": "2025-11-01", "trial_end": "2025-11-29"}
    if seen:
        books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-01", seen="2025-10-02")
        books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-01", status="trialing", seen="2025-11-02", **trial)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-01", **trial)
    books.periods("si_1", "p", 1, "2025-10-01", "2025-11-01")
    books.invoice("2025-11-01", books.line("si_1", "p", 1, "2025-11-01", "2025-11-29", amount=0))
    books.periods("si_1", "p", 1, "2025-11-29", "2025-12-29")
    report = books.mrr()
    assert [moved(row) for row in report.movements] == [{"new": 1000}, {}, {}]


def test_a_trial_after_a_pause_is_a_trial(books: Billing) -> None:
    books.price("p", 1000)
    paused = {"pause_collection": {"behavior": "void"}}
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-01", seen="2025-09-02")
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-01", seen="2025-09-20", **paused)
    trial = {"status": "trialing", "trial_start": "2025-10-05", "trial_end": "2025-11-10"}
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-01", seen="2025-10-05", **trial)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-01", seen="2025-11-10")
    assert list(endings(books.mrr()).values()) == [0, 0, 1000, 1000]
    assert books.causes() == [None, "paused", "trial", None]


@pytest.mark.parametrize("seen", [True, False])
def test_a_pause_is_told_apart_from_a_loss(books: Billing, seen: bool) -> None:
    books.price("p", 5000)
    if seen:
        books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-01", seen="2025-10-02")
        pause = {"behavior": "void"}
        books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-01", seen="2025-11-01", pause_collection=pause)
        books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-01", seen="2025-12-01")
    else:
        books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-01")
        books.periods("si_1", "p", 1, "2025-10-01", "2025-11-01")
        books.periods("si_1", "p", 1, "2025-11-01", "2025-12-01", status="void")
        books.periods("si_1", "p", 1, "2025-12-01", "2026-01-01")
    report = books.mrr()
    assert list(endings(report).values()) == [5000, 0, 5000]
    assert [(row.paused, row.resumed) for row in report.movements] == [(0, 0), (-5000, 0), (0, 5000)]
    assert books.causes() == [None, "paused", None]
