"""The toy CRM where it also counts and lists by time, and gives records by key: what parity and plans go by."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime
from typing import Any, ClassVar

from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.records import Batch, DeleteKind, Deletion, Record, Window
from tests.connectors.toy import Toy


class Counting(Toy):
    """``asked``: what it was asked for, in order."""

    page_size = 100
    asked: ClassVar[list[tuple[str, Any]]] = []
    by_key = True
    hidden = 0
    """Records that it counts and does not list."""

    def count(self, item: Object, window: Window) -> int | None:
        self.asked.append(("count", window))
        return len(self._within(item, window)) + self.hidden

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        self.asked.append(("keys", window))
        found = [record["id"] for record in self._within(item, window)]
        return found if len(found) <= limit else None

    def fetch(self, item: Object, keys: Sequence[str]) -> tuple[Sequence[Record], Sequence[Deletion]] | None:
        self.asked.append(("fetch", list(keys)))
        if not self.by_key:
            return None
        there = {record["id"]: record for record in self._get(item.path)}
        gone = [Deletion(key, DeleteKind.HARD, 10**6) for key in keys if key not in there]
        return [Record(there[key], there[key].pop("version")) for key in keys if key in there], gone

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        if reading.window is None:
            yield from super().read(item, reading)
            return
        self.asked.append(("read", reading.window))
        records = self._within(item, reading.window)
        yield Batch({}, [Record(record, record.pop("version")) for record in records])

    def _within(self, item: Object, window: Window) -> list[dict[str, Any]]:
        listed = self._get(item.path)
        return [each for each in listed if window.start <= datetime.fromisoformat(each["created"]) < window.end]
