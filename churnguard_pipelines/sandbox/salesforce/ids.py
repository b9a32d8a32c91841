"""Salesforce's ids: a prefix of three characters for the object, a serial number, and a check of the letters' case."""

from __future__ import annotations

from functools import lru_cache

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CHECK = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
POD = "5g0"


@lru_cache(4096)
def make(prefix: str, number: int) -> str:
    """The id of 18 characters. Ids of one prefix sort by their numbers."""
    digits = ""
    for _ in range(9):
        number, digit = divmod(number, 62)
        digits = DIGITS[digit] + digits
    return long(prefix + POD + digits)


def long(id: str) -> str:
    """An id of 15 characters in its form of 18; anything else as it is."""
    if len(id) != 15:
        return id
    return id + _check(id[:5]) + _check(id[5:10]) + _check(id[10:])


@lru_cache(65_536)
def _check(part: str) -> str:
    return CHECK[sum(1 << place for place, c in enumerate(part) if c.isupper())]


def number(id: str) -> int:
    """The serial number in an id; -1 where it is none of ours."""
    found = 0
    if len(id) not in (15, 18) or id[3:6] != POD:
        return -1
    for digit in id[6:15]:
        place = DIGITS.find(digit)
        if place < 0:
            return -1
        found = found * 62 + place
    return found
