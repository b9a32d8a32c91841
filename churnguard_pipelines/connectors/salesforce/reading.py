"""Reads an object: once in whole, then what changed and what was deleted, and in whole again where that is the only way
to learn something.

A position is ``{"changed_until", "changes", "deleted_until", "logged", "pass", "passed_at", "fields"}``. ``changes``
and ``pass`` are the stretches under way, or null: of a window of changes, and of the whole object. ``logged``: whether
Salesforce logs the object's deletions. ``fields``: a digest of what is read; where it is another now, all records are
read once more, since giving a field to an object changes none of them. All times are Salesforce's clock, but a pass'
``absent_since``, which is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from churnguard_pipelines.connectors.salesforce import soql
from churnguard_pipelines.connectors.salesforce.api import SalesforceApi
from churnguard_pipelines.connectors.salesforce.bulk import BulkReader
from churnguard_pipelines.connectors.salesforce.deletes import (
    KEPT,
    Deleted,
    LogIncomplete,
    NotLogged,
    deletions,
    milliseconds,
    moment,
)
from churnguard_pipelines.connectors.salesforce.describe import Description
from churnguard_pipelines.connectors.salesforce.rest import RestReader, Row
from churnguard_pipelines.connectors.salesforce.stretch import Stretch, StretchReader
from churnguard_pipelines.connectors.sdk import EARLIEST, Object, Reading
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.records import DATE, TIMESTAMP, Batch, DeleteKind, Deletion, Position, Record, Window

TRAIL = timedelta(minutes=5)
"""Reads lag behind writes: what is younger may be incomplete."""
FORMULAS_EVERY = timedelta(days=1)
"""An object with formulas or roll-ups is read in whole as often: their changes move no date."""
SWEEP_EVERY = timedelta(days=7)
"""An object whose deletions nothing tells."""
MOST_LOOKED_AT = 2_000
"""Deleted records that are looked at for how they were deleted."""

Describe = Callable[[str], Description]


class SalesforceReader:
    """``describe``: what the account says of an object now."""

    def __init__(self, integration: IntegrationConfiguration, api: SalesforceApi, describe: Describe) -> None:
        self._api = api
        self._describe = describe
        self._filters = integration.sync_config.data_filters
        self._rest = RestReader(api, integration.sync_config.concurrent_requests)
        self._stretches = StretchReader(self._rest, BulkReader(api))

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        about, now = self._describe(item.name), self._api.now()
        kept = self._kept(item, about)
        if reading.window is not None:
            yield from self._history(about, kept, reading.window, reading.position, now)
            return
        position = reading.position
        if position is None:
            position = _begun(about, now)
        else:
            told: set[str] = set()
            for batch in self._changed(about, kept, position, now, told):
                yield batch
                position = batch.position
            for batch in self._deleted(about, position, now, told):
                yield batch
                position = batch.position
            if position["pass"] is None and _due(about, position, reading, now):
                position = _begun(about, now, position, reading.started)
        if position["pass"] is not None:
            yield from self._pass(about, kept, position)

    def fetch(self, item: Object, keys: Sequence[str]) -> tuple[list[Record], list[Deletion]]:
        """These records as they are now; of one that is not there any more its deletion."""
        about, now = self._describe(item.name), self._api.now()
        found = self._rest.by_ids(about, keys, deleted=about.has("IsDeleted"))
        records, gone = _told(about, found, _milliseconds(now - TRAIL))
        there = {record.payload["id"] for record in records} | {each.key for each in gone}
        absent = [key for key in keys if key not in there]
        return records, gone + [Deletion(key, DeleteKind.HARD, _milliseconds(now)) for key in absent]

    def changed(
        self, item: Object, at: Mapping[str, int], gone: Collection[str], back: Collection[str]
    ) -> tuple[list[Record], list[Deletion]]:
        """These records, of which an event has told at a moment each (milliseconds; 0: not when), as they are now.

        ``gone``, ``back``: those of them that were deleted, or restored, by what was told last. One that is not there,
        though nothing says it was deleted, is left alone: it may not be seen yet, and the next sync knows.
        """
        about, now = self._describe(item.name), self._api.now()
        found = self._rest.by_ids(about, list(at), deleted=about.has("IsDeleted"))
        least = {row["Id"]: _as_told(about, row, at[row["Id"]], back) for row in found if row.get("Id") in at}
        trail = _milliseconds(now - TRAIL)
        records, deleted = _told(about, found, {key: max(moment, trail) for key, moment in least.items()})
        kinds = {each.key: each.kind for each in deleted}
        alive = [record for record in records if record.payload["id"] not in gone]
        seen = kinds.keys() | {record.payload["id"] for record in records}
        told = [
            Deletion(key, kinds.get(key, DeleteKind.SOFT if key in seen else DeleteKind.HARD), at[key]) for key in gone
        ]
        return alive, [each for each in deleted if each.key not in gone] + told

    def changed_since(self, item: Object, since: datetime) -> Iterator[Batch]:
        about = self._describe(item.name)
        if about.cursor is None:
            return
        window = [f"{about.cursor} >= {soql.moment(since)}", *self._kept(item, about)]
        stretch = Stretch(soql.moment(self._api.now()))
        for rows, _ in self._stretches.read(about, window, stretch, deleted=about.has("IsDeleted")):
            yield Batch({}, *_told(about, rows))

    def count(self, item: Object, window: Window) -> int | None:
        about = self._describe(item.name)
        conditions = _created(about, window)
        if conditions is None:
            return None
        alive, deleted = _alive(about)
        return self._api.count(soql.count(about.name, [*conditions, *alive, *self._kept(item, about)]), deleted=deleted)

    def keys(self, item: Object, window: Window, limit: int) -> list[str] | None:
        about = self._describe(item.name)
        conditions = _created(about, window)
        if conditions is None or not about.keyset:
            return None
        keys: list[str] = []
        alive, deleted = _alive(about)
        asked = [*conditions, *alive, *self._kept(item, about)]
        for page in self._rest.pages(about.only("Id"), asked, None, deleted=deleted):
            keys += [row["Id"] for row in page.rows]
            if len(keys) > limit or (page.total or 0) > limit:
                return None
        return keys

    def estimate(self, item: Object, reading: Reading) -> int | None:
        """Records that a read on from the position would bring; None where it would read all."""
        about, position = self._describe(item.name), reading.position
        if position is None or about.cursor is None or position["pass"] is not None:
            return None
        if reading.mode == DataSyncMode.FULL or _due(about, position, reading, self._api.now()):
            return None
        since = f"{about.cursor} >= {position['changed_until']}"
        return self._api.count(soql.count(about.name, [since, *self._kept(item, about)]))

    # --- what changed

    def _changed(
        self, about: Description, kept: list[str], position: Position, now: datetime, told: set[str]
    ) -> Iterator[Batch]:
        """``told``: gets the ids of those that it tells are deleted."""
        if about.cursor is None:
            return
        since, until = position["changed_until"], soql.moment(now - TRAIL)
        stretch = Stretch(**position["changes"]) if position["changes"] else Stretch(until)
        if stretch.until <= since:
            return
        window = [f"{about.cursor} >= {since}", f"{about.cursor} < {stretch.until}"]
        for rows, left in self._stretches.read(about, [*window, *kept], stretch, deleted=about.has("IsDeleted")):
            records, gone = _told(about, rows)
            told.update(each.key for each in gone)
            after = {"changes": left.to_json()} if left else {"changes": None, "changed_until": stretch.until}
            yield Batch({**position, **after}, records, gone, incremental=True)

    # --- what was deleted

    def _deleted(self, about: Description, position: Position, now: datetime, told: set[str]) -> Iterator[Batch]:
        if not _logged(about, position) or position["deleted_until"] is None:
            return
        since = moment(position["deleted_until"])
        if now - since > KEPT:
            return
        try:
            for found in deletions(self._api, about, since, now - TRAIL):
                records, gone = self._looked_at(about, found, told)
                yield Batch({**position, "deleted_until": soql.moment(found.until)}, records, gone)
        except LogIncomplete:
            yield Batch({**position, "deleted_until": None})
        except NotLogged:
            yield Batch({**position, "logged": False})

    def _looked_at(self, about: Description, found: Deleted, told: set[str]) -> tuple[list[Record], list[Deletion]]:
        """How they were deleted, of those that are still in the recycle bin; or that they are back."""
        unsure = [key for key in found.at if key not in told]
        if not about.has("IsDeleted") or not about.keyset or len(unsure) > MOST_LOOKED_AT:
            return [], [Deletion(key, DeleteKind.SOFT, found.at[key]) for key in unsure]
        records, gone = _told(about, self._rest.by_ids(about, unsure), {key: at + 1 for key, at in found.at.items()})
        there = {record.payload["id"] for record in records} | {each.key for each in gone}
        purged = [Deletion(key, DeleteKind.HARD, found.at[key]) for key in unsure if key not in there]
        return records, gone + purged

    # --- the whole object

    def _pass(self, about: Description, kept: list[str], position: Position) -> Iterator[Batch]:
        stretch = Stretch(**position["pass"])
        begun = milliseconds(stretch.until)
        alive, deleted = _alive(about)
        for rows, left in self._stretches.read(about, [*alive, *kept], stretch, deleted=deleted):
            records, _ = _told(about, rows, begun)
            absent = stretch.absent_since if left is None else None
            yield Batch(
                {**position, "pass": left.to_json() if left else None}, records,
                delete_absent_since=datetime.fromisoformat(absent) if absent else None,
            )  # fmt: skip

    def _history(
        self, about: Description, kept: list[str], window: Window, position: Position | None, now: datetime
    ) -> Iterator[Batch]:
        conditions = _created(about, window) or []
        stretch = Stretch(**position["open"]) if position and position["open"] else Stretch(soql.moment(now - TRAIL))
        begun = milliseconds(stretch.until)
        alive, deleted = _alive(about)
        for rows, left in self._stretches.read(about, [*conditions, *alive, *kept], stretch, deleted=deleted):
            yield Batch({"open": left.to_json() if left else None}, _told(about, rows, begun)[0])

    def _kept(self, item: Object, about: Description) -> list[str]:
        """The integration's filters, as far as Salesforce can be asked for what they keep."""
        types = {field.name: field.kind for field in about.fields if field.filterable}
        moments = {
            column.source_path: about.by_name[column.source_path].kind
            for column in item.columns
            if column.type in (TIMESTAMP, DATE) and about.has(column.source_path)
        }
        return [*about.where, *soql.pushed_down(self._filters, item.name, types, moments)]


