"""Reads statistics by day, and again those of the last days: what happens late counts for the day of the mail.

Position: ``{"through"}``: the day up to which all was read. Days without any mail have no row.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote

from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.connectors.sendgrid.api import Parameters, SendGridApi, misbehaved
from churnguard_pipelines.errors import RequestRefused
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Batch, Record

READ_AGAIN = 7
"""Days before the last one that are read again."""
CHUNK = 365
"""Days of one call."""
FIRST_DAY = date(2010, 1, 1)
FIRST_AUTOMATION = date(2018, 1, 1)
THIRTEEN_MONTHS = 396
"""Days that SendGrid keeps statistics of categories and mailbox providers."""
NAMES = 10
PAGE = 500
PAGE_OF_MARKETING = 50

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Kind:
    """``first``: the day, or how many days before today, from which on there may be any. ``names``: the list that has
    the names that have to be asked for, the field that has one, and the parameter that takes ten."""

    first: date | int
    names: tuple[str, str, str] | None = None


_KINDS: Mapping[str, _Kind] = {
    "global_stats": _Kind(FIRST_DAY),
    "category_stats": _Kind(THIRTEEN_MONTHS, ("categories", "category", "categories")),
    "subuser_stats": _Kind(FIRST_DAY, ("subusers", "username", "subusers")),
    "mailbox_provider_stats": _Kind(THIRTEEN_MONTHS),
    "automation_stats": _Kind(FIRST_AUTOMATION),
}


class StatisticsReader:
    def __init__(self, api: SendGridApi) -> None:
        self._api = api

    def probe(self, item: Object) -> None:
        """Ask for as little as shows whether it may be read. Raises ``PermissionMissing``."""
        kind = _KINDS[item.name]
        today = self._today().isoformat()
        if item.name == "automation_stats":
            self._api.get(item.path, {"page_size": 1})
        elif kind.names is None:
            self._api.get(item.path, {"start_date": today})
        else:
            self._api.get(kind.names[0], {"limit": 1})

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        kind, today = _KINDS[item.name], self._today()
        begin = kind.first if isinstance(kind.first, date) else today - timedelta(kind.first)
        if reading.position is not None and reading.mode != DataSyncMode.FULL:
            begin = max(begin, date.fromisoformat(reading.position["through"]) - timedelta(READ_AGAIN))
        stored = reading.position or {"through": begin.isoformat()}
        names = self._names(kind) if kind.names else None
        ids = self._automations(item) if item.name == "automation_stats" else []
        while begin <= today:
            end = min(begin + timedelta(CHUNK - 1), today)
            span = {"start_date": begin.isoformat(), "end_date": end.isoformat(), "aggregated_by": "day"}
            pages = self._steps(item, ids, span) if item.name == "automation_stats" else self._days(item, names, span)
            for records in pages:
                yield Batch(stored, records)
            if reading.mode != DataSyncMode.FULL or reading.position is None:
                stored = {"through": end.isoformat()}
            begin = end + timedelta(1)
        yield Batch({"through": today.isoformat()})

    def _days(
        self, item: Object, names: Sequence[tuple[str, list[str]]] | None, span: Mapping[str, str]
    ) -> Iterator[list[Record]]:
        for asked_for in [{}] if names is None else [{parameter: some} for parameter, some in names]:
            parameters: Parameters = {**span, **asked_for}
            answer = self._api.get(item.path, parameters)
            rows = answer.rows(item.path, self._api.integration_id)
            yield [Record(row, answer.asked) for day in rows for row in self._of_day(item, day)]

    def _of_day(self, item: Object, day: Any) -> Iterator[Row]:
        stats = day.get("stats") if isinstance(day, dict) else None
        if not isinstance(stats, list) or not all(isinstance(each, dict) for each in stats):
            raise misbehaved(self._api.integration_id, item.path, "has a day without statistics")
        for each in stats:
            if _any(each.get("metrics")):
                key = f"{day.get('date')}:{each['name']}" if "name" in each else str(day.get("date"))
                yield {**each, "date": day.get("date"), "key": key}

    def _names(self, kind: _Kind) -> list[tuple[str, list[str]]]:
        """Ten at most at once, each with the parameter that takes them."""
        assert kind.names is not None
        path, field, parameter = kind.names
        found = [
            str(row[field])
            for rows, _ in self._api.by_offset(path, PAGE)
            for row in rows
            if isinstance(row, dict) and field in row
        ]
        found = sorted(set(found))
        return [(parameter, found[at : at + NAMES]) for at in range(0, len(found), NAMES)]

    def _automations(self, item: Object) -> list[str]:
        pages = self._api.paged(item.path, "results", PAGE_OF_MARKETING)
        return [str(row["id"]) for rows, _ in pages for row in rows if isinstance(row, dict) and row.get("id")]

    def _steps(self, item: Object, ids: Sequence[str], span: Mapping[str, str]) -> Iterator[list[Record]]:
        for id in ids:
            path = f"{item.path}/{quote(id, safe='')}"
            asked_for: Parameters = {**span, "group_by": ["step_id"]}
            try:
                for rows, asked in self._api.paged(path, "results", PAGE_OF_MARKETING, asked_for):
                    steps = [row for row in rows if isinstance(row, dict) and _any(row.get("stats"))]
                    yield [Record(_step(row), asked) for row in steps]
            except RequestRefused as error:
                if error.status != 404:  # it was deleted meanwhile
                    raise

    def _today(self) -> date:
        return datetime.fromtimestamp(self._api.now / 1000, UTC).date()


def _step(row: Row) -> Row:
    """``aggregation`` is the day."""
    day = row.get("aggregation")
    return {**row, "date": day, "key": f"{row.get('id')}:{row.get('step_id')}:{day}"}


def _any(metrics: Any) -> bool:
    return isinstance(metrics, dict) and any(metrics.values())
