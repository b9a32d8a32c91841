"""Reads associations: which records of one type belong to which of another, and by which labels.

HubSpot changes no date when one is made or removed. So they come in three ways: those of records that changed or are
new, found by search; those that a webhook names; and all of them again at times, which also finds those that are gone.

Position: ``{"swept_at", "prompt", "sweep"}``, times in milliseconds of HubSpot's clock; ``sweep``: one under way.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from churnguard_pipelines.connectors.hubspot.api import PAGE, HubSpotApi, misbehaved, record_id
from churnguard_pipelines.connectors.hubspot.finding import Finder
from churnguard_pipelines.connectors.hubspot.objects import CrmOptions, PairOptions
from churnguard_pipelines.connectors.hubspot.records import OVERLAP, PAGES_OF_REREADING, TRAIL
from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Batch, DeleteKind, Deletion, Position, Record

INPUTS = 1_000
"""Records whose associations one call reads: developers.hubspot.com/docs/api-reference/crm-associations-v4."""


class AssociationReader:
    """``modified``: the property by which search finds changed records of a type."""

    def __init__(self, api: HubSpotApi, finder: Finder, options: Mapping[str, CrmOptions]) -> None:
        self._api = api
        self._finder = finder
        self._options = options

    def read(self, item: Object, reading: Reading, now: int) -> Generator[Batch]:
        pair: PairOptions = item.options
        position: dict[str, Any] = dict(reading.position or {"swept_at": 0, "prompt": now, "sweep": None})
        if position["sweep"] is None:
            if reading.position is not None and reading.mode != DataSyncMode.FULL:
                yield from self._of_changed(pair, position, now)
                position["prompt"] = now
                yield Batch(dict(position))
            due = now - position["swept_at"] >= pair.sweep_every
            if not due and reading.mode != DataSyncMode.FULL:
                return
            absent = reading.started.isoformat() if reading.position is not None else None
            position["sweep"] = {"after": None, "started": now, "absent_since": absent}
        elif reading.mode != DataSyncMode.FULL:
            yield from self._of_changed(pair, position, now)
            position["prompt"] = now
        # The first read is whole; of a later one, changes need not wait for the rest.
        whole = position["swept_at"] == 0 or reading.mode == DataSyncMode.FULL
        yield from self._sweep(pair, position, None if whole else PAGES_OF_REREADING * PAGE // INPUTS)

    def of(self, pair: PairOptions, ids: Sequence[str]) -> tuple[list[Record], int]:
        """The associations of these records as they are, and HubSpot's clock when they were asked for."""
        records: list[Record] = []
        first = None
        path = self._api.path("crm", "associations", pair.source, pair.target, "batch", "read", legacy="v4")
        for begin in range(0, len(ids), INPUTS):
            inputs = [{"id": each} for each in ids[begin : begin + INPUTS]]
            while inputs:
                # A record without any is an error of its own in a 207, which is none for us.
                answer = self._api.post(path, {"inputs": inputs})
                first = answer.asked if first is None else min(first, answer.asked)
                rows = answer.results(self._what(pair), self._api.integration_id)
                records += [record for row in rows for record in self._of_one(pair, row, answer.asked)]
                following = [next_ for row in rows if (next_ := self._next(pair, row)) is not None]
                if following and following == inputs:
                    raise misbehaved(self._api.integration_id, self._what(pair), "sends the same page again and again")
                inputs = following
        return records, first or 0

    def changes(self, item: Object, told: Mapping[tuple[str, str], int]) -> tuple[list[Record], list[Deletion]]:
        """``told``: of (from, to) when it was made or removed, in HubSpot's milliseconds: what is true of it now."""
        pair: PairOptions = item.options
        sources = list(dict.fromkeys(source for source, _ in told))
        records, asked = self.of(pair, sources)
        latest = {source: max(at for (other, _), at in told.items() if other == source) for source in sources}
        records = [Record(each.payload, max(each.version, latest[each.payload["from_id"]])) for each in records]
        there = {each.payload["id"] for each in records}
        gone = [
            Deletion(_key(source, target), DeleteKind.HARD, max(at, asked))
            for (source, target), at in told.items()
            if _key(source, target) not in there
        ]
        return records, gone

    def _of_changed(self, pair: PairOptions, position: Mapping[str, Any], now: int) -> Iterator[Batch]:
        modified = self._options.get(pair.source, CrmOptions()).modified
        since = max(position["prompt"] - OVERLAP, now - 7 * 24 * TRAIL)
        for found in self._finder.between(pair.source, modified, since, now):
            yield Batch(dict(position), self.of(pair, found.ids)[0])

    def _sweep(self, pair: PairOptions, position: dict[str, Any], parts: int | None) -> Iterator[Batch]:
        sweep: dict[str, Any] = position["sweep"]
        for ids, after in islice(self._ids(pair.source, sweep["after"]), parts):
            records = self.of(pair, ids)[0]
            if after is not None:
                sweep = {**sweep, "after": after}
                yield Batch({**position, "sweep": sweep}, records)
                continue
            absent = sweep["absent_since"]
            done: Position = {**position, "sweep": None, "swept_at": sweep["started"]}
            yield Batch(done, records, delete_absent_since=datetime.fromisoformat(absent) if absent else None)

    def _ids(self, source: str, after: str | None) -> Iterator[tuple[list[str], str | None]]:
        """As many as one call takes, and where the next ones begin."""
        ids: list[str] = []
        while True:
            cursor = {"after": after} if after is not None else {}
            answer = self._api.get(
                self._api.path("crm", "objects", source), limit=PAGE, archived="false", properties="hs_object_id",
                **cursor,
            )  # fmt: skip
            what = f"list of {source}"
            rows = answer.results(what, self._api.integration_id)
            ids += [record_id(self._api.integration_id, what, row) for row in rows]
            if answer.after is not None and answer.after == after:
                raise misbehaved(self._api.integration_id, what, "sends the same page again and again")
            after = answer.after
            if after is None or len(ids) >= INPUTS:
                yield ids, after
                ids = []
            if after is None:
                return

    def _of_one(self, pair: PairOptions, row: Any, asked: int) -> Iterator[Record]:
        source = record_id(
            self._api.integration_id, self._what(pair), row.get("from") if isinstance(row, dict) else None
        )
        for target in row.get("to") or ():
            to_id = record_id(self._api.integration_id, self._what(pair), target, "toObjectId")
            types = [each for each in target.get("associationTypes") or () if isinstance(each, dict)]
            labels = [each["label"] for each in types if each.get("label")]
            payload = {"id": _key(source, to_id), "from_id": source, "to_id": to_id, "labels": labels, "types": types}
            yield Record(payload, asked)

    def _next(self, pair: PairOptions, row: Any) -> dict[str, str] | None:
        """The input that asks for more of a record that has more than fit."""
        following = ((row.get("paging") or {}).get("next") or {}).get("after") if isinstance(row, dict) else None
        return {"id": str(row["from"]["id"]), "after": str(following)} if following else None

    def _what(self, pair: PairOptions) -> str:
        return f"associations of {pair.source} with {pair.target}"


def _key(source: str, target: str) -> str:
    return f"{source}-{target}"
