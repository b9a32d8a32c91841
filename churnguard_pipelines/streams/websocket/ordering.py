"""Puts what carries a sequence in order, once each, and says what is missing. Pure: time is an argument."""

from __future__ import annotations

from typing import NamedTuple

from churnguard_pipelines.streams.websocket.messages import Item

WINDOW = 1000
"""Messages that wait for one that is missing, at most."""
WINDOW_BYTES = 16 << 20


class Gap(NamedTuple):
    """Sequences that did not come, both ends within it."""

    first: int
    last: int


class Ordering:
    """One topic's. ``last``: the latest sequence that was handed on; None: it begins with the least that comes within
    the window."""

    def __init__(self, last: int | None, seconds: float) -> None:
        self.last = last
        self._seconds = seconds
        self._held: dict[int, tuple[Item, float]] = {}  # with the moment it came
        self._bytes = 0

    @property
    def next_held(self) -> int | None:
        """The least that waits."""
        return min(self._held, default=None)

    def take(self, item: Item, sequence: int, now: float) -> list[Item] | None:
        """What can be handed on now, in order; None if it has been before, or waits already."""
        if (self.last is not None and sequence <= self.last) or self.holds(sequence):
            return None
        if self.last is not None and sequence == self.last + 1 and not self._held:
            self.last = sequence
            return [item]
        self._held[sequence] = item, now
        self._bytes += item.size
        return self._released()

    def holds(self, sequence: int) -> bool:
        """Whether it came, and waits for one that is missing."""
        return sequence in self._held

    def due_in(self, now: float) -> float | None:
        """Seconds until what waits has waited long enough; None if nothing waits."""
        if not self._held:
            return None
        if len(self._held) > WINDOW or self._bytes > WINDOW_BYTES:
            return 0.0
        _, came = self._held[min(self._held)]
        return max(0.0, came + self._seconds - now)

    def gap(self, now: float) -> Gap | None:
        """What is missing before what has waited long enough."""
        if self.last is None or self.due_in(now) != 0.0:
            return None
        return Gap(self.last + 1, min(self._held) - 1)

    def start(self, now: float) -> list[Item]:
        """Begin with the least that came, once the window is over; nothing before, or after that."""
        if self.last is not None or self.due_in(now) != 0.0:
            return []
        return self.skip(min(self._held) - 1)

    def skip(self, last: int) -> list[Item]:
        """Give up on what is missing up to ``last``; what can be handed on then."""
        self.last = last
        return self._released()

    def _released(self) -> list[Item]:
        released: list[Item] = []
        while self.last is not None and self.last + 1 in self._held:
            self.last += 1
            item, _ = self._held.pop(self.last)
            self._bytes -= item.size
            released.append(item)
        return released
