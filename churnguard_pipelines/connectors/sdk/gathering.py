"""What a reader of a change log gathers until it hands it over: whole transactions, as long as there are any."""

from __future__ import annotations

import time

from churnguard_pipelines.connectors.sdk.change_memory import CHANGE_MEMORY
from churnguard_pipelines.mirrors import Change

MOST_CHANGES = 10_000
"""In a batch of changes; with ``CHANGE_MEMORY.batch_bytes()`` it bounds memory, whatever the size of a transaction."""
LONGEST_GATHERING = 0.2
"""Seconds after which a batch ends, though more comes."""
LULL = 0.005
"""Seconds without another message after which a batch of whole transactions ends: a log that is read faster than it is
sent would else come in batches of one."""


class Gathering:
    """``changes``: those not handed over yet; ``whole``: how many of them are of transactions that have ended."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.whole = 0
        self.begin()

    def begin(self) -> None:
        """Another batch begins now."""
        self._size, self._most = 0, CHANGE_MEMORY.batch_bytes()
        self._ends = time.monotonic() + LONGEST_GATHERING

    def came(self, size: int, *, ended: bool) -> bool:
        """What has been appended came in so many bytes, and maybe ended a transaction; whether the batch is full."""
        if self.changes:
            self._size += size
        if ended:
            self.transaction_ended()
        if len(self.changes) >= MOST_CHANGES or self._size >= self._most:
            return True
        return self.whole > 0 and time.monotonic() > self._ends

    def transaction_ended(self) -> None:
        self.whole = len(self.changes)

    def take(self) -> tuple[list[Change], bool]:
        """What is handed over now, and whether it ends where a transaction does.

        What has come of one that goes on waits for its rest, so that a source that never rests does not keep
        transactions open which have ended. Only where there is nothing else does it go in parts.
        """
        end = self.whole or len(self.changes)
        taken, whole = self.changes[:end], bool(self.whole)
        self.changes, self.whole = self.changes[end:], 0
        return taken, whole