def _begun(
    about: Description, now: datetime, position: Position | None = None, absent_since: datetime | None = None
) -> dict[str, Any]:
    """Before a read of the whole object. ``absent_since``: if it is one more, what it does not meet is gone."""
    begun = soql.moment(now - TRAIL)
    stretch = Stretch(begun, absent_since=absent_since.isoformat() if absent_since else None)
    # What changes meanwhile is read as ever, from where the reading of changes stands.
    changes = {"changed_until": begun, "changes": None} if position is None else {}
    told = {"deleted_until": begun, "pass": stretch.to_json(), "passed_at": begun, "fields": about.digest}
    return {"logged": True, **(position or {}), **changes, **told}


def _due(about: Description, position: Position, reading: Reading, now: datetime) -> bool:
    """Whether all of it has to be read again."""
    if reading.mode == DataSyncMode.FULL or about.cursor is None or position["fields"] != about.digest:
        return True
    deleted_until = position["deleted_until"]
    logged = _logged(about, position)
    if logged and (deleted_until is None or now - moment(deleted_until) > KEPT):
        return True
    since = now - moment(position["passed_at"])
    return since >= FORMULAS_EVERY if about.calculates else not logged and since >= SWEEP_EVERY


def _logged(about: Description, position: Position) -> bool:
    """Whether Salesforce logs the object's deletions."""
    return about.replicateable and position["logged"]


