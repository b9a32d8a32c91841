"""What strangers may have of us, by name, in this process: tokens of a rate, and a share of what there is little of."""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from functools import lru_cache
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

MOST_KEPT = 10_000
"""Names come from outside, unsigned: so many are kept at most."""
SWEEP_EVERY = 1.0
LONGEST_ADDRESS = 64
"""Characters; whatever else a proxy calls its clients is told apart by so many."""


class RateLimit:
    """Buckets of ``per_minute`` tokens that fill up evenly. Only full ones are forgotten, which changes nothing: nobody
    gets tokens back by making us forget. While too many are not full, names that are new share one bucket."""

    def __init__(self, per_minute: int) -> None:
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._full_at: dict[str, float] = {}
        self._overflow = 0.0
        self._swept = float("-inf")

    def wait(self, name: str, now: float) -> float:
        """Take a token; 0.0, or the seconds until there is one. ``now``: a clock that never goes back."""
        seconds = self.left(name, now)
        if not seconds:
            later = 1 / self._per_second
            if name in self._full_at or self._has_room(now):
                self._full_at[name] = max(self._full_at.get(name, now), now) + later
            else:
                self._overflow = max(self._overflow, now) + later
        return seconds

    def left(self, name: str, now: float) -> float:
        """What ``wait`` would return; takes nothing."""
        full_at = self._full_at.get(name)
        if full_at is None:
            full_at = now if self._has_room(now) else self._overflow
        if full_at <= now:
            return 0.0
        missing = (full_at - now) * self._per_second
        return max(0.0, missing + 1 - self._capacity) / self._per_second

    def _has_room(self, now: float) -> bool:
        if len(self._full_at) >= MOST_KEPT and now - self._swept >= SWEEP_EVERY:
            self._swept = now
            self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
        return len(self._full_at) < MOST_KEPT


class Shares(Generic[Item]):
    """Who holds how much of ``most``. When there is not enough for all, the oldest thing of whoever holds most gives
    way: a flood hurts itself, and what is quick is over before it is the oldest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sizes: dict[str, dict[Item, int]] = {}
        self._sums: dict[str, int] = {}
        self.total = 0

    def add(self, owner: str, item: Item, size: int) -> list[Item]:
        """Returns what has to give way, maybe the item itself; it counts no more."""
        sizes = self._sizes.setdefault(owner, {})
        sizes[item] = sizes.get(item, 0) + size
        self._sums[owner] = self._sums.get(owner, 0) + size
        self.total += size
        out: list[Item] = []
        while self.total > self._most:
            heaviest = max(self._sums, key=self._sums.__getitem__)
            out.append(next(iter(self._sizes[heaviest])))
            self.remove(heaviest, out[-1])
        return out

    def remove(self, owner: str, item: Item) -> None:
        """Does nothing for what is not there."""
        sizes = self._sizes.get(owner)
        if sizes is None or item not in sizes:
            return
        size = sizes.pop(item)
        self.total -= size
        self._sums[owner] -= size
        if not sizes:
            del self._sizes[owner], self._sums[owner]


def network(address: str) -> str:
    """Whom an address counts for: an IPv4 address for itself, an IPv6 address for the /64 that one customer is given
    as a whole."""
    return _network(address[:LONGEST_ADDRESS])


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # a socket file, or what a proxy of the operator's calls its clients
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))
