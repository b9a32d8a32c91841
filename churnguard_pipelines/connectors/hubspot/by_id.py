"""Reads records by id: what they are now, or in which way they are gone. Polls and webhooks both end here.

A version is HubSpot's clock in milliseconds when the record was asked for, or when it was changed last if that is
later: what is read later is newer, also where nothing counts as a change of the record (calculated properties,
restorations), and a search index that lags behind cannot bring back an older state.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from churnguard_pipelines.connectors.hubspot.api import PAGE, Answer, HubSpotApi, misbehaved
from churnguard_pipelines.connectors.hubspot.finding import milliseconds
from churnguard_pipelines.connectors.hubspot.properties import Properties, names
from churnguard_pipelines.engine.fair_threads import map_in_threads
from churnguard_pipelines.records import DeleteKind, Deletion, Record

MERGED = "hs_merged_object_ids"
"""Of a record that others were merged into: their ids, which exist no more."""

Changes = tuple[list[Record], list[Deletion]]


class RecordsById:
    def __init__(self, api: HubSpotApi, properties: Properties) -> None:
        self._api = api
        self._properties = properties

    def now(self, type_id: str, ids: Iterable[str]) -> Changes:
        """Each record as it is, with deletions of those that are gone and of those that were merged into it."""
        wanted = list(dict.fromkeys(ids))
        parts = [wanted[begin : begin + PAGE] for begin in range(0, len(wanted), PAGE)]
        records: list[Record] = []
        deletions: list[Deletion] = []
        for found, gone in map_in_threads(
            "by id", self._api.connections, lambda part: self._part(type_id, part), parts
        ):
            records += found
            deletions += gone
        return records, deletions

    def as_stored(self, type_id: str, rows: Sequence[Any], asked: int) -> Changes:
        """Rows of any answer that shows records, and what they say was merged into them."""
        records = [self._record(type_id, row, asked) for row in rows]
        return records, [deletion for record in records for deletion in _merged_into(record)]

    def archived(self, rows: Sequence[Any], asked: int) -> list[Deletion]:
        """Of rows that the recycle bin shows."""
        return [
            Deletion(str(row["id"]), DeleteKind.ARCHIVED, milliseconds(row.get("archivedAt")) or asked)
            for row in rows
            if isinstance(row, dict) and isinstance(row.get("id"), str | int)
        ]

    def _part(self, type_id: str, ids: Sequence[str]) -> Changes:
        there = self._read(type_id, ids, names(self._properties.of(type_id)), archived=False)
        rows = there.results(f"batch of {type_id}", self._api.integration_id)
        records, deletions = self.as_stored(type_id, rows, there.asked)
        missing = _left(ids, rows, deletions)
        if missing:
            bin_ = self._read(type_id, missing, (), archived=True)
            archived = bin_.results(f"batch of archived {type_id}", self._api.integration_id)
            deletions += self.archived(archived, bin_.asked)
            missing = _left(missing, archived, ())
        deletions += [Deletion(key, DeleteKind.HARD, there.asked) for key in missing]
        return records, deletions

    def _read(self, type_id: str, ids: Sequence[str], properties: Sequence[str], *, archived: bool) -> Answer:
        body = {"inputs": [{"id": each} for each in ids], "properties": list(properties), "propertiesWithHistory": []}
        return self._api.post(self._api.path("crm", "objects", type_id, "batch", "read"), body, archived=archived)

    def _record(self, type_id: str, row: Any, asked: int) -> Record:
        if not isinstance(row, dict):
            raise misbehaved(self._api.integration_id, f"list of {type_id}", "has something that is no record")
        changed = milliseconds(row.get("updatedAt")) or 0
        return Record(self._properties.clean(type_id, row), max(asked, changed))


def _merged_into(record: Record) -> list[Deletion]:
    values = record.payload.get("properties")
    told = values.get(MERGED) if isinstance(values, dict) else None
    losers = {each.strip() for each in told.split(";")} if isinstance(told, str) else set()
    own = str(record.payload.get("id"))
    return [Deletion(key, DeleteKind.MERGED, record.version) for key in sorted(losers - {own, ""})]


def _left(ids: Sequence[str], rows: Sequence[Any], deletions: Collection[Deletion]) -> list[str]:
    """Those that neither came nor are known to be gone."""
    met = {str(row.get("id")) for row in rows if isinstance(row, dict)} | {each.key for each in deletions}
    return [key for key in ids if key not in met]
