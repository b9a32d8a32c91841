"""Reads members by when they changed last, and once a day all of them, for what no date tells of.

That is: who has which tags, merge fields that were renamed, and who was deleted for good. Members that are archived
show up only where they are asked for; to be archived and to come back are changes.

Position: ``{"through", "lists", "reread_at", "under_way"}``. ``through``: the last second that is read; ``lists``: of
which lists. ``under_way``: the windows of a read that are still open, which end at second ``until``; nowhere is an
offset, since changes renumber what follows them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from churnguard_pipelines.connectors.mailchimp.api import PAGE, Cursor, MailchimpApi, iso, seconds_of
from churnguard_pipelines.connectors.mailchimp.listings import created_within
from churnguard_pipelines.connectors.mailchimp.rows import Shape
from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.connectors.sdk.paging import OpenWindow, Page, read_windows
from churnguard_pipelines.errors import PermissionMissing, ProviderError, ProviderMisbehaved, RequestRefused
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Batch, Position, Window

REREAD_EVERY = 24 * 3600
AHEAD = 60
"""Seconds after the last whole one that are searched for those who seem to be gone: they may have changed just now."""


@dataclass(frozen=True, slots=True)
class Sweep(OpenWindow):
    """Seconds of ``last_changed`` of one list's members; newest first. ``after_created``: the second in which the last
    page ended; ``after``: of a second that fills pages by itself, where its next page begins, as a cursor has it."""

    list_id: str = ""
    archived: bool = False

    def to_json(self) -> list[Any]:
        return [self.list_id, self.archived, self.start, self.end, self.after_created]

    @classmethod
    def of(cls, told: Sequence[Any]) -> Sweep:
        list_id, archived, start, end, after_created = told
        return cls(start, end, None if after_created is None else "", after_created, list_id, archived)


class MemberReader:
    def __init__(self, api: MailchimpApi) -> None:
        self._api = api

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        shape, position = Shape(item), reading.position
        if reading.window is not None:
            yield from self._created(shape, reading.window)
            return
        base: Position = position or {"through": -1, "lists": [], "reread_at": 0, "under_way": None}
        under_way = base["under_way"]
        taken_up = under_way is not None
        if under_way is None or (reading.mode == DataSyncMode.FULL and not under_way["whole"]):
            under_way, taken_up = self._begin(base, reading), False
        sweeps = [Sweep.of(each) for each in under_way["open"]]
        failed: dict[str, ProviderError] = {}
        for page, still_open in self._pages(sweeps, failed):
            left = {**under_way, "open": [each.to_json() for each in still_open]}
            yield Batch({**base, "under_way": left}, shape.records(page.records, page.version))
        until, absent_since = under_way["until"], under_way["absent_since"]
        if taken_up or absent_since is not None:  # whoever changed meanwhile was not met yet, and is not gone
            now = self._api.now() - 1
            late = list(self._sweeps(under_way["lists"], until + 1, now + AHEAD))
            for page, _ in self._pages(late, failed):
                yield Batch({**base, "under_way": {**under_way, "open": []}}, shape.records(page.records, page.version))
            until = max(until, now)
        done = {
            "through": until, "lists": [each for each in under_way["lists"] if each not in failed], "under_way": None,
            "reread_at": under_way["began"] if under_way["whole"] else base["reread_at"],
        }  # fmt: skip
        absent = datetime.fromisoformat(absent_since) if absent_since and not failed else None
        yield Batch(done, delete_absent_since=absent)
        for error in failed.values():
            raise error

    def count(self, window: Window) -> int:
        return sum(self._api.page(each, count=1).total for each in self._within(window))

    def keys(self, item: Object, window: Window, limit: int) -> list[str] | None:
        shape, found = Shape(item), list[str]()
        wanted = {"fields": "members.id,members.contact_id,members.list_id,total_items"}
        for cursor in self._within(window):
            rows = self._api.all(replace(cursor, parameters={**cursor.parameters, **wanted}))
            for record in shape.records(rows, 0):
                found.append(record.payload["key"])
                if len(found) > limit:
                    return None
        return found

    # --- what is to be read

    def _begin(self, base: Position, reading: Reading) -> dict[str, Any]:
        """The second that runs is left to the next read: more may happen in it."""
        lists, now = self._api.ids("/lists", "lists"), self._api.now()
        known, until = set(base["lists"]), now - 1
        first = base["through"] < 0
        whole = (
            first or reading.mode == DataSyncMode.FULL or now - base["reread_at"] >= REREAD_EVERY
            or not known <= set(lists)
        )  # fmt: skip
        old = [each for each in lists if each in known and not whole]
        new = [each for each in lists if each not in known or whole]
        open_ = [*self._sweeps(old, base["through"] + 1, until + 1), *self._sweeps(new, 0, until + 1)]
        return {
            "until": until, "began": now, "lists": lists, "whole": whole,
            "absent_since": reading.started.isoformat() if whole and not first else None,
            "open": [each.to_json() for each in open_],
        }  # fmt: skip

    @staticmethod
    def _sweeps(lists: Iterable[str], start: int, end: int) -> Iterator[Sweep]:
        if start < end:
            for list_id in lists:
                for archived in (False, True):
                    yield Sweep(start, end, list_id=list_id, archived=archived)

    # --- pages

    def _pages(self, sweeps: Sequence[Sweep], failed: dict[str, ProviderError]) -> Iterator[tuple[Page, list[Sweep]]]:
        """A list that Mailchimp refuses, or that makes no sense, keeps nobody from the others: it is ``failed``, by its
        id, as if it had not been read yet."""

        def fetch(sweep: Sweep) -> Page:
            try:
                return self._page(sweep)
            except (PermissionMissing, RequestRefused, ProviderMisbehaved) as error:
                failed[sweep.list_id] = error
                return Page([], False, 0, None)

        return read_windows(fetch, sweeps, self._api.connections)

    def _page(self, sweep: Sweep) -> Page:
        """Newest first, from second to second: a member that changes leaves for a later window, and nothing between
        two pages is skipped. Only within a second that has more than a page are there offsets."""
        drained, before = sweep.after or "", sweep.end - 1 if sweep.after_created is None else sweep.after_created
        since = before - 1 if drained else sweep.start - 1
        cursor = Cursor(
            f"/lists/{sweep.list_id}/members", "members",
            {
                **({"since_last_changed": iso(since)} if since > 0 else {}), "before_last_changed": iso(before),
                "sort_field": "last_changed", "sort_dir": "DESC", **({"status": "archived"} if sweep.archived else {}),
            },
        )  # fmt: skip
        if drained:
            offset, last, first, back = drained.split("/")
            cursor = replace(cursor, offset=int(offset), last=last, first=first, back=int(back))
        page = self._api.page(cursor)
        if drained:
            following = self._api.following(page)
            token = f"{following.offset}/{following.last}/{following.first}/{following.back}" if following else ""
            reached = (token, before if following else before - 1)
            return Page(page.rows, following is not None or before - 1 >= sweep.start, page.asked, reached)
        if len(page.rows) < PAGE:
            return Page(page.rows, False, page.asked, None)
        newest, oldest = (self._changed(page.rows[place]) for place in (0, -1))
        if not oldest <= newest <= before:
            raise self._api.misbehaved("members", "has some that changed at another time than was asked for")
        return Page(page.rows, True, page.asked, ("0///0" if newest == oldest else "", oldest))

    def _changed(self, row: dict[str, Any]) -> int:
        at = seconds_of(row.get("last_changed"))
        if at is None:
            raise self._api.misbehaved("members", "has one that does not say when it changed")
        return at

    # --- by creation

    def _created(self, shape: Shape, window: Window) -> Iterator[Batch]:
        for cursor in self._within(window):
            left: Cursor | None = cursor
            while left is not None:
                page, left = self._api.paged(left)
                yield Batch({}, shape.records(page.rows, page.asked))

    def _within(self, window: Window) -> list[Cursor]:
        parameters = created_within("timestamp_opt", window)
        return [
            Cursor(f"/lists/{each}/members", "members", parameters | archived)
            for each in self._api.ids("/lists", "lists")
            for archived in ({}, {"status": "archived"})
        ]
