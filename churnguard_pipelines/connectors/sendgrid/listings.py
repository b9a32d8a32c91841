"""Reads what SendGrid only lists: whole at every sync, and what is not met is gone. Position: ``{"read_at"}``."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.connectors.sendgrid.api import SendGridApi
from churnguard_pipelines.errors import RequestRefused
from churnguard_pipelines.records import Batch, Record

LISTS, SINGLE_SENDS, STATS, TEMPLATES, SUBUSERS = 1000, 100, 50, 200, 500
"""Rows of a page."""
PART = 10_000
"""Rows handed on at once of an answer without pages."""

Pages = Iterator[tuple[list[Any], int]]


class ListingReader:
    def __init__(self, api: SendGridApi) -> None:
        self._api = api
        self._pages: Mapping[str, Callable[[Object], Pages]] = {
            "unsubscribe_groups": self._at_once,
            "group_unsubscribes": self._members,
            "subusers": lambda item: api.by_offset(item.path, SUBUSERS),
            "lists": lambda item: api.paged(item.path, "result", LISTS),
            "segments": self._segments,
            "single_sends": lambda item: api.paged(item.path, "result", SINGLE_SENDS),
            "single_send_stats": self._single_send_stats,
            "automations": lambda item: api.paged(item.path, "results", STATS),
            "templates": lambda item: api.paged(
                item.path, "result", TEMPLATES, {"generations": "legacy,dynamic"}  # without: the legacy ones only
            ),
        }  # fmt: skip

    def probe(self, item: Object) -> None:
        """Ask for as little as shows whether it may be read. Raises ``PermissionMissing``."""
        next(self._pages[item.name](item), None)

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        now = self._api.now
        for rows, asked in self._pages[item.name](item):
            yield Batch(reading.position or {"read_at": 0}, [Record(_plain(row), asked) for row in rows])
        yield Batch({"read_at": now}, delete_absent_since=reading.started if reading.position is not None else None)

    def _at_once(self, item: Object) -> Pages:
        answer = self._api.get(item.path)
        yield answer.rows(item.path, self._api.integration_id), answer.asked

    def _members(self, item: Object) -> Pages:
        """Of all groups: SendGrid has no pages here, so what was handed on makes room for the rest."""
        for rows, asked in self._at_once(item):
            while rows:
                part = rows[-PART:]
                del rows[-PART:]
                yield [_keyed(row, "group_id", "email") for row in part], asked

    def _segments(self, item: Object) -> Pages:
        """Those of both generations; an account without the old ones may not have their list, either."""
        answer = self._api.get(item.path)
        yield answer.rows(item.path, self._api.integration_id, "results"), answer.asked
        old = item.path.removesuffix("/2.0")
        try:
            answer = self._api.get(old)
        except RequestRefused as error:
            if error.status != 404:
                raise
            return
        rows = answer.rows(old, self._api.integration_id, "results")
        yield [{**row, "query_version": "1"} if isinstance(row, dict) else row for row in rows], answer.asked

    def _single_send_stats(self, item: Object) -> Pages:
        for rows, asked in self._api.paged(item.path, "results", STATS):
            yield [_keyed(row, "id", "ab_variation", "ab_phase") for row in rows], asked


def _plain(row: Any) -> Any:
    """Without the address at which the API shows it."""
    return {name: value for name, value in row.items() if name != "_metadata"} if isinstance(row, dict) else row


def _keyed(row: Any, *names: str) -> Any:
    """With the key that these make; without one, so that it is rejected, if one of them is missing."""
    if not isinstance(row, dict) or any(row.get(name) in (None, "") for name in names):
        return row
    return {**row, "key": ":".join(str(row[name]) for name in names)}
