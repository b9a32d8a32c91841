"""Limits how much of change logs waits in the memory of this process: the more lanes there are, the less of each."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

IN_ALL = 256 * 2**20
MOST_EACH, LEAST_EACH = 16 * 2**20, 2**20
BATCHES_OF_A_LANE = 2  # one that is stored, one that is read ahead
LONG_TRANSACTIONS, LONG_TRANSACTIONS_EACH = 8, 2  # of all organizations and of each


class ChangeMemory:
    """Shares out memory and long transactions among change lanes. Thread safe."""

    def __init__(self) -> None:
        self._lanes = 0
        self._long: Counter[str] = Counter()
        self._changed = threading.Condition()

    def enter(self) -> None:
        """A lane begins to read."""
        with self._changed:
            self._lanes += 1

    def leave(self) -> None:
        with self._changed:
            self._lanes -= 1

    def batch_bytes(self) -> int:
        """With how many a batch of changes ends, whatever else it waits for."""
        share = IN_ALL // (BATCHES_OF_A_LANE * max(self._lanes, 1))
        return max(LEAST_EACH, min(MOST_EACH, share))

    @contextmanager
    def long_transaction(self, organization_id: str) -> Iterator[None]:
        """One of ours stays open until the rest of one of the source's has come, which may be never: it waits here, so
        that an organization's sources cannot hold every connection to the warehouse."""
        with self._changed:
            self._changed.wait_for(lambda: self._free(organization_id))
            self._long[organization_id] += 1
        try:
            yield
        finally:
            with self._changed:
                self._long[organization_id] -= 1
                self._changed.notify_all()

    def _free(self, organization_id: str) -> bool:
        return self._long[organization_id] < LONG_TRANSACTIONS_EACH and self._long.total() < LONG_TRANSACTIONS


CHANGE_MEMORY = ChangeMemory()
