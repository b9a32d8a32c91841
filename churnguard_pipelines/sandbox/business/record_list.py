"""One list of the simulated API: records in the order they were made, never moved, so that paging is stable."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from churnguard_pipelines.sandbox.business.entities import Entity

E = TypeVar("E", bound=Entity)


class RecordList(Generic[E]):
    """Append-only; `created` never decreases. A deleted record keeps its place and is skipped."""

    def __init__(self) -> None:
        self._records: list[E] = []
        self._created = array("q")
        self._by_id: dict[str, E] = {}
        self._deleted = 0

    def __len__(self) -> int:
        return len(self._records) - self._deleted

    def __iter__(self) -> Iterator[E]:
        return (record for record in self._records if not record.deleted)

    def add(self, record: E) -> E:
        assert not self._created or record.created >= self._created[-1], f"{record.id} is older than the one before"
        assert record.id not in self._by_id, f"{record.id} exists"
        record.place = len(self._records)
        self._records.append(record)
        self._created.append(record.created)
        self._by_id[record.id] = record
        return record

    def get(self, id: str) -> E | None:
        """The record, also when it is deleted."""
        return self._by_id.get(id)

    def delete(self, record: E) -> None:
        record.deleted = True
        self._deleted += 1

    def record(self, place: int) -> E:
        """What stands at a place, deleted or not."""
        return self._records[place]

    def newest(self) -> E | None:
        return self._records[-1] if self._records else None

    def places(self, since: int | None, before: int | None) -> tuple[int, int]:
        """The half-open range of places whose `created` lies in [since, before)."""
        low = 0 if since is None else bisect_left(self._created, since)
        high = len(self._records) if before is None else bisect_left(self._created, before)
        return low, high

    def after(self, at: int) -> int:
        """The place of the first record made after `at`."""
        return bisect_right(self._created, at)

    def down(self, low: int, high: int, wanted: Callable[[E], bool], limit: int) -> list[E]:
        """Up to `limit` records from place high-1 down to low: the API's order, newest first."""
        found: list[E] = []
        for place in range(high - 1, low - 1, -1):
            record = self.record(place)
            if not record.deleted and wanted(record):
                found.append(record)
                if len(found) == limit:
                    break
        return found

    def up(self, low: int, high: int, wanted: Callable[[E], bool], limit: int) -> list[E]:
        """Up to `limit` records from place low up to high-1, given back newest first."""
        found: list[E] = []
        for place in range(low, high):
            record = self.record(place)
            if not record.deleted and wanted(record):
                found.append(record)
                if len(found) == limit:
                    break
        found.reverse()
        return found
