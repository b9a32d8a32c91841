"""Reads a CRM object: a back-fill by list, then what search finds changed, at two speeds.

Position: ``{"phase": "backfill", "after", "started", "absent_since"}`` until the list is read, then ``{"phase":
"incremental", "prompt", "trailing", "archived_at", "reread_at", "reread"}``. Times are HubSpot's clock in milliseconds,
but ``absent_since``, which is ours. ``prompt``: read up to there as soon as search shows it; ``trailing``: read up to
there an hour later, when the index is complete. ``reread``: a back-fill under way, once a day, in parts: calculated
properties change, records are restored and vanish without a date that tells.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from churnguard_pipelines.connectors.hubspot.api import PAGE, Answer, HubSpotApi, misbehaved, record_id
from churnguard_pipelines.connectors.hubspot.by_id import Changes, RecordsById
from churnguard_pipelines.connectors.hubspot.finding import PAGE as SEARCHED
from churnguard_pipelines.connectors.hubspot.finding import Finder
from churnguard_pipelines.connectors.hubspot.objects import DAY, HOUR, CrmOptions
from churnguard_pipelines.connectors.hubspot.properties import Properties, names
from churnguard_pipelines.connectors.sdk import Estimate, Object, Reading
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Batch, Position, Window

TRAIL = HOUR
"""How far the index may lag behind; what is younger is read promptly, and once more when it is older."""
GATHERED = 5 * 60 * 1000  # before the trailing reader takes it
OVERLAP = 60 * 1000
"""That the prompt reader reads again: rows that the index had not shown yet."""
ARCHIVED_EVERY = HOUR
REREAD_EVERY = DAY
PAGES_OF_REREADING = 600
"""In one sync: 60,000 records, so that changes need not wait for the rest."""
LONGEST_LIST = 15_000
"""Characters of properties in a URL; beyond about 16,000 HubSpot's servers refuse it."""


