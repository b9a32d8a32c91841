"""Exchange rates: the published history, what an operator adds or overrules, and a currency without any."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
import sqlalchemy as sa

from churnguard_pipelines.analytics.exchange import load_rates, operator_rates, set_operator_rate
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.store.database import Store

FRIDAY, SATURDAY, MONDAY = date(2025, 2, 28), date(2025, 3, 1), date(2025, 3, 3)


def test_the_published_rate_of_the_day_or_the_last_one_before(store: Store) -> None:
    rates = load_rates(store, ["eur", "usd"])
    assert rates.rate("eur", "usd", FRIDAY) == Fraction("1.0411")
    assert rates.rate("eur", "usd", SATURDAY) == rates.rate("eur", "usd", FRIDAY) != rates.rate("eur", "usd", MONDAY)
    assert rates.rate("usd", "eur", FRIDAY) == 1 / Fraction("1.0411")


def test_minor_units_of_other_sizes(store: Store) -> None:
    rates = load_rates(store, ["eur", "usd", "jpy"])
    assert rates.rate("eur", "jpy", FRIDAY) == Fraction("156.96") / 100  # yen for a cent
    assert rates.rate("jpy", "usd", FRIDAY) == Fraction("1.0411") / Fraction("156.96") * 100


def test_a_currency_is_worth_itself(store: Store) -> None:
    assert load_rates(store, ["ars"]).rate("ars", "ars", FRIDAY) == 1


def test_the_history_is_stored_once_and_what_is_newer_is_added(store: Store) -> None:
    count = sa.text("SELECT count(*), max(day) FROM analytics.exchange_rates")
    load_rates(store, ["eur", "usd"])
    with store.operator() as connection:
        rows, latest = connection.execute(count).one()
        connection.execute(sa.text("DELETE FROM analytics.exchange_rates WHERE day > '2025-01-01'"))
    load_rates(store, ["eur", "usd"])
    with store.operator() as connection:
        assert tuple(connection.execute(count).one()) == (rows, latest)


def test_an_operators_rate_overrules_its_day(store: Store) -> None:
    set_operator_rate(store, FRIDAY, "usd", Decimal("1.5"))
    rates = load_rates(store, ["eur", "usd"])
    assert rates.rate("eur", "usd", FRIDAY) == rates.rate("eur", "usd", SATURDAY) == Fraction("1.5")
    assert rates.rate("eur", "usd", MONDAY) < Fraction("1.2")  # the next published one holds again


def test_an_operator_adds_a_currency_that_nobody_publishes_and_corrects_it(store: Store) -> None:
    set_operator_rate(store, FRIDAY, "ars", Decimal(1000))
    set_operator_rate(store, FRIDAY, "ars", Decimal(1200))
    assert load_rates(store, ["ars", "usd"]).rate("ars", "usd", date(2025, 12, 31)) < Fraction(1, 1000)
    assert operator_rates(store) == [(FRIDAY, "ars", Decimal(1200))]


def test_a_missing_rate_names_the_currency_and_the_command(store: Store) -> None:
    set_operator_rate(store, MONDAY, "ars", Decimal(1200))
    with pytest.raises(InvalidConfiguration, match=r"for ars on 2025-02-28.*churnguard rates set 2025-02-28 ars"):
        load_rates(store, ["ars", "usd"]).rate("ars", "usd", FRIDAY)


@pytest.mark.parametrize("currency", ["USD", "us", "dollar", "u$d"])
def test_what_is_no_currency_is_refused(store: Store, currency: str) -> None:
    with pytest.raises(InvalidConfiguration, match="not a currency"):
        set_operator_rate(store, FRIDAY, currency, Decimal(1))


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "Infinity"])
def test_what_is_no_rate_is_refused(store: Store, rate: str) -> None:
    with pytest.raises(InvalidConfiguration, match="not possible"):
        set_operator_rate(store, FRIDAY, "usd", Decimal(rate))
