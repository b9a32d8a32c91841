"""From customers' MRR at the ends of months to movements: the kinds, the carried value, and sums that always add up."""

from __future__ import annotations

from datetime import UTC, date, datetime
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.analytics.money import exponent, format_money, half_up
from churnguard_pipelines.analytics.months import Calendar, instant
from churnguard_pipelines.analytics.movements import KINDS, CustomerMonth, Movements, Totals
from tests.analytics.conftest import moved

MONTHS = [date(2025, month, 1) for month in range(1, 7)]


def totals(rate: Fraction = Fraction(1), *currencies: str) -> Totals:
    return Totals(MONTHS, "eur", currencies or ("usd",), lambda currency, month: rate)


def test_the_kinds_of_movements() -> None:
    adding = totals()
    list(adding.add({"usd": [0, 100, 150, 90, 0, 60]}))
    assert [moved(row) for row in adding.movements] == [
        {}, {"new": 100}, {"expansion": 50}, {"contraction": -60}, {"churn": -90}, {"reactivation": 60},
    ]  # fmt: skip


def test_only_months_that_end_with_mrr_are_a_customers_months() -> None:
    assert list(totals(Fraction(2)).add({"usd": [0, 100, 0, 0, 70, 70]})) == [
        CustomerMonth(MONTHS[1], "usd", 100, 200),
        CustomerMonth(MONTHS[4], "usd", 70, 140),
        CustomerMonth(MONTHS[5], "usd", 70, 140),
    ]


def test_a_currency_that_moves_makes_no_movement() -> None:
    """Won at 0.9, grown at 0.8, shrunk by a half: what is carried keeps the rates it was won at."""
    rates = dict(zip(MONTHS, map(Fraction, ("0.9", "0.5", "0.8", "3", "4", "0.7")), strict=True))
    adding = Totals(MONTHS, "eur", ["usd"], lambda currency, month: rates[month])
    months = list(adding.add({"usd": [1000, 1000, 1500, 750, 0, 100]}))
    assert [month.carried for month in months] == [900, 900, 1300, 650, 70]
    assert [moved(row) for row in adding.movements] == [
        {"new": 900}, {}, {"expansion": 400}, {"contraction": -650}, {"churn": -650}, {"reactivation": 70},
    ]  # fmt: skip


def test_each_step_is_rounded_half_up() -> None:
    adding = totals(Fraction(1, 2))
    carried = [month.carried for month in adding.add({"usd": [1, 2, 1, 1, 4, 3]})]
    assert carried == [1, 2, 1, 1, 3, 2]  # 0.5; 1 + 0.5; 2 × 1/2; …; 1 + 1.5; 3 × 3/4


def test_a_customer_who_changes_the_currency_moves_once() -> None:
    """Only in each currency does it leave and enter."""
    rates = {"eur": Fraction("1.1"), "usd": Fraction(1)}
    adding = Totals(MONTHS, "usd", rates, lambda currency, month: rates[currency])
    list(adding.add({"eur": [10_000, 0, 0, 0, 0, 0], "usd": [0, 12_000, 12_000, 0, 0, 0]}))
    assert [moved(row) for row in adding.movements[:4]] == [
        {"new": 11_000}, {"expansion": 1000}, {}, {"churn": -12_000},
    ]  # fmt: skip
    assert [moved(row) for row in adding.by_currency if row.month == MONTHS[1]] == [
        {"churn": -10_000}, {"reactivation": 12_000},
    ]  # fmt: skip


def test_a_customer_of_two_currencies_moves_once_a_month() -> None:
    adding = totals(Fraction(1), "usd", "gbp")
    list(adding.add({"usd": [100, 150, 150, 0, 0, 0], "gbp": [0, 0, 30, 0, 0, 70]}))
    assert [moved(row) for row in adding.movements] == [
        {"new": 100}, {"expansion": 50}, {"expansion": 30}, {"churn": -180}, {}, {"reactivation": 70},
    ]  # fmt: skip
    other = totals(Fraction(1), "usd", "gbp")
    list(other.add({"usd": [100, 60, 0, 0, 0, 0], "gbp": [50, 90, 90, 90, 90, 90]}))
    assert [moved(row) for row in other.movements[:3]] == [{"new": 150}, {}, {"contraction": -60}]