class CrmReader:
    def __init__(self, api: HubSpotApi, properties: Properties, finder: Finder, by_id: RecordsById) -> None:
        self._api = api
        self._properties = properties
        self._finder = finder
        self._by_id = by_id

    def read(self, item: Object, reading: Reading, now: int) -> Generator[Batch]:
        """``now``: HubSpot's clock."""
        position = reading.position
        if reading.window is not None:
            yield from self._history(item, reading.window, position)
            return
        begun = position is not None and position["phase"] == "backfill"
        if position is None or (reading.mode == DataSyncMode.FULL and not begun):
            # A first read has nothing to miss; of a repeated one, what it does not meet is gone.
            position = {"phase": "backfill", **_fresh(now, reading.started if position is not None else None)}
        if position["phase"] == "backfill":
            yield from self._backfill(item, position)
            return
        yield from self._incremental(item, position, now, reading)

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        found: dict[str, None] = {}
        options: CrmOptions = item.options
        for page in self._finder.between(item.path, options.created, *_span(window)):
            found.update(dict.fromkeys(page.ids))
            if len(found) > limit:
                return None
        return list(found)

    def count(self, item: Object, window: Window) -> int | None:
        options: CrmOptions = item.options
        return self._finder.total(item.path, options.created, *_span(window))

    def estimate(self, item: Object, reading: Reading, now: int) -> Estimate:
        """Of a back-fill its pages, of what changed its searches and the reads by id."""
        options: CrmOptions = item.options
        position = reading.position
        if position is None or reading.mode == DataSyncMode.FULL or position["phase"] == "backfill":
            rows = self._finder.total(item.path, options.created, 0, now)
            pages = None if rows is None else -(-rows // PAGE) or 1
            whole = len(",".join(names(self._properties.of(item.path)))) <= LONGEST_LIST
            return Estimate(rows, pages if pages is None or whole else 2 * pages)
        rows = self._finder.total(item.path, options.modified, position["trailing"], now)
        return Estimate(rows, None if rows is None else 2 + -(-rows // SEARCHED) + -(-rows // PAGE))

    # --- back-fill

    def _backfill(self, item: Object, position: Position) -> Generator[Batch]:
        for changes, after in self._pages(item, position["after"]):
            if after is not None:
                yield Batch({**position, "after": after}, *changes)
                continue
            started = position["started"]
            done: Position = {
                "phase": "incremental", "prompt": started, "trailing": started - OVERLAP, "archived_at": 0,
                "reread_at": started, "reread": None,
            }  # fmt: skip
            yield Batch(done, *changes, delete_absent_since=_moment(position["absent_since"]))

    def _pages(self, item: Object, after: str | None) -> Iterator[tuple[Changes, str | None]]:
        """Each page of the list, and where the next one begins. With properties that do not fit a URL, a page brings
        ids, and one read by id all properties together, so that no record is torn into states of two moments."""
        wanted = ",".join(names(self._properties.of(item.path)))
        fits = len(wanted) <= LONGEST_LIST
        for answer in self._listed(item.path, after, archived=False, properties=wanted if fits else None):
            rows = answer.results(f"list of {item.name}", self._api.integration_id)
            if fits:
                changes = self._by_id.as_stored(item.path, rows, answer.asked)
            else:
                changes = self._by_id.now(item.path, [self._id(item, row) for row in rows])
            yield changes, answer.after

    def _id(self, item: Object, row: Any) -> str:
        return record_id(self._api.integration_id, f"list of {item.name}", row)

    def _listed(
        self, type_id: str, after: str | None, *, archived: bool, properties: str | None = None
    ) -> Iterator[Answer]:
        path = self._api.path("crm", "objects", type_id)
        given = {"properties": properties} if properties else {}
        while True:
            cursor = {"after": after} if after is not None else {}
            told = "true" if archived else "false"
            answer = self._api.get(path, limit=PAGE, archived=told, **given, **cursor)
            yield answer
            if answer.after is None:
                return
            if answer.after == after:
                raise misbehaved(self._api.integration_id, f"list of {type_id}", "sends the same page again and again")
            after = answer.after

    def _history(self, item: Object, window: Window, position: Position | None) -> Generator[Batch]:
        options: CrmOptions = item.options
        begin, end = _span(window)
        since = position["since"] if position else begin
        for found in self._finder.between(item.path, options.created, since, end):
            yield Batch({"since": found.since}, *self._by_id.now(item.path, found.ids))

    # --- incremental

    def _incremental(self, item: Object, position: Position, now: int, reading: Reading) -> Generator[Batch]:
        settled = now - TRAIL
        prompt = max(position["prompt"] - OVERLAP, settled)
        for found in self._changed(item, prompt, now):
            yield Batch(position, *found[0], incremental=True)
        position = {**position, "prompt": now}
        yield Batch(position)
        if settled - position["trailing"] >= GATHERED:
            for changes, since in self._changed(item, position["trailing"], settled):
                position = {**position, "trailing": min(since, settled)}
                yield Batch(position, *changes, incremental=True)
        if now - position["archived_at"] >= ARCHIVED_EVERY:
            for answer in self._listed(item.path, None, archived=True):
                rows = answer.results(f"list of archived {item.name}", self._api.integration_id)
                yield Batch(position, (), self._by_id.archived(rows, answer.asked))
            position = {**position, "archived_at": now}
            yield Batch(position)
        yield from self._reread(item, position, now, reading)

    def _changed(self, item: Object, since: int, until: int) -> Iterator[tuple[Changes, int]]:
        options: CrmOptions = item.options
        for found in self._finder.between(item.path, options.modified, since, until):
            yield self._by_id.now(item.path, found.ids), found.since

    def _reread(self, item: Object, position: Position, now: int, reading: Reading) -> Generator[Batch]:
        under_way: dict[str, Any] | None = position["reread"]
        if under_way is None:
            if now - position["reread_at"] < REREAD_EVERY:
                return
            under_way = _fresh(now, reading.started)
        for changes, after in islice(self._pages(item, under_way["after"]), PAGES_OF_REREADING):
            under_way = {**under_way, "after": after}
            if after is not None:
                yield Batch({**position, "reread": under_way}, *changes)
                continue
            done = {**position, "reread": None, "reread_at": under_way["started"]}
            yield Batch(done, *changes, delete_absent_since=_moment(under_way["absent_since"]))


def _fresh(now: int, absent_since: datetime | None) -> dict[str, Any]:
    return {"after": None, "started": now, "absent_since": absent_since.isoformat() if absent_since else None}


def _moment(told: str | None) -> datetime | None:
    return datetime.fromisoformat(told) if told else None


def _span(window: Window) -> tuple[int, int]:
    """Both ends included."""
    return int(window.start.timestamp() * 1000), int(window.end.timestamp() * 1000) - 1
