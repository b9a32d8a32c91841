"""Reads e-mail activity: the messages to which something happened in a span of time, of which an answer has a thousand
at most, and no way to the others.

Position: ``{"through", "under_way"}``: epoch seconds up to which all was read; ``under_way``: of a read that goes on,
what is left of it, and whether it began as far back as there is activity. A second with more messages is read by how
their ids begin.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from string import ascii_letters, digits
from typing import Any

from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.connectors.sendgrid.api import SendGridApi, misbehaved
from churnguard_pipelines.connectors.sendgrid.spans import Rows, Span, read_spans
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Batch, Record

MOST = 1000
KEPT = 30 * 86_400
"""Seconds that the add-on keeps activity."""
OVERLAP = 600
"""Seconds after which the latest event of a message is told of, at the latest."""
_OF_IDS = digits + ascii_letters + "-_"
_LONGEST_PREFIX = 4


class ActivityReader:
    def __init__(self, api: SendGridApi) -> None:
        self._api = api

    def probe(self, item: Object) -> None:
        end = self._api.now // 1000
        self._ask(item, Span(end - 60, end), "", 1)

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        position = reading.position
        through = position["through"] if position else 0
        under_way = position["under_way"] if position else None
        full = reading.mode == DataSyncMode.FULL
        if under_way is not None and (under_way["whole"] or not full):
            yield from self._batches(item, through, under_way)
            through, full = under_way["through"], False  # and on to the present
        under_way = self._begun(0 if full else through)
        yield from self._batches(item, through, under_way)
        yield Batch({"through": under_way["through"], "under_way": None})

    def _begun(self, through: int) -> dict[str, Any]:
        """What happened since, and a while before; as far back as it is kept, where nothing was read yet."""
        end = self._api.now // 1000 - 1
        begin = max(end - KEPT, through - OVERLAP)
        return {"open": [[begin, end]], "through": end, "whole": not through}

    def _batches(self, item: Object, through: int, under_way: Mapping[str, Any]) -> Iterator[Batch]:
        spans = [Span(*each) for each in under_way["open"]]
        for found, rest in read_spans(lambda span: self._fetch(item, span), spans, MOST, 1):
            left = {**under_way, "open": [list(each) for each in rest]}
            yield Batch({"through": through, "under_way": left}, [_record(row, found.asked) for row in found.rows])

    def _fetch(self, item: Object, span: Span) -> Rows:
        rows, asked = self._ask(item, span, "", MOST)
        if len(rows) < MOST:
            return Rows(rows, True, asked)
        if span.seconds > 1:
            return Rows(rows, False, asked, _apart(rows))
        return Rows(self._by_prefix(item, span, ""), True, asked)

    def _by_prefix(self, item: Object, span: Span, before: str) -> list[Any]:
        """An underscore stands for any character there, so that what one finds may begin otherwise, and be many. At
        the longest, an id of four underscores at its begin is left out, of 16 million one, rather than all of them."""
        found: list[Any] = []
        for character in _OF_IDS:
            prefix = before + character
            rows, _ = self._ask(item, span, prefix, MOST)
            if len(rows) == MOST and len(prefix) < _LONGEST_PREFIX:
                found += self._by_prefix(item, span, prefix)
                continue
            if len(rows) == MOST and "_" not in prefix:
                raise misbehaved(self._api.integration_id, "e-mail activity", "has a second with too many messages")
            found += [row for row in rows if isinstance(row, dict) and str(row.get("msg_id")).startswith(prefix)]
        return found

    def _ask(self, item: Object, span: Span, prefix: str, most: int) -> tuple[list[Any], int]:
        query = f'last_event_time BETWEEN TIMESTAMP "{_moment(span.start)}" AND TIMESTAMP "{_moment(span.end)}"'
        if prefix:
            query += f' AND msg_id LIKE "{prefix}%"'
        answer = self._api.get(item.path, {"query": query, "limit": most})
        return answer.rows(item.path, self._api.integration_id, "messages"), answer.asked


def _apart(rows: Sequence[Any]) -> int:
    times = []
    for row in rows:
        with suppress(ValueError, TypeError, AttributeError, OverflowError):
            times.append(datetime.fromisoformat(row.get("last_event_time")).timestamp())
    return int(max(times) - min(times)) + 1 if times else 1


def _record(row: Any, asked: int) -> Record:
    """With the part of the id that events have, too."""
    if not isinstance(row, dict):
        return Record(row, asked)
    return Record({**row, "message_id": message_id(row, "msg_id")}, asked)


def message_id(row: Mapping[str, Any], name: str) -> str | None:
    """Of what is behind the first point, events and activity show different things."""
    told = row.get(name)
    return told.partition(".")[0] if isinstance(told, str) else None


def _moment(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"
