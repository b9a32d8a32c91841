"""MySQL's packed decimals as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_DIGIT_BYTES: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def decimal(precision: int, scale: int) -> Callable[[bytes, int], tuple[str, int]]:
    """Groups of nine digits in four bytes, fewer digits in fewer bytes; the first bit tells the sign."""
    whole = precision - scale
    groups = [*_groups(whole % 9, whole // 9, first=True), *_groups(scale % 9, scale // 9, first=False)]
    size = sum(width for width, _ in groups)

    def read(data: bytes, at: int) -> tuple[str, int]:
        end = at + size
        raw = bytearray(data[at:end])
        negative = not raw[0] & 0x80
        raw[0] ^= 0x80
        if negative:
            raw = bytearray(byte ^ 0xFF for byte in raw)
        place, digits = 0, ""
        for width, count in groups:
            digits += f"{int.from_bytes(raw[place : place + width], 'big'):0{count}d}"
            place += width
        before = digits[:whole].lstrip("0") or "0"
        text = f"{before}.{digits[whole:]}" if scale else before
        return ("-" + text if negative else text), end

    return read


def _groups(odd: int, full: int, *, first: bool) -> list[tuple[int, int]]:
    """(bytes, digits): the incomplete group stands outside."""
    rest = [(_DIGIT_BYTES[odd], odd)] if odd else []
    nines = [(4, 9)] * full
    return rest + nines if first else nines + rest
