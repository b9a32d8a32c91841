"""Converts MySQL's packed decimals to text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_DIGIT_BYTES: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def decimal(precision: int, scale: int) -> Callable[[bytes, int], tuple[str, int]]:
    """Groups of nine digits in four bytes, fewer digits in fewer bytes; the first bit tells the sign."""
    whole = precision - scale
    groups = _all_groups(precision, scale)
    size = decimal_size(precision, scale)
    form = "".join(f"%0{count}d" for _, count in groups)
    parts, left = [], size
    for width, _ in groups:
        left -= width
        parts.append((8 * left, (1 << 8 * width) - 1))
    sign, ones = 1 << (8 * size - 1), (1 << 8 * size) - 1

    def read(data: bytes, at: int) -> tuple[str, int]:
        end = at + size
        number = int.from_bytes(data[at:end], "big") ^ sign
        negative = number & sign
        if negative:
            number ^= ones
        digits = form % tuple([number >> shift & mask for shift, mask in parts])
        before = digits[:whole].lstrip("0") or "0"
        text = f"{before}.{digits[whole:]}" if scale else before
        return ("-" + text if negative else text), end

    return read


def decimal_size(precision: int, scale: int) -> int:
    """In bytes."""
    return sum(width for width, _ in _all_groups(precision, scale))


def _all_groups(precision: int, scale: int) -> list[tuple[int, int]]:
    whole = precision - scale
    return [*_groups(whole % 9, whole // 9, first=True), *_groups(scale % 9, scale // 9, first=False)]


def _groups(odd: int, full: int, *, first: bool) -> list[tuple[int, int]]:
    """(bytes, digits): the incomplete group stands outside."""
    rest = [(_DIGIT_BYTES[odd], odd)] if odd else []
    nines = [(4, 9)] * full
    return rest + nines if first else nines + rest
