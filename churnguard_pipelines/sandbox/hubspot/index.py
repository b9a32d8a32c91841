"""What search sees of one type's records: each as it was when it was indexed last, which is a little behind."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from churnguard_pipelines.sandbox.hubspot.records import Record


@dataclass(slots=True)
class Entry:
    """A record's date and values when it was indexed."""

    record: Record
    updated: int
    values: dict[str, str]


class Index:
    def __init__(self) -> None:
        self.version = 0
        self._entries: dict[int, Entry] = {}
        self._by_date: list[tuple[int, int]] = []  # (updated, id)
        self._waiting: list[tuple[int, int, Record, bool]] = []
        self._turns = count()

    def put(self, record: Record, due: int) -> None:
        heapq.heappush(self._waiting, (due, next(self._turns), record, record.archived_at is None))

    def drop(self, record: Record, due: int) -> None:
        heapq.heappush(self._waiting, (due, next(self._turns), record, False))

    def catch_up(self, now: int) -> None:
        """Takes in what fell due. A record is taken as it is then, so that two changes may become visible as one."""
        while self._waiting and self._waiting[0][0] <= now:
            _, _, record, there = heapq.heappop(self._waiting)
            self.version += 1
            known = self._entries.pop(record.id, None)
            if known is not None:
                del self._by_date[bisect_left(self._by_date, (known.updated, record.id))]
            if there:
                self._entries[record.id] = Entry(record, record.updated, dict(record.values))
                insort(self._by_date, (record.updated, record.id))

    def between(self, low: int | None, high: int | None) -> Iterator[Entry]:
        """Entries whose date lies in [low, high], by date, then id."""
        first = 0 if low is None else bisect_left(self._by_date, (low, 0))
        last = len(self._by_date) if high is None else bisect_left(self._by_date, (high + 1, 0))
        return (self._entries[id] for _, id in self._by_date[first:last])
