"""Reads records by REST, page by page in the order of their ids. A wide object is read in several queries, whose parts
are put together again without ever making a record out of two states.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_query.htm
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from churnguard_pipelines.connectors.salesforce import soql
from churnguard_pipelines.connectors.salesforce.api import SalesforceApi
from churnguard_pipelines.connectors.salesforce.describe import Description
from churnguard_pipelines.engine.fair_threads import map_in_threads

IDS_AT_ONCE = 300
"""In one query: 18 characters, quotes and comma are 27 bytes of a URL."""
EXPIRED = "INVALID_QUERY_LOCATOR"
LONGEST_REREAD = 3

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """``rows``: whole records; ``after``: the id from which to go on, None where nothing is left; ``total``: how many
    the query finds, of its first page."""

    rows: list[Row]
    after: str | None
    total: int | None = None


class RestReader:
    """``connections``: requests at once."""

    def __init__(self, api: SalesforceApi, connections: int) -> None:
        self._api = api
        self._connections = connections

    def pages(
        self, about: Description, conditions: Sequence[str], after: str | None, *, deleted: bool
    ) -> Iterator[Page]:
        """Each page as it comes. An object that cannot be read on from an id comes from its beginning."""
        while True:
            url, last = None, after
            while True:
                answer = self._page(about, conditions, last, url, deleted)
                if answer is None:  # Salesforce has let go of the query: another goes on where this one was
                    break
                rows, url, total = answer
                before, last = last, rows[-1].get("Id") if rows else last
                yield Page(self._whole(about, conditions, before, rows, deleted), last if url else None, total)
                if url is None:
                    return
            if not about.keyset:
                raise self._api.misbehaved(f"let go of a query of {about.name} before its end")
            after = last

    def by_ids(self, about: Description, ids: Sequence[str], *, deleted: bool = True) -> list[Row]:
        """Those that are there, whole, in any order."""
        parts = [ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE)]
        found: list[Row] = []
        for part in parts:
            conditions = [soql.among("Id", part), *about.where]
            chunks = soql.chunks(_always(about), _others(about), soql.MOST_BYTES - sum(map(soql.length, conditions)))
            texts = [soql.select(chunk, about.name, conditions) for chunk in chunks]
            found += _merged(about, self._all(about, texts, deleted))[0]
        return found

    def _page(
        self, about: Description, conditions: Sequence[str], after: str | None, url: str | None, deleted: bool
    ) -> tuple[list[Row], str | None, int | None] | None:
        if url is not None:
            answer = self._api.more(url, tolerated=(EXPIRED,))
            if answer.refused:
                return None
        else:
            if after is not None and about.keyset:
                conditions = [*conditions, f"Id > {soql.quoted(after)}"]
            chunk = self._chunks(about, conditions)[0]
            answer = self._api.query(soql.select(chunk, about.name, conditions, about.keyset), deleted=deleted)
        rows, following = _rows(self._api, about, answer.body)
        if following is not None and following == url:
            raise self._api.misbehaved(f"sends the same page of {about.name} again and again")
        return rows, following, answer.body.get("totalSize") if url is None else None

    def _chunks(self, about: Description, conditions: Sequence[str]) -> list[list[str]]:
        taken = sum(map(soql.length, conditions)) + 2 * len("Id > '001000000000000AAA' AND ") + 100
        return soql.chunks(_always(about), _others(about), soql.MOST_BYTES - taken)

    def _whole(
        self, about: Description, conditions: Sequence[str], before: str | None, rows: list[Row], deleted: bool
    ) -> list[Row]:
        """The records of a page with the fields that did not fit its query."""
        chunks = self._chunks(about, conditions)
        if len(chunks) == 1 or not rows:
            return rows
        closed = [*conditions, f"Id <= {soql.quoted(rows[-1]['Id'])}"]
        if before is not None:
            closed.append(f"Id > {soql.quoted(before)}")
        texts = [soql.select(chunk, about.name, closed, True) for chunk in chunks[1:]]
        whole, torn = _merged(about, [rows, *self._all(about, texts, deleted)])
        for _ in range(LONGEST_REREAD):
            if not torn:
                break
            mended = self.by_ids(about, torn, deleted=deleted)
            again = {row["Id"] for row in mended}
            whole += mended
            torn = [each for each in torn if each not in again]
        # What still changes is newer than the end of this read: the next one brings it.
        return whole

    def _all(self, about: Description, texts: Sequence[str], deleted: bool) -> list[list[Row]]:
        complete = partial(self._complete, about, deleted)
        return map_in_threads("chunk", self._connections, complete, texts)

    def _complete(self, about: Description, deleted: bool, text: str) -> list[Row]:
        found, url = _rows(self._api, about, self._api.query(text, deleted=deleted).body)
        while url is not None:
            before = url
            more, url = _rows(self._api, about, self._api.more(url).body)
            if url == before:
                raise self._api.misbehaved(f"sends the same page of {about.name} again and again")
            found += more
        return found


def _always(about: Description) -> list[str]:
    """In every query of an object: what puts the parts together, and says whether they belong together."""
    return [name for name in ("Id", about.stamp, "IsDeleted") if name is not None and about.has(name)]


def _others(about: Description) -> list[str]:
    always = _always(about)
    return [field.name for field in about.fields if field.name not in always]


def _merged(about: Description, parts: Sequence[list[Row]]) -> tuple[list[Row], list[str]]:
    """Whole records, and the ids of those whose parts are of different states."""
    first, *others = parts
    stamp = about.stamp
    rests = [{row["Id"]: row for row in part} for part in others]
    whole: list[Row] = []
    torn: list[str] = []
    for row in first:
        found = [rest.get(row["Id"]) for rest in rests]
        if all(each is not None and (stamp is None or each.get(stamp) == row.get(stamp)) for each in found):
            for each in found:
                row |= each or {}
            whole.append(row)
        else:
            torn.append(row["Id"])
    return whole, torn


def _rows(api: SalesforceApi, about: Description, body: Any) -> tuple[list[Row], str | None]:
    records = body.get("records") if isinstance(body, dict) else None
    if not isinstance(records, list) or not all(isinstance(row, dict) for row in records):
        raise api.misbehaved(f"answers a query of {about.name} without records")
    if about.has("Id") and not all(isinstance(row.get("Id"), str) for row in records):
        raise api.misbehaved(f"answers a query of {about.name} with a record without its id")
    if body.get("done", True):
        return records, None
    url = body.get("nextRecordsUrl")
    if not isinstance(url, str) or not records:
        raise api.misbehaved(f"says there is more of a query of {about.name}, but not where")
    return records, url
