"""What a process counts while it works, for its own ``/metrics``. Prometheus' library is loaded by what serves that
only: a command that counts something and ends does not pay for it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence


class Tally:
    """Counts by labels. ``name``: without the ``_total`` that Prometheus adds."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        self.name, self.documentation, self.labels = name, documentation, labels
        self._counted: Counter[tuple[str, ...]] = Counter()
        self._lock = threading.Lock()

    def add(self, *values: str) -> None:
        with self._lock:
            self._counted[values] += 1

    def counted(self) -> Mapping[tuple[str, ...], int]:
        with self._lock:
            return dict(self._counted)


LANES = Tally("churnguard_lanes", "Turns of lanes that have ended, by kind of session.", ("kind", "outcome"))
"""``outcome``: ``done``, ``failed``, ``taken_over`` by another session."""
CALLS = Tally("churnguard_provider_calls", "Answers of providers.", ("provider", "outcome"))
"""``outcome``: ``ok``, ``rate_limited`` (429), ``refused`` (4xx), ``failed`` (5xx)."""
ALL = (LANES, CALLS)
