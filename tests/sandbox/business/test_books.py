"""The business's books: what the definition of MRR says, to the minor unit, and sums that always add up."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.sandbox.business import collection, subscriptions
from churnguard_pipelines.sandbox.business.books import MOVEMENTS, Books, monthly
from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.rates import rate
from churnguard_pipelines.sandbox.business.signups import add_customer
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.conftest import ANCHOR

DAY = 86_400


def at(year: int, month: int, day: int = 1, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp())


def moved(row: dict[str, Any]) -> dict[str, int]:
    """The movements of a row that are not 0."""
    return {name: row[name] for name in MOVEMENTS if row[name]}


def test_a_life_told_month_by_month() -> None:
    books = Books(at(2025, 1), "usd")
    for when, mrr in (
        (at(2025, 1, 10), 5000),
        (at(2025, 2, 3), 9000),
        (at(2025, 2, 20), 8000),  # only the month's end counts: 5000 -> 8000
        (at(2025, 3, 5), 3000),
        (at(2025, 4, 1), 0),  # exactly at midnight: April's, not March's
        (at(2025, 6, 30, 23), 4000),
    ):
        books.record(when, "cus_1", "sub_1", "usd", mrr)
    rows = {row["month"]: row for row in books.movements(at(2025, 7, 15))}
    assert list(rows) == [f"2025-{month:02}-01" for month in range(1, 8)]
    assert moved(rows["2025-01-01"]) == {"new": 5000}
    assert moved(rows["2025-02-01"]) == {"expansion": 3000}
    assert moved(rows["2025-03-01"]) == {"contraction": -5000}
    assert moved(rows["2025-04-01"]) == {"churn": -3000}
    assert moved(rows["2025-05-01"]) == {}
    assert moved(rows["2025-06-01"]) == {"reactivation": 4000}
    assert (rows["2025-07-01"]["starting"], rows["2025-07-01"]["ending"]) == (4000, 4000)


def test_a_month_that_a_customer_only_passed_through_does_not_make_it_known() -> None:
    books = Books(at(2025, 1), "usd")
    books.record(at(2025, 1, 5), "cus_1", "sub_1", "usd", 100)
    books.record(at(2025, 1, 25), "cus_1", "sub_1", "usd", 0)
    books.record(at(2025, 3, 5), "cus_1", "sub_2", "usd", 200)
    assert [moved(row) for row in books.movements(at(2025, 3, 6))] == [{}, {}, {"new": 200}]


def test_two_subscriptions_of_a_customer_are_one_life() -> None:
    books = Books(at(2025, 1), "usd")
    books.record(at(2025, 1, 5), "cus_1", "sub_1", "usd", 100)
    books.record(at(2025, 2, 5), "cus_1", "sub_2", "usd", 50)
    books.record(at(2025, 2, 6), "cus_1", "sub_1", "usd", 0)
    assert [moved(row) for row in books.movements(at(2025, 2, 7))] == [{"new": 100}, {"contraction": -50}]


def test_another_currency_is_carried_at_the_rates_of_its_movements() -> None:
    books = Books(at(2025, 1), "eur")
    books.record(at(2025, 1, 10), "cus_1", "sub_1", "usd", 10_000)
    books.record(at(2025, 2, 10), "cus_1", "sub_1", "usd", 15_000)
    books.record(at(2025, 3, 10), "cus_1", "sub_1", "usd", 5_000)
    january, february, march, april = books.movements(at(2025, 4, 2))
    # The European Central Bank's dollars for a euro on 31 January and on 28 February 2025
    new = round(10_000 / 1.0393)
    grown = round(new + 5_000 / 1.0411)
    assert january["reporting"]["new"] == new
    assert february["reporting"]["expansion"] == grown - new
    assert march["reporting"]["contraction"] == round(grown / 3) - grown
    assert (march["reporting"]["ending"], april["reporting"]["ending"]) == (round(grown / 3), round(grown / 3))


def test_rates_know_that_yen_have_no_cents_and_that_banks_rest() -> None:
    saturday, friday = datetime(2025, 3, 1, tzinfo=UTC).date(), datetime(2025, 2, 28, tzinfo=UTC).date()
    assert rate("jpy", "eur", saturday) == rate("jpy", "eur", friday)
    assert Fraction(1, 2) < rate("jpy", "eur", friday) < Fraction(3, 4)  # a yen was about 0.64 cents
    assert rate("eur", "eur", friday) == 1


@pytest.mark.parametrize(
    ("items", "months", "percents", "amounts", "mrr"),
    [
        ([(1900, 3)], 1, [], [], 5700),
        ([(19_000, 1)], 12, [], [], 1583),  # 1583.33
        ([(18, 1)], 12, [], [], 2),  # 1.5 is rounded up
        ([(1000, 1)], 1, [25.5], [100], 645),
        ([(1000, 1)], 1, [20, 10], [], 720),
        ([(500, 1)], 1, [], [900], 0),
    ],
)
def test_mrr_of_a_subscription(
    items: list[tuple[int, int]], months: int, percents: list[float], amounts: list[int], mrr: int
) -> None:
    assert monthly(items, months, percents, amounts) == mrr


CHANGES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 40 * DAY), st.sampled_from([0, 0, 100, 250, 999])),
    max_size=40,
)


@given(CHANGES)
def test_books_add_up_and_agree_with_brute_force(changes: list[tuple[int, int, int, int]]) -> None:
    """Each change: customer, which of its subscriptions, seconds since the change before, the new MRR."""
    books = Books(at(2024, 1), "eur")
    now, history = at(2024, 1), []
    for customer, subscription, later, mrr in changes:
        now += later
        books.record(now, f"cus_{customer}", f"sub_{customer}_{subscription}", "usd", mrr)
        history.append((now, customer, subscription, mrr))
    rows = books.movements(now)
    for position, row in enumerate(rows):
        for amounts in (row, row["reporting"]):
            assert amounts["starting"] + sum(amounts[name] for name in MOVEMENTS) == amounts["ending"]
        if position:
            assert row["starting"] == rows[position - 1]["ending"]
            assert row["reporting"]["starting"] == rows[position - 1]["reporting"]["ending"]
        year, month = map(int, row["month"].split("-")[:2])
        following = at(year + month // 12, month % 12 + 1)
        state: dict[tuple[int, int], int] = {}
        for when, customer, subscription, mrr in history:
            if when < following:
                state[customer, subscription] = mrr
        assert row["ending"] == sum(state.values())


def test_the_businesses_books_add_up(world: Sandbox) -> None:
    rows = httpx.get(f"{world.url}/_books/globex/mrr").json()
    ending: dict[str, int] = defaultdict(int)
    for row in rows:
        assert row["starting"] == ending[row["currency"]]
        assert row["starting"] + sum(row[name] for name in MOVEMENTS) == row["ending"]
        ending[row["currency"]] = row["ending"]
    assert {row["currency"] for row in rows} == {"eur", "usd", "jpy"}
    assert all(any(row[name] for row in rows) for name in MOVEMENTS)


def test_a_hand_made_life(sandbox: Sandbox) -> None:
    """Trial, paid, more seats, half price, paused, back, gone: each is worth what the definition says."""
    account = sandbox.account("acme")
    worth: list[int] = []

    def live(business: Business) -> None:
        def note() -> None:
            worth.append(business.books.mrr_of(subscription.id))

        customer = add_customer(business)
        team = business.catalog.plans["usd", "month"][1]
        half = next(coupon for coupon in business.catalog.coupons if coupon.percent_off == 50)
        subscription = subscriptions.begin(business, customer, [(team, 2)], trial_days=14)
        note()
        business.run_until(ANCHOR + 14 * DAY)
        note()
        business.run_until(ANCHOR + 20 * DAY)
        subscriptions.change(business, subscription, [(subscription.items[0], team, 5)])
        note()
        subscriptions.add_discount(business, subscription, half)
        business.note(subscription)
        note()
        subscriptions.set_pause(business, subscription, True)
        note()
        subscriptions.set_pause(business, subscription, False)
        note()
        subscriptions.cancel_at_period_end(business, subscription, None)
        note()
        collection.end(business, subscription, "cancellation_requested")
        note()

    account.act(live)
    assert worth == [0, 7800, 19_500, 9750, 0, 9750, 9750, 0]