def _told(
    about: Description, rows: Sequence[Row], at_least: int | Mapping[str, int] = 0
) -> tuple[list[Record], list[Deletion]]:
    """Records and deletions. A version is the moment of change, in milliseconds; ``at_least``: a later one at which the
    record is known to have been so. A read shows all that was done five minutes before it at the latest: whatever is
    found then is as new as that, though its stamp be older, as of a formula's change or of what came back."""
    stamp = about.stamp
    records: list[Record] = []
    gone: list[Deletion] = []
    for row in rows:
        key, deleted = row.pop("Id", None), row.pop("IsDeleted", False)
        row.pop("attributes", None)
        least = at_least if isinstance(at_least, int) else at_least.get(key, 0)
        version = max(least, _version(row.get(stamp) if stamp else None))
        if deleted is True:
            kind = DeleteKind.MERGED if row.get("MasterRecordId") else DeleteKind.SOFT
            gone.append(Deletion(key, kind, version))
        else:
            row["id"] = key
            records.append(Record(row, version))
    return records, gone


def _as_told(about: Description, row: Row, at: int, back: Collection[str]) -> int:
    """The version that an event gives to a record that was read after it: its moment, unless the record's stamp says
    that the read does not show the change yet. Stamps are of whole seconds. What is restored keeps its old stamp."""
    stamp = _version(row.get(about.stamp) if about.stamp else None)
    shown = stamp >= at // 1000 * 1000 or (row["Id"] in back and row.get("IsDeleted") is not True)
    return at if shown else 0


def _alive(about: Description) -> tuple[list[str], bool]:
    """Conditions for what is not deleted, and whether to ask with what is: archived activities come only so."""
    archived = about.has("IsArchived") and about.filterable("IsDeleted")
    return ["IsDeleted = false"] if archived else [], archived


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _version(stamp: Any) -> int:
    try:
        return milliseconds(stamp)
    except (ValueError, TypeError):
        return 0


def _created(about: Description, window: Window) -> list[str] | None:
    """None for an object that cannot be asked for by when its records were made."""
    if not about.filterable("CreatedDate"):
        return None
    begin = [f"CreatedDate >= {soql.moment(window.start)}"] if window.start > EARLIEST else []
    return [*begin, f"CreatedDate < {soql.moment(window.end.astimezone(UTC))}"]
