"""Minor units of currencies and how a person reads them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

# ISO 4217 as Stripe uses it: docs.stripe.com/currencies#zero-decimal, #three-decimal. Its special cases, Icelandic
# crowns and Ugandan shillings, have no minor unit, but two decimals of an amount, which are zeros.
_ZERO_DECIMAL = frozenset(
    {"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"}
)
_THREE_DECIMAL = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})


def exponent(currency: str) -> int:
    """Decimal places of a currency's minor unit: 2 for usd, 0 for jpy, 3 for kwd."""
    if currency in _ZERO_DECIMAL:
        return 0
    return 3 if currency in _THREE_DECIMAL else 2


def half_up(value: Fraction) -> int:
    """Round to an integer, halves towards plus infinity."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def format_money(minor: int, currency: str) -> str:
    """``format_money(-123456, "usd")`` -> ``-1,234.56``"""
    places = exponent(currency)
    return f"{Decimal(minor).scaleb(-places):,.{places}f}"
