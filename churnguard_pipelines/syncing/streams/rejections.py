"""When a stream rejects too much of what comes."""

from __future__ import annotations

from collections import deque

LOOKED_AT = 1000
LEAST_LOOKED_AT = 100
"""Messages over which the share of rejected ones is taken: the last ones, and as if there were so many at least."""


class LastMessages:
    """The last ones, in the batches in which they were stored. ``messages``, ``rejected``: how many there are, and how
    many of them were rejected."""

    def __init__(self) -> None:
        self.messages = self.rejected = 0
        self._batches: deque[tuple[int, int]] = deque()

    def add(self, messages: int, rejected: int) -> None:
        self._batches.append((messages, rejected))
        self.messages += messages
        self.rejected += rejected
        while self.messages - self._batches[0][0] >= LOOKED_AT:
            gone, gone_rejected = self._batches.popleft()
            self.messages -= gone
            self.rejected -= gone_rejected

    def exceed(self, most_rejected: float) -> bool:
        """Whether the share of rejected ones does: divided, as a float of the limit's digits is exact at the limit."""
        return self.rejected / max(self.messages, LEAST_LOOKED_AT) > most_rejected
