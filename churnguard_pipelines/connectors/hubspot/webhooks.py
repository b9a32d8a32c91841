"""What HubSpot's webhook events tell: which records to ask for. An event has ids, and at most one property's value.

https://developers.hubspot.com/docs/api/webhooks: events come in any order, several times, and for whatever changed
meanwhile again; so they are no states, and what is stored is read by id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from churnguard_pipelines.connectors.hubspot.associations import AssociationReader
from churnguard_pipelines.connectors.hubspot.by_id import RecordsById
from churnguard_pipelines.connectors.hubspot.finding import milliseconds
from churnguard_pipelines.connectors.hubspot.objects import OBJECTS, SINGULAR, TYPE_IDS, PairOptions
from churnguard_pipelines.connectors.hubspot.own_objects import is_own, ordered
from churnguard_pipelines.connectors.sdk import Object, StoredVersions
from churnguard_pipelines.errors import ProviderMisbehaved
from churnguard_pipelines.records import DeleteKind, Deletion, Record

IGNORED = frozenset(
    f"conversation.{what}" for what in ("creation", "deletion", "privacyDeletion", "propertyChange", "newMessage")
)
_CHANGES = ("creation", "deletion", "merge", "restore", "propertyChange", "privacyDeletion")
_PAIRS = {
    (item.options.source, item.options.target): item.name for item in OBJECTS if isinstance(item.options, PairOptions)
}
_OF_OTHERS = ("mergedObjectIds", "primaryObjectId", "newObjectId")


def object_of(event: Mapping[str, Any]) -> str | None:
    """The object that the event is of; of an account's own its path. Of an association it is that of its pair,
    whichever end it names first."""
    kind, _, change = str(event.get("subscriptionType")).partition(".")
    if change == "associationChange":
        ends = _ends(event)
        if ends is None:
            return None
        if any(map(is_own, ends)):
            return "/".join(ordered(*ends))
        return _PAIRS.get(ends) or _PAIRS.get((ends[1], ends[0]))
    if change not in _CHANGES:
        return None
    return _type(event.get("objectTypeId")) if kind == "object" else SINGULAR.get(kind)


def record_changes(
    by_id: RecordsById, item: Object, events: Sequence[Mapping[str, Any]], stored: StoredVersions
) -> tuple[list[Record], list[Deletion]]:
    """What the events make of a CRM object's records. One that was read after all of its events is not read again."""
    told: dict[str, int] = {}
    private: set[str] = set()
    for event in events:
        at, ids = _occurred(event), _ids(event)
        told |= {key: max(at, told.get(key, 0)) for key in ids}
        if str(event["subscriptionType"]).endswith(".privacyDeletion"):
            private.update(ids)
    ours = stored(told)
    records, deletions = by_id.now(
        item.path, [key for key, at in told.items() if ours.get(key, 0) <= at or key in private]
    )
    records = [Record(each.payload, max(each.version, told.get(str(each.payload.get("id")), 0))) for each in records]
    deletions = [_deletion(each, told.get(each.key, 0), private) for each in deletions]
    # What we have of a person who is to be forgotten goes with the deletion: an empty row takes its place.
    forgotten = [Record({"id": each.key}, each.version) for each in deletions if each.kind is DeleteKind.PRIVACY]
    return records + forgotten, deletions


def association_changes(
    reader: AssociationReader, item: Object, events: Sequence[Mapping[str, Any]]
) -> tuple[list[Record], list[Deletion]]:
    pair: PairOptions = item.options
    told: dict[tuple[str, str], int] = {}
    for event in events:
        ends = str(event.get("fromObjectId") or ""), str(event.get("toObjectId") or "")
        if not all(ends):
            raise _not_understood("does not say which records")
        if _ends(event) != (pair.source, pair.target):
            ends = ends[1], ends[0]
        told[ends] = max(_occurred(event), told.get(ends, 0))
    return reader.changes(item, told)


def _deletion(found: Deletion, at: int, private: Collection[str]) -> Deletion:
    version = max(found.version, at)
    if found.key not in private:
        return Deletion(found.key, found.kind, version)
    return Deletion(found.key, DeleteKind.PRIVACY, version + 1)  # the plain deletion is told of the same moment


def _ends(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """The types of both ends: ``CONTACT_TO_COMPANY``, of which some have more behind, or by their ids."""
    ids = _type(event.get("fromObjectTypeId")), _type(event.get("toObjectTypeId"))
    if ids[0] is not None and ids[1] is not None:
        return ids[0], ids[1]
    first, _, second = str(event.get("associationType")).lower().partition("_to_")
    source = SINGULAR.get(first)
    target = next((name for word, name in SINGULAR.items() if second == word or second.startswith(f"{word}_")), None)
    return None if source is None or target is None else (source, target)


def _type(told: Any) -> str | None:
    type_id = str(told)
    return TYPE_IDS.get(type_id) or (type_id if is_own(type_id) else None)


def _ids(event: Mapping[str, Any]) -> list[str]:
    found: list[Any] = [event.get("objectId")]
    for name in _OF_OTHERS:
        value = event.get(name)
        found += value if isinstance(value, list) else [value]
    ids = [str(each) for each in found if type(each) in (int, str) and each not in ("", 0)]
    if not ids:
        raise _not_understood("does not say which record")
    return list(dict.fromkeys(ids))


def _occurred(event: Mapping[str, Any]) -> int:
    at = milliseconds(event.get("occurredAt"))
    if at is None:
        raise _not_understood("does not say when")
    return at


def _not_understood(how: str) -> ProviderMisbehaved:
    return ProviderMisbehaved(f"a webhook event of HubSpot {how}.", remedy="The next sync finds what it was about.")
