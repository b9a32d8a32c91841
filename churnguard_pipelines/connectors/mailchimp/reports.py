"""Reads what recipients of campaigns did, campaign by campaign, where the campaign's report has changed since.

Each call costs by the number of recipients, whatever happened, so only those campaigns are asked for whose report shows
other figures than when they were read last, and those that were read last within five days after they were sent: a
bounce need not show in a report.

Position: ``{"marks", "under_way"}``. ``marks``: campaign -> a digest of its report's figures when it was read last, and
that moment; a report may tell late, so that what happened in a campaign is asked for since the campaign was read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from churnguard_pipelines.connectors.mailchimp.api import Cursor, MailchimpApi, Page, Row, iso, seconds_of
from churnguard_pipelines.connectors.mailchimp.objects import ReportOptions
from churnguard_pipelines.connectors.mailchimp.rows import Shape, found
from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.errors import ProviderError
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Batch, Record

SETTLING = 5 * 24 * 3600
"""Seconds after a campaign was sent in which bounces come."""
LOOK_BACK = 600
"""Seconds: events show up as late as four minutes after they happened."""
NOTED_EVERY = 100
"""Campaigns by which the position moves."""

Mark = Sequence[Any]
"""The digest, and epoch seconds."""


class ReportReader:
    def __init__(self, api: MailchimpApi) -> None:
        self._api = api

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        options: ReportOptions = item.options
        shape, now = Shape(item), self._api.now()
        reports = self._reports(options)
        failed: dict[str, ProviderError] = {}
        if reading.window is not None:
            start, end = reading.window.start.timestamp(), reading.window.end.timestamp()
            # What was done in the window was done to a campaign sent before its end
            ids = [each["id"] for each in reports if (seconds_of(each.get("send_time")) or 0) < end]
            for _, records in self._of(item, shape, ids, {}, failed):
                kept = [each for each in records if start <= (seconds_of(each.payload.get("timestamp")) or start) < end]
                yield Batch({}, kept)
            for error in failed.values():
                raise error
            return
        position = reading.position or {"marks": {}, "under_way": None}
        under_way: dict[str, Any] | None = position["under_way"]
        if under_way is None or (reading.mode == DataSyncMode.FULL and not under_way["whole"]):
            whole = reading.mode == DataSyncMode.FULL and reading.position is not None
            under_way = {"whole": whole, "absent_since": reading.started.isoformat() if whole else None, "marks": {}}
        done: dict[str, Mark] = dict(under_way["marks"])
        known: Mapping[str, Mark] = {} if under_way["whole"] else position["marks"]
        figures = {each["id"]: _digest(each, options) for each in reports}
        wanted = [each["id"] for each in reports if _is_due(each, figures[each["id"]], done, known)]
        noted = dict(done)
        for page, records in self._of(item, shape, wanted, known, failed):
            if page.ends:
                campaign = page.cursor.own["campaign_id"]
                done[campaign] = [figures[campaign], now]
            if len(done) >= len(noted) + NOTED_EVERY:
                noted = dict(done)
            yield Batch({**position, "under_way": {**under_way, "marks": noted}}, records)
        yield Batch({**position, "under_way": {**under_way, "marks": done}})
        absent_since, marks = under_way["absent_since"], {**known, **done}
        if not (failed and absent_since):  # where some could not be read, nothing is thought to be gone
            yield Batch(
                {"marks": {each: marks[each] for each in figures if each in marks}, "under_way": None},
                delete_absent_since=datetime.fromisoformat(absent_since) if absent_since else None,
            )
        for error in failed.values():
            raise error

    def probe(self, item: Object) -> None:
        """Raises ``PermissionMissing``."""
        options: ReportOptions = item.options
        for id in self._api.ids("/reports", "reports")[:1]:
            self._api.page(Cursor(item.path.format(campaign_id=id), options.rows), count=1)

    def _reports(self, options: ReportOptions) -> list[Row]:
        """Drafts have none. In the order of their ids."""
        shown = ",".join(f"reports.{each}" for each in ("id", "send_time", *options.gate))
        rows = list(self._api.all(Cursor("/reports", "reports", {"fields": f"{shown},total_items"})))
        for row in rows:
            row["id"] = self._api.id("reports", row.get("id"))
        return sorted(rows, key=lambda row: str(row["id"]))

    def _of(
        self, item: Object, shape: Shape, ids: list[str], known: Mapping[str, Mark], failed: dict[str, ProviderError]
    ) -> Iterator[tuple[Page, list[Record]]]:
        """Of these campaigns, page by page; of one that cannot be read, why not, in ``failed``: it keeps nobody from
        the others."""
        options: ReportOptions = item.options
        hidden = {"exclude_fields": options.hidden} if options.hidden else {}
        recent = {id: {"since": iso(at - LOOK_BACK)} for id, (_, at) in known.items()} if options.events else {}
        cursors = [
            Cursor(
                item.path.format(campaign_id=each), options.rows, {**hidden, **recent.get(each, {})},
                {"campaign_id": each},
            )
            for each in ids
        ]  # fmt: skip
        unread: dict[Cursor, ProviderError] = {}
        for page in self._api.pages(cursors, unread):
            rows = _events(page) if options.events else page.rows
            yield page, shape.records(rows, page.asked)
        failed |= {cursor.own["campaign_id"]: error for cursor, error in unread.items()}


def _events(page: Page) -> list[Row]:
    """``since`` leaves events out, never the recipients."""
    made: list[Row] = []
    for row in page.rows:
        activity = row.pop("activity", None)
        events = [each for each in activity if isinstance(each, dict)] if isinstance(activity, list) else []
        made += [{"type": None, "url": None, "ip": None, **row, **each} for each in events]
    return made


def _digest(report: Row, options: ReportOptions) -> str:
    figures = [found(report, name.split(".")) for name in options.gate]
    return hashlib.sha256(orjson.dumps(figures, default=str)).hexdigest()[:12]


def _is_due(report: Row, figures: str, done: Mapping[str, Mark], known: Mapping[str, Mark]) -> bool:
    """Whether it shows something else than when it was read last, in this round or before. A campaign that was settling
    then is read once more, however long ago that is."""
    latest = done.get(report["id"]) or known.get(report["id"])
    if latest is None or latest[0] != figures:
        return True
    sent, read_at = seconds_of(report.get("send_time")), int(latest[1])
    return sent is not None and read_at < sent + SETTLING
