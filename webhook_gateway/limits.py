"""Rate limits by name, in this process."""

from __future__ import annotations

from collections import OrderedDict

MOST_KEPT = 10_000
"""Names of organizations come from outside, unsigned: what was not asked for longest is forgotten."""


class RateLimit:
    """Buckets of ``per_minute`` tokens that fill up evenly."""

    def __init__(self, per_minute: int) -> None:
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, name: str, now: float) -> float:
        """Take a token; 0.0, or the seconds until there is one. ``now``: a clock that never goes back."""
        tokens, since = self._buckets.get(name, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - since) * self._per_second)
        taken = tokens >= 1
        self._buckets[name] = (tokens - 1 if taken else tokens, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MOST_KEPT:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - tokens) / self._per_second
