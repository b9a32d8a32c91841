"""Reads what HubSpot only lists: owners, pipelines, lists and their members, marketing.

None of it can be asked for by what changed, so each is read whole, and what is not met is gone. Position: ``{"read_at",
"under_way"}``; ``under_way``: of a read that goes over many lists or forms, where it is. Submissions of forms come
newest first and never change: ``{"read_at", "latest"}`` has of each form when the newest one was sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import datetime
from typing import Any

import orjson

from churnguard_pipelines.connectors.hubspot.api import PAGE, Answer, HubSpotApi, misbehaved, record_id
from churnguard_pipelines.connectors.hubspot.finding import milliseconds
from churnguard_pipelines.connectors.hubspot.objects import Listing, ListingOptions
from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Batch, Position, Record

MEMBERS = 250
LISTS = 500
SUBMISSIONS = 50
LATE = 24 * 3600 * 1000
"""Milliseconds: submissions that appear later than they were sent."""
WITH_PIPELINES = ("deals", "tickets")
CAMPAIGN_PROPERTIES = (
    "hs_name", "hs_campaign_status", "hs_start_date", "hs_end_date", "hs_notes", "hs_audience", "hs_currency_code",
    "hs_utm", "hs_owner", "hs_budget_items_sum_amount", "hs_spend_items_sum_amount", "hs_color_hex",
)  # fmt: skip
"""The list of campaigns shows none that is not asked for."""


class ListingReader:
    def __init__(self, api: HubSpotApi) -> None:
        self._api = api
        self._rows: Mapping[Listing, Callable[[], Iterator[tuple[list[dict[str, Any]], int]]]] = {
            Listing.OWNERS: lambda: self._paged("crm", "owners", archived="false"),
            Listing.PIPELINES: self._pipelines,
            Listing.STAGES: self._stages,
            Listing.LISTS: self._lists,
            Listing.EMAILS: lambda: self._paged("marketing", "emails", includeStats="true"),
            Listing.EVENTS: lambda: self._paged("marketing", "marketing-events"),
            Listing.CAMPAIGNS: lambda: self._paged("marketing", "campaigns", properties=",".join(CAMPAIGN_PROPERTIES)),
            Listing.FORMS: lambda: self._paged("marketing", "forms"),
        }

    def probe(self, kind: Listing) -> None:
        """Ask for as little as shows whether it may be read. Raises ``PermissionMissing``."""
        kind = {Listing.MEMBERSHIPS: Listing.LISTS, Listing.SUBMISSIONS: Listing.FORMS}.get(kind, kind)
        next(self._rows[kind](), None)

    def read(self, item: Object, reading: Reading, now: int) -> Generator[Batch]:
        options: ListingOptions = item.options
        if options.listing is Listing.SUBMISSIONS:
            yield from self._submissions(reading, now)
            return
        position = reading.position
        under_way = position is not None and position.get("under_way")
        wanted = position is None or under_way or reading.mode == DataSyncMode.FULL or not options.every
        if position is not None and not wanted and now - position["read_at"] < options.every:
            return
        absent_since = reading.started if position is not None else None
        if options.listing is Listing.MEMBERSHIPS:
            yield from self._members(position, absent_since, now)
            return
        for rows, asked in self._rows[options.listing]():
            yield Batch(position or {"read_at": 0}, [Record(row, asked) for row in rows])
        yield Batch({"read_at": now}, delete_absent_since=absent_since)

    # --- one list

    def _paged(self, family: str, api: str, **parameters: str) -> Iterator[tuple[list[dict[str, Any]], int]]:
        path = self._api.path(family, api)
        for answer in self._pages(path, PAGE, parameters):
            yield answer.results(path, self._api.integration_id), answer.asked

    def _pages(
        self, path: str, limit: int, parameters: Mapping[str, str], after: str | None = None
    ) -> Iterator[Answer]:
        while True:
            cursor = {"after": after} if after is not None else {}
            answer = self._api.get(path, limit=limit, **parameters, **cursor)
            yield answer
            if answer.after is None:
                return
            if answer.after == after:
                raise misbehaved(self._api.integration_id, path, "sends the same page again and again")
            after = answer.after

    def _lists(self) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """By a search that has no part in the budget of the CRM's."""
        offset, path = 0, self._api.path("crm", "lists", "search")
        while True:
            answer = self._api.post(path, {"count": LISTS, "offset": offset, "query": "", "additionalProperties": [
                "hs_list_size", "hs_last_record_added_at", "hs_last_record_removed_at", "hs_folder_name",
            ]})  # fmt: skip
            rows = answer.results("lists", self._api.integration_id, "lists")
            yield rows, answer.asked
            if not answer.body.get("hasMore"):
                return
            following = answer.body.get("offset")
            following = following if isinstance(following, int) and following > offset else offset + len(rows)
            if following == offset:
                raise misbehaved(self._api.integration_id, "lists", "says there is more but sends an empty page")
            offset = following

    def _pipelines(self) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """Ids are unique within a type only: every account has a ``default`` of deals."""
        for type_, row, asked in self._each_pipeline():
            shown = {name: value for name, value in row.items() if name != "stages"}
            yield [{**shown, "object_type": type_, "key": f"{type_}:{row['id']}"}], asked

    def _stages(self) -> Iterator[tuple[list[dict[str, Any]], int]]:
        for type_, row, asked in self._each_pipeline():
            own = {"object_type": type_, "pipeline_id": row["id"]}
            stages = [stage for stage in row.get("stages") or () if isinstance(stage, dict)]
            yield [{**each, **own, "key": f"{type_}:{row['id']}:{each.get('id')}"} for each in stages], asked

    def _each_pipeline(self) -> Iterator[tuple[str, dict[str, Any], int]]:
        for type_ in WITH_PIPELINES:
            answer = self._api.get(self._api.path("crm", "pipelines", type_))
            for row in answer.results(f"pipelines of {type_}", self._api.integration_id):
                record_id(self._api.integration_id, f"pipelines of {type_}", row)
                yield type_, row, answer.asked

    # --- many lists, many forms

    def _members(self, position: Position | None, absent_since: datetime | None, now: int) -> Iterator[Batch]:
        under_way = position.get("under_way") if position else None
        if under_way is None:
            lists = [
                record_id(self._api.integration_id, "lists", row, "listId") for rows, _ in self._lists() for row in rows
            ]
            absent = absent_since.isoformat() if absent_since else None
            under_way = {"left": lists, "after": None, "started": now, "absent_since": absent}
        base = {"read_at": position["read_at"] if position else 0}
        left: list[str] = under_way["left"]
        while left:
            path = self._api.path("crm", "lists", left[0], "memberships")
            for answer in self._pages(path, MEMBERS, {}, under_way["after"]):
                rows = answer.results(f"members of list {left[0]}", self._api.integration_id)
                under_way = {**under_way, "left": left, "after": answer.after}
                if answer.after is None:
                    left = left[1:]
                    under_way = {**under_way, "left": left}
                yield Batch({**base, "under_way": under_way}, [self._member(path, row, answer.asked) for row in rows])
        absent = under_way["absent_since"]
        yield Batch(
            {"read_at": under_way["started"], "under_way": None},
            delete_absent_since=datetime.fromisoformat(absent) if absent else None,
        )

    def _member(self, path: str, row: Any, asked: int) -> Record:
        list_id = path.split("/")[-2]
        record = record_id(self._api.integration_id, "members of a list", row, "recordId")
        return Record({**row, "recordId": record, "list_id": list_id, "key": f"{list_id}:{record}"}, asked)

    def _submissions(self, reading: Reading, now: int) -> Iterator[Batch]:
        latest: dict[str, int] = dict(reading.position["latest"]) if reading.position else {}
        if reading.mode == DataSyncMode.FULL:
            latest = {}
        forms = [row for rows, _ in self._paged("marketing", "forms") for row in rows]
        for form in forms:
            form_id = record_id(self._api.integration_id, "forms", form)
            since, newest = latest.get(form_id, 0) - LATE, latest.get(form_id, 0)
            for answer in self._pages(f"/form-integrations/v1/submissions/forms/{form_id}", SUBMISSIONS, {}):
                rows = answer.results("submissions of a form", self._api.integration_id)
                sent = [milliseconds(row.get("submittedAt")) or 0 for row in rows if isinstance(row, dict)]
                newest = max([newest, *sent])
                # Newest first: an end in between would leave older ones out, so the form's mark moves at its end only.
                yield Batch({"read_at": now, "latest": dict(latest)}, [_submission(form_id, row) for row in rows])
                if sent and min(sent) < since:
                    break
            latest[form_id] = newest
            yield Batch({"read_at": now, "latest": dict(latest)})


def _submission(form_id: str, row: Any) -> Record:
    """Instants are epoch milliseconds here; older submissions have no id of their own."""
    if not isinstance(row, dict):
        return Record(row, 0)
    sent = milliseconds(row.get("submittedAt"))
    digest = hashlib.sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
    own = row.get("conversionId") or digest
    moment = None if sent is None else sent / 1000
    return Record({**row, "form_id": form_id, "submitted_at": moment, "key": f"{form_id}:{own}"}, sent or 0)
