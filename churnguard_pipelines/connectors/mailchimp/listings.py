"""Reads what Mailchimp only lists: each whole, and what is not met is gone. Position: ``{"read_at"}``."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from functools import partial

from churnguard_pipelines.connectors.mailchimp.api import Cursor, MailchimpApi, Page, iso, seconds_of
from churnguard_pipelines.connectors.mailchimp.objects import ListOptions
from churnguard_pipelines.connectors.mailchimp.rows import Shape, found
from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.engine.fair_threads import map_in_threads
from churnguard_pipelines.errors import ProviderError
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Batch, DeleteKind, Deletion, Record, Window

INSIDE = {
    "list_id": ("/lists", "lists"),
    "category_id": ("/lists/{list_id}/interest-categories", "categories"),
    "segment_id": ("/lists/{list_id}/segments", "segments"),
    "workflow_id": ("/automations", "automations"),
}
"""Where the records are listed that a path has in braces, and under which name."""


class ListingReader:
    def __init__(self, api: MailchimpApi) -> None:
        self._api = api

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        options: ListOptions = item.options
        shape, position = Shape(item), reading.position
        if reading.window is not None:
            for page in self._pages(item, reading.window):
                rows = [row for row in page.rows if _created(item, row, reading.window)]
                yield Batch({}, shape.records(rows, page.asked))
            return
        now = self._api.now()
        due = position is None or reading.mode == DataSyncMode.FULL or now - position["read_at"] >= options.every
        if not due:
            return
        for page in self._pages(item, None):
            yield Batch(position or {"read_at": 0}, shape.records(page.rows, page.asked))
        yield Batch({"read_at": now}, delete_absent_since=reading.started if position is not None else None)

    def probe(self, item: Object) -> None:
        """Ask for as little as shows whether it may be read. Raises ``PermissionMissing``."""
        for cursor in self._cursors(item, None)[:1]:
            self._api.page(cursor, count=1)

    def count(self, item: Object, window: Window) -> int | None:
        options: ListOptions = item.options
        if options.filtered is None:
            return None
        return sum(self._api.page(each, count=1).total for each in self._cursors(item, window))

    def keys(self, item: Object, window: Window, limit: int) -> list[str] | None:
        options: ListOptions = item.options
        if options.filtered is None:
            return None
        found: list[str] = []
        for cursor in self._cursors(item, window):
            shown = {"fields": f"{options.rows}.id,total_items"}
            for row in self._api.all(replace(cursor, parameters={**cursor.parameters, **shown})):
                found.append(self._api.id(item.path, row.get("id")))
                if len(found) > limit:
                    return None
        return found

    def now(self, item: Object, ids: Iterable[str]) -> tuple[list[Record], list[Deletion]]:
        """These records as they are, and deletions of those that are gone."""
        wanted = [self._api.id(item.path, each) for each in dict.fromkeys(ids)]
        there = map_in_threads("by id", self._api.connections, lambda id: self._api.row(f"{item.path}/{id}"), wanted)
        shape = Shape(item)
        records = [record for each in there if each is not None for record in shape.records([each[0]], each[1])]
        gone = [id for id, each in zip(wanted, there, strict=True) if each is None]
        return records, [Deletion(id, DeleteKind.HARD, self._api.now() * 1000) for id in gone]

    def _pages(self, item: Object, window: Window | None) -> Iterator[Page]:
        """Those of all lists that can be read; then the first error, so that nothing is thought to be gone."""
        failed: dict[Cursor, ProviderError] = {}
        yield from self._api.pages(self._cursors(item, window), failed)
        for error in failed.values():
            raise error

    def _cursors(self, item: Object, window: Window | None) -> list[Cursor]:
        options: ListOptions = item.options
        parameters = dict(options.parameters)
        if window is not None and options.filtered is not None:
            parameters |= created_within(options.filtered, window)
        cursors = [Cursor(item.path, options.rows, parameters)]
        for name in options.own:
            inside = map_in_threads(
                "lists", self._api.connections, partial(self._inside, name), [cursor.own for cursor in cursors]
            )
            cursors = [
                Cursor(item.path, options.rows, parameters, {**cursor.own, name: id})
                for cursor, ids in zip(cursors, inside, strict=True)
                for id in ids
            ]
        return [Cursor(item.path.format_map(each.own), each.rows, each.parameters, each.own) for each in cursors]

    def _inside(self, name: str, own: dict[str, str]) -> list[str]:
        path, rows = INSIDE[name]
        return self._api.ids(path.format_map(own), rows)


def created_within(name: str, window: Window) -> dict[str, str]:
    """``since`` is exclusive, ``before`` is not, and both go by the second."""
    start, end = int(window.start.timestamp()), int(window.end.timestamp())
    return {f"since_{name}": iso(start - 1), f"before_{name}": iso(end - 1)}


def _created(item: Object, row: dict[str, object], window: Window) -> bool:
    """Whether it belongs to the window; so does what has no time."""
    path = next((each.source_path for each in item.columns if each.name == item.created_column), None)
    at = seconds_of(found(row, tuple(path.split(".")))) if path else None
    return at is None or window.start.timestamp() <= at < window.end.timestamp()