def test_what_is_paused_is_told_apart_from_what_is_lost() -> None:
    adding = totals(Fraction(2))
    list(adding.add({"usd": [100, 60, 0, 70, 30, 30]}, {"usd": [0, 40, 90, 30, 30, 0]}))
    assert [(moved(row), row.paused, row.resumed) for row in adding.movements] == [
        ({"new": 200}, 0, 0), ({"contraction": -80}, -80, 0), ({"churn": -120}, -100, 0),
        ({"reactivation": 140}, 0, 120), ({"contraction": -80}, 0, 0), ({}, 0, 0),
    ]  # fmt: skip


LIVES = st.lists(
    st.dictionaries(
        st.sampled_from(["usd", "jpy"]),
        st.lists(st.sampled_from([0, 0, 1, 2, 999, 1000, 123_457]), min_size=6, max_size=6).filter(any),
        min_size=1,
    ),
    max_size=8,
)
RATES = st.lists(st.fractions(min_value=Fraction(1, 200), max_value=200), min_size=6, max_size=6)


@given(LIVES, RATES)
def test_movements_add_up_to_the_unit_from_month_to_month(
    lives: list[dict[str, list[int]]], given: list[Fraction]
) -> None:
    rates = dict(zip(MONTHS, given, strict=True))
    adding = Totals(MONTHS, "eur", ["usd", "jpy"], lambda currency, month: rates[month])
    kept = [month for life in lives for month in adding.add(life)]
    for rows in (
        adding.movements,
        [row for row in adding.by_currency if row.currency == "usd"],
        [row for row in adding.by_currency if row.currency == "jpy"],
    ):
        assert rows[0].starting == 0
        assert all(row.starting + sum(getattr(row, kind) for kind in KINDS) == row.ending for row in rows)
        assert all(before.ending == after.starting for before, after in pairwise(rows))
        assert all(row.churn <= 0 and row.contraction <= 0 for row in rows)
    for place, month in enumerate(MONTHS):
        there = [each for each in kept if each.month == month]
        assert adding.movements[place].ending == sum(each.carried for each in there)
        for currency in ("usd", "jpy"):
            row = next(row for row in adding.by_currency if (row.month, row.currency) == (month, currency))
            assert row.ending == sum(life.get(currency, [0] * 6)[place] for life in lives)


def test_months_end_when_the_next_begins_and_the_running_one_now() -> None:
    now = datetime(2025, 3, 10, 12, 30, 15, 400_000, tzinfo=UTC)
    calendar = Calendar.since(instant(date(2025, 1, 31)), now)
    assert calendar.months == [date(2025, 1, 1), date(2025, 2, 1), date(2025, 3, 1)]
    assert calendar.ends[:2] == [instant(date(2025, 2, 1)), instant(date(2025, 3, 1))]
    assert calendar.ends[2] == instant(date(2025, 3, 10)) + (12 * 3600 + 30 * 60 + 16) * 1000  # with all of this second
    assert [calendar.last_day(month).day for month in calendar.months] == [31, 28, 10]


@pytest.mark.parametrize(
    "now", ["2025-01-01T00:00:00+00:00", "2025-01-31T23:59:59.999+00:00", "2025-02-01T00:59:59+01:00"]
)
def test_the_running_month_is_utcs(now: str) -> None:
    assert Calendar.since(instant(date(2025, 1, 1)), datetime.fromisoformat(now)).months == [date(2025, 1, 1)]


def test_nothing_has_begun_before_its_time() -> None:
    assert Calendar.since(instant(date(2025, 2, 1)), datetime(2025, 1, 20, tzinfo=UTC)).months == []


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(-123_456, "usd", "-1,234.56"), (123_456, "jpy", "123,456"), (123_456, "kwd", "123.456"), (5, "eur", "0.05")],
)
def test_money_as_people_read_it(minor: int, currency: str, text: str) -> None:
    assert format_money(minor, currency) == text


@given(st.fractions())
def test_halves_go_up(value: Fraction) -> None:
    assert -Fraction(1, 2) <= value - half_up(value) < Fraction(1, 2)


def test_exponents() -> None:
    assert [exponent(currency) for currency in ("usd", "jpy", "kwd")] == [2, 0, 3]


def test_a_month_without_customers_is_all_zeros() -> None:
    assert totals().movements == [Movements(month, "eur") for month in MONTHS]
