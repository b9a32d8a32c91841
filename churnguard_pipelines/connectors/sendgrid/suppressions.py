"""Reads the lists of suppressed addresses: by time what is new, and once a day the whole list, because what somebody
takes off it leaves no trace.

Position: ``{"through", "compared_at", "under_way"}``: epoch seconds up to which all was read, milliseconds of the last
whole read; ``under_way``: of a read that goes on, what is left of it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.connectors.sendgrid.api import SendGridApi
from churnguard_pipelines.connectors.sendgrid.spans import Rows, Span, read_spans
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Batch, Position, Record, Window

PAGE = 500
OVERLAP = 3600
"""Seconds: addresses that appear in a list later than they were put there."""
COMPARED_EVERY = 24 * 3600 * 1000


class SuppressionReader:
    def __init__(self, api: SendGridApi) -> None:
        self._api = api

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        position, now = reading.position, self._api.now
        under_way = position["under_way"] if position else None
        taken_up = under_way is not None
        full = reading.mode == DataSyncMode.FULL and reading.window is None
        if under_way is None or (full and not under_way["whole"]):
            under_way, taken_up = self._begun(reading, now), False
        base: Mapping[str, Any] = {
            "through": position["through"] if position else 0,
            "compared_at": position["compared_at"] if position else 0,
        }
        yield from self._batches(item, base, under_way)
        absent, whole, through = under_way["absent_since"], under_way["whole"], under_way["through"]
        if reading.window is None and (taken_up or absent is not None):
            # Who was put there meanwhile, also once more, was not met yet, and is not gone; the running second is read,
            # too, and once more by the next sync
            late = Span(max(0, through - OVERLAP), max(through, self._api.now // 1000 - 1) + OVERLAP)
            yield from self._batches(item, base, {**under_way, "open": [list(late)]})
            through = late.end - OVERLAP
        yield Batch(
            {
                "through": through,
                "compared_at": under_way["began"] if whole else base["compared_at"],
                "under_way": None,
            },
            delete_absent_since=datetime.fromisoformat(absent) if absent else None,
        )

    def _batches(self, item: Object, base: Mapping[str, Any], under_way: Mapping[str, Any]) -> Iterator[Batch]:
        spans = [Span(*each) for each in under_way["open"]]
        for found, rest in read_spans(lambda span: self._fetch(item, span), spans, PAGE, self._api.connections):
            left = {**under_way, "open": [list(each) for each in rest]}
            yield Batch({**base, "under_way": left}, [Record(row, found.asked) for row in found.rows])

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        span = Span(int(window.start.timestamp()), int(window.end.timestamp()) - 1)
        found: list[str] = []
        for rows, _ in read_spans(lambda each: self._fetch(item, each), [span], PAGE, self._api.connections):
            found += [str(row.get("email")) for row in rows.rows if isinstance(row, dict)]
            if len(found) > limit:
                return None
        return found

    def _begun(self, reading: Reading, now: int) -> dict[str, Any]:
        """The second that is running now is left to the next sync: more may be put there."""
        position: Position | None = reading.position
        end = now // 1000 - 1
        window = reading.window
        if window is not None:
            span, whole = Span(int(window.start.timestamp()), min(end, int(window.end.timestamp()) - 1)), False
        elif position is None or reading.mode == DataSyncMode.FULL or now - position["compared_at"] >= COMPARED_EVERY:
            span, whole = Span(0, end), True
        else:
            span, whole = Span(max(0, position["through"] - OVERLAP), end), False
        absent = reading.started.isoformat() if whole and position is not None else None
        left = [list(span)] if span.seconds > 0 else []
        return {"open": left, "whole": whole, "through": end, "began": now, "absent_since": absent}

    def _fetch(self, item: Object, span: Span) -> Rows:
        answer = self._api.get(item.path, {"start_time": span.start, "end_time": span.end, "limit": PAGE, "offset": 0})
        rows = answer.rows(item.path, self._api.integration_id)
        if len(rows) < PAGE:
            return Rows(rows, True, answer.asked)
        if span.seconds > 1:
            return Rows(rows, False, answer.asked, _apart(rows))
        pages = self._api.by_offset(item.path, PAGE, {"start_time": span.start, "end_time": span.end})
        return Rows([row for page, _ in pages for row in page], True, answer.asked)


def _apart(rows: Sequence[Any]) -> int:
    times = [
        int(row["created"]) for row in rows if isinstance(row, dict) and isinstance(row.get("created"), int | float)
    ]
    return max(times) - min(times) + 1 if times else 1
