"""Ids of a Redis stream's entries: two numbers, as a rule milliseconds since 1970 and a number within them."""

from __future__ import annotations

import re
from typing import NamedTuple

_WRITTEN = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?")
_HIGHEST = 2**64 - 1
_SEQUENCE_BITS = 20
_MOST_MILLISECONDS = 2 ** (63 - _SEQUENCE_BITS) - 1
_MOST_VERSION = 2**63 - 2**40
"""Leaves room to count on from there."""
_PLAUSIBLE = range(978_307_200_000, 4_102_444_800_000)  # milliseconds of the years 2001 to 2099


class EntryId(NamedTuple):
    milliseconds: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.sequence}"

    @property
    def next(self) -> EntryId:
        """The lowest id that is higher."""
        if self.sequence < _HIGHEST:
            return EntryId(self.milliseconds, self.sequence + 1)
        return EntryId(min(self.milliseconds + 1, _HIGHEST), 0)

    @property
    def previous(self) -> EntryId:
        if self.sequence:
            return EntryId(self.milliseconds, self.sequence - 1)
        return EntryId(self.milliseconds - 1, _HIGHEST) if self.milliseconds else ZERO

    @property
    def version(self) -> int:
        """63 bits that rise with the id as long as no millisecond has more than a million entries. Ids whose first
        number is too large for milliseconds are ordered by that alone."""
        if self.milliseconds > _MOST_MILLISECONDS:
            return min(self.milliseconds, _MOST_VERSION)
        return min((self.milliseconds << _SEQUENCE_BITS) + self.sequence, _MOST_VERSION)

    @property
    def moment(self) -> int | None:
        """Milliseconds since 1970, unless the producer numbers its entries otherwise."""
        return self.milliseconds if self.milliseconds in _PLAUSIBLE else None


ZERO = EntryId(0, 0)
"""Before every entry."""


def parsed(text: str | bytes) -> EntryId:
    """Raises ``ValueError`` for what is no id."""
    found = _WRITTEN.fullmatch(text.decode("ascii", "replace") if isinstance(text, bytes) else text)
    if found is None:
        raise ValueError("no id of an entry")
    numbers = EntryId(int(found[1]), int(found[2] or 0))
    if max(numbers) > _HIGHEST:
        raise ValueError("no id of an entry")
    return numbers
