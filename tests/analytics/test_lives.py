"""What hand-made subscriptions come to, rebuilt from invoices: the first sync is at the end of it all."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.analytics.conftest import Billing, endings, moved

Q3 = ("2025-09-01", "2025-10-01", "2025-11-01", "2025-12-01", "2026-01-01")


def test_a_monthly_subscription_is_new_once_and_stays(books: Billing) -> None:
    books.price("team", 1900)
    books.subscription("sub_1", ("si_1", "team", 3), start="2025-10-15")
    books.periods("si_1", "team", 3, "2025-10-15", "2025-11-15", "2025-12-15", "2026-01-15")
    report = books.mrr()
    assert endings(report) == {"2025-10": 5700, "2025-11": 5700, "2025-12": 5700}
    assert [moved(row) for row in report.movements] == [{"new": 5700}, {}, {}]


@pytest.mark.parametrize(
    ("unit_amount", "interval", "count", "mrr"),
    [
        (19_000, "year", 1, 1583),  # 1583.33
        (18, "year", 1, 2),  # 1.5: halves go up
        (6000, "month", 3, 2000),
        (1200, "week", 1, 5200),
        (100, "day", 1, 3042),  # 365/12 days a month
        (1401, "week", 2, 3036),  # 3035.5
    ],
)
def test_intervals_come_down_to_a_month(books: Billing, unit_amount: int, interval: str, count: int, mrr: int) -> None:
    books.price("p", unit_amount, interval, count)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-11-10")
    books.periods("si_1", "p", 1, "2025-11-10", "2026-11-10")
    assert endings(books.mrr()) == {"2025-11": mrr, "2025-12": mrr}


def test_what_happens_at_midnight_belongs_to_the_month_that_begins(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-01", ended_at="2025-11-01", status="canceled")
    books.periods("si_1", "p", 1, "2025-10-01", "2025-11-01")
    books.subscription("sub_2", ("si_2", "p", 2), start="2025-10-31 23:59:59", customer="cus_2")
    books.subscription("sub_3", ("si_3", "p", 4), start="2025-11-01", customer="cus_3")
    october, november, _ = books.mrr().movements
    assert moved(october) == {"new": 3000}
    assert moved(november) == {"new": 4000, "churn": -1000}


def test_more_seats_count_from_the_change_not_from_the_next_invoice(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 5), start="2025-09-10")
    books.periods("si_1", "p", 2, "2025-09-10", "2025-10-10")
    books.invoice("2025-10-10", books.line("si_1", "p", 2, "2025-10-10", "2025-11-10"))
    change = ("2025-10-20", "2025-11-10")
    books.invoice(
        "2025-11-10", books.credit("si_1", "p", 2, *change), books.debit("si_1", "p", 5, *change),
        books.line("si_1", "p", 5, "2025-11-10", "2025-12-10"),
    )  # fmt: skip
    assert endings(books.mrr()) == {"2025-09": 2000, "2025-10": 5000, "2025-11": 5000, "2025-12": 5000}


def test_a_change_that_waits_for_its_invoice_counts_too(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 5), start="2025-11-10", seen="2025-12-05")
    books.periods("si_1", "p", 2, "2025-11-10", "2025-12-10")
    books.pending(books.credit("si_1", "p", 2, "2025-11-20", "2025-12-10"))
    books.pending(books.debit("si_1", "p", 5, "2025-11-20", "2025-12-10"))
    assert endings(books.mrr("2025-12-05")) == {"2025-11": 5000, "2025-12": 5000}


def test_two_changes_in_one_second_leave_the_last(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 9), start="2025-09-10")
    books.periods("si_1", "p", 2, "2025-09-10", "2025-10-10")
    change = ("2025-09-20", "2025-10-10")
    both = [
        books.debit("si_1", "p", 9, *change), books.credit("si_1", "p", 4, *change),
        books.debit("si_1", "p", 4, *change), books.credit("si_1", "p", 2, *change),
    ]  # fmt: skip
    books.invoice("2025-10-10", *both, books.line("si_1", "p", 9, "2025-10-10", "2025-11-10"))
    assert endings(books.mrr("2025-10-15")) == {"2025-09": 9000, "2025-10": 9000}


def test_leaving_a_free_plan_gives_back_nothing_and_is_an_upgrade(books: Billing) -> None:
    books.price("free", 0)
    books.price("paid", 1000)
    books.subscription("sub_1", ("si_1", "paid", 1), start="2025-09-10")
    books.periods("si_1", "free", 1, "2025-09-10", "2025-10-10")
    change = ("2025-09-20", "2025-10-10")
    books.invoice(
        "2025-10-10", books.debit("si_1", "paid", 1, *change), books.debit("si_1", "free", 1, *change, amount=0),
        books.line("si_1", "paid", 1, "2025-10-10", "2025-11-10"),
    )  # fmt: skip
    assert endings(books.mrr("2025-10-15")) == {"2025-09": 1000, "2025-10": 1000}


def test_an_item_is_added_and_another_one_removed(books: Billing) -> None:
    books.price("p", 1000)
    books.price("extra", 300)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-10")
    books.periods("si_1", "p", 1, "2025-09-10", "2025-10-10")
    books.invoice(
        "2025-09-20", books.debit("si_2", "extra", 1, "2025-09-20", "2025-10-10"), billing_reason="subscription_update"
    )
    for start, end in (("2025-10-10", "2025-11-10"), ("2025-11-10", "2025-12-10")):
        both = books.line("si_1", "p", 1, start, end), books.line("si_2", "extra", 1, start, end)
        books.invoice(start, *both)
    books.invoice(
        "2025-12-10", books.credit("si_2", "extra", 1, "2025-11-20", "2025-12-10"),
        books.line("si_1", "p", 1, "2025-12-10", "2026-01-10"),
    )  # fmt: skip
    assert endings(books.mrr()) == {"2025-09": 1300, "2025-10": 1300, "2025-11": 1000, "2025-12": 1000}


def test_an_item_that_is_not_billed_again_was_removed_at_the_renewal(books: Billing) -> None:
    books.price("p", 1000)
    books.price("extra", 300)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-10")
    first = ("2025-09-10", "2025-10-10")
    books.invoice("2025-09-10", books.line("si_1", "p", 1, *first), books.line("si_2", "extra", 1, *first))
    books.periods("si_1", "p", 1, "2025-10-10", "2025-11-10")
    assert endings(books.mrr("2025-11-01")) == {"2025-09": 1300, "2025-10": 1000, "2025-11": 1000}


def test_items_of_different_intervals_renew_on_their_own_invoices(books: Billing) -> None:
    books.price("seat", 1000)
    books.price("platform", 12_000, "year")
    books.subscription("sub_1", ("si_1", "seat", 1), ("si_2", "platform", 1), start="2025-09-10")
    books.invoice(
        "2025-09-10", books.line("si_1", "seat", 1, "2025-09-10", "2025-10-10"),
        books.line("si_2", "platform", 1, "2025-09-10", "2026-09-10"),
    )  # fmt: skip
    books.periods("si_1", "seat", 1, "2025-10-10", "2025-11-10", "2025-12-10", "2026-01-10")
    assert set(endings(books.mrr()).values()) == {2000}


def test_from_monthly_to_yearly_a_new_period_begins(books: Billing) -> None:
    books.price("month", 1200)
    books.price("year", 12_000, "year")
    books.subscription("sub_1", ("si_1", "year", 2), start="2025-09-10")
    books.periods("si_1", "month", 2, "2025-09-10", "2025-10-10", "2025-11-10")
    books.invoice(
        "2025-10-25", books.credit("si_1", "month", 2, "2025-10-25", "2025-11-10"),
        books.line("si_1", "year", 2, "2025-10-25", "2026-10-25"), billing_reason="subscription_update",
    )  # fmt: skip
    report = books.mrr("2025-11-10")
    assert endings(report) == {"2025-09": 2400, "2025-10": 2000, "2025-11": 2000}
    assert moved(report.movements[1]) == {"contraction": -400}


def test_a_trial_is_worth_nothing_until_its_end(books: Billing) -> None:
    books.price("p", 1000)
    trial = {"trial_start": "2025-09-20", "trial_end": "2025-10-04"}
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-20", **trial)
    books.invoice(
        "2025-09-20", books.line("si_1", "p", 1, "2025-09-20", "2025-10-04", amount=0),
        billing_reason="subscription_create",
    )  # fmt: skip
    books.periods("si_1", "p", 1, "2025-10-04", "2025-11-04")
    report = books.mrr("2025-10-20")
    assert endings(report) == {"2025-09": 0, "2025-10": 1000}
    assert moved(report.movements[1]) == {"new": 1000}


def test_a_trial_that_led_to_nothing_never_was_mrr(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription(
        "sub_1", ("si_1", "p", 1), start="2025-09-20", status="canceled", trial_start="2025-09-20",
        trial_end="2025-10-04", ended_at="2025-10-04",
    )  # fmt: skip
    assert set(endings(books.mrr()).values()) == {0}


@pytest.mark.parametrize("status", ["incomplete", "incomplete_expired"])
def test_without_its_first_payment_a_subscription_does_not_begin(books: Billing, status: str) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-30 20:00", status=status)
    books.periods(
        "si_1", "p", 1, "2025-09-30 20:00", "2025-10-30 20:00", status="void", billing_reason="subscription_create"
    )
    assert books.mrr("2025-10-15").movements == []


def test_it_begins_with_its_first_payment(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-30 23:00")
    books.invoice(
        "2025-09-30 23:00", books.line("si_1", "p", 1, "2025-09-30 23:00", "2025-10-30 23:00"),
        billing_reason="subscription_create", status_transitions={"paid_at": 1_759_280_400},  # 1 October, 01:00
    )  # fmt: skip
    assert endings(books.mrr("2025-10-15")) == {"2025-10": 1000}


def test_who_is_late_counts_until_the_end(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-10", status="past_due")
    books.periods("si_1", "p", 1, "2025-10-10", "2025-11-10")
    books.periods("si_1", "p", 1, "2025-11-10", "2025-12-10", status="open")
    books.periods("si_1", "p", 1, "2025-12-10", "2026-01-10", status="uncollectible")
    assert set(endings(books.mrr()).values()) == {1000}


@pytest.mark.parametrize("unpaid", [{"status": "void"}, {"status": "draft", "auto_advance": False}])
def test_a_period_that_nobody_has_to_pay_was_a_pause(books: Billing, unpaid: dict[str, object]) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-01")
    books.periods("si_1", "p", 1, *Q3[:2])
    books.periods("si_1", "p", 1, *Q3[1:3], **unpaid)
    books.periods("si_1", "p", 1, *Q3[2:4])
    report = books.mrr("2025-11-20")
    assert endings(report) == {"2025-09": 1000, "2025-10": 0, "2025-11": 1000}
    assert [moved(row) for row in report.movements] == [{"new": 1000}, {"churn": -1000}, {"reactivation": 1000}]


def test_a_fresh_draft_is_no_pause(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-30 23:30", seen="2025-11-10")
    books.periods("si_1", "p", 1, "2025-09-30 23:30", "2025-10-30 23:30", status="draft")
    assert endings(books.mrr("2025-11-01")) == {"2025-09": 1000, "2025-10": 1000, "2025-11": 1000}


def test_a_voided_invoice_that_was_written_anew_is_no_pause(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-10")
    books.periods("si_1", "p", 1, "2025-10-10", "2025-11-10", status="void")
    books.periods("si_1", "p", 1, "2025-10-10", "2025-11-10")
    assert endings(books.mrr("2025-11-01")) == {"2025-10": 1000, "2025-11": 1000}


def test_who_comes_back_is_reactivated(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-08-10", ended_at="2025-09-15", status="canceled")
    books.periods("si_1", "p", 1, "2025-08-10", "2025-09-10", "2025-10-10")
    books.subscription("sub_2", ("si_2", "p", 2), start="2025-11-05")
    books.invoice(
        "2025-11-05", books.line("si_2", "p", 2, "2025-11-05", "2025-12-05", subscription="sub_2"), subscription="sub_2"
    )
    report = books.mrr("2025-11-30")
    assert [moved(row) for row in report.movements] == [{"new": 1000}, {"churn": -1000}, {}, {"reactivation": 2000}]


def test_several_subscriptions_are_one_customer(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-10", ended_at="2025-11-20", status="canceled")
    books.subscription("sub_2", ("si_2", "p", 3), start="2025-11-20")
    october, november, _ = books.mrr().movements
    assert (moved(october), moved(november)) == ({"new": 1000}, {"expansion": 2000})


@pytest.mark.parametrize(
    ("duration", "end", "percent", "amount", "expected"),
    [
        ("forever", None, 25.5, None, [745, 745, 745, 745]),
        ("forever", None, None, 150, [850, 850, 850, 850]),
        ("forever", None, None, 5000, [0, 0, 0, 0]),  # never below
        ("repeating", "2025-11-01", 50, None, [500, 500, 1000, 1000]),  # over at midnight: October's end still has it
        ("once", None, 50, None, [1000, 1000, 1000, 1000]),
    ],
)
def test_recurring_discounts_reduce_mrr(
    books: Billing, duration: str, end: str | None, percent: float | None, amount: int | None, expected: list[int]
) -> None:
    books.price("p", 1000)
    discount = books.discount(books.coupon("c", duration, percent=percent, amount=amount), "2025-09-01", end)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-01", discounts=[] if end else [discount])
    for start, following in pairwise(Q3):
        over = end is not None and start >= end
        books.invoice(start, books.line("si_1", "p", 1, start, following), discounts=[] if over else [discount])
    assert list(endings(books.mrr()).values()) == expected


def test_percentages_come_before_amounts_whichever_was_first(books: Billing) -> None:
    books.price("p", 12_000, "year")
    amount = books.discount(books.coupon("a", "forever", amount=1200), "2025-10-01")
    percent = books.discount(books.coupon("b", "forever", percent=10), "2025-10-01")
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-01", discounts=[amount, percent])
    assert set(endings(books.mrr()).values()) == {800}  # 12000 - 10 % - 1200, by 12


def test_a_discount_lasts_until_an_invoice_does_not_show_it(books: Billing) -> None:
    books.price("p", 1000)
    half = books.discount(books.coupon("half", "forever", percent=50), "2025-09-01")
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-01")
    books.periods("si_1", "p", 1, *Q3[:3], discounts=[half])
    books.periods("si_1", "p", 1, *Q3[2:])
    assert list(endings(books.mrr()).values()) == [500, 500, 1000, 1000]


def test_what_the_customer_has_off_everything_counts_before_and_after_the_first_sync(books: Billing) -> None:
    books.price("p", 1000)
    half = books.discount(books.coupon("half", "forever", percent=50), "2025-09-01", subscription=None)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-01", seen="2025-10-15")
    books.periods("si_1", "p", 1, *Q3, discounts=[half])
    assert set(endings(books.mrr()).values()) == {500}


def test_usage_is_not_recurring_and_tiers_that_are_not_known_are_named(books: Billing) -> None:
    books.price("calls", 3, usage="metered")
    books.price("tiered", None)
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), ("si_2", "calls", 0), ("si_3", "tiered", 5), start="2025-10-01")
    for start, end in (("2025-10-01", "2025-11-01"), ("2025-11-01", "2025-12-01")):
        lines = [books.line(f"si_{n}", price, 700, start, end) for n, price in ((2, "calls"), (3, "tiered"))]
        books.invoice(start, books.line("si_1", "p", 1, start, end), *lines)
    report = books.mrr()
    assert set(endings(report).values()) == {1000}
    assert [each.problem for each in report.unvalued] == ["the price tiered has no amount for a unit"]


@pytest.mark.parametrize(
    ("interval", "count", "end", "mrr"),
    [
        ("month", 1, "2025-11-10", 1200),
        ("month", 3, "2026-01-10", 400),
        ("year", 1, "2026-10-10", 100),
        ("week", 1, "2025-10-17", 5200),
    ],
)
def test_a_price_that_cannot_be_read_is_known_by_its_lines(
    books: Billing, interval: str, count: int, end: str, mrr: int
) -> None:
    books.price("hidden", 1200, interval, count, listed=False)
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-10")
    books.periods("si_1", "hidden", 1, "2025-10-10", end)
    books.invoice("2025-12-20", books.debit("si_1", "hidden", 1, "2025-10-20", end))  # a part tells no interval
    assert endings(books.mrr())["2025-10"] == mrr


def test_a_price_that_cannot_be_listed_is_known_by_an_item_that_has_it(books: Billing) -> None:
    books.price("p", 1200, "month", 6, listed=False)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-10-10")
    books.periods("si_1", "p", 1, "2025-10-10", "2025-10-20")
    assert set(endings(books.mrr()).values()) == {200}


def test_several_integrations_of_an_organization_add_up(books: Billing, another: Callable[..., Billing]) -> None:
    """The same customer id at two providers' accounts is two customers."""
    second = another("acme", "acme-stripe-eu")
    for billing, quantity in ((books, 1), (second, 2)):
        billing.price("p", 1000)
        billing.subscription("sub_1", ("si_1", "p", quantity), start="2025-10-10")
    (october, *_) = books.mrr("2025-10-20").movements
    assert moved(october) == {"new": 3000}


def test_an_organization_without_subscriptions_has_no_months(books: Billing) -> None:
    assert books.mrr().movements == []
