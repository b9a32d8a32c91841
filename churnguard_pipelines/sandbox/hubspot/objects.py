"""/crm/v3/objects/{type}: list, one record, batch read, search.
https://developers.hubspot.com/docs/api-reference/crm-contacts-v3
"""

from __future__ import annotations

from typing import Any

from churnguard_pipelines.sandbox.hubspot import errors
from churnguard_pipelines.sandbox.hubspot.instants import iso
from churnguard_pipelines.sandbox.hubspot.portal import Portal, Table
from churnguard_pipelines.sandbox.hubspot.records import Record
from churnguard_pipelines.sandbox.hubspot.requests import Request
from churnguard_pipelines.sandbox.hubspot.search import Searches, shown

MOST, MOST_WITH_HISTORY, MOST_IN_BATCH, MOST_WITH_HISTORY_IN_BATCH = 100, 50, 100, 50


def listed(request: Request, table: Table) -> dict[str, Any]:
    """Ascending by id, without an end: every record, archived or not, as it is now."""
    past = request.many("propertiesWithHistory")
    limit = request.limit(10, MOST_WITH_HISTORY if past else MOST)
    archived, portal = request.flag("archived"), request.portal
    found: list[Record] = []
    for record in table.after(request.after()):
        if portal.listed(record, archived):
            if len(found) == limit:
                break
            found.append(record)
    else:
        return request.page([_shown(request, table, each, past) for each in found], None)
    return request.page([_shown(request, table, each, past) for each in found], found[-1].id)


def one(request: Request, table: Table, id: str) -> dict[str, Any]:
    """A merged record's id answers for the one it was merged into."""
    record = _find(request.portal, table, id, request.one("idProperty"))
    if record is None or not request.portal.listed(record, request.flag("archived")):
        raise errors.not_found(id)
    return _shown(request, table, record, request.many("propertiesWithHistory"))


def batch(request: Request, table: Table) -> tuple[int, dict[str, Any]]:
    """Each record once; what is not there makes an error of its own, and the answer a 207."""
    body = request.json()
    inputs, past = body.get("inputs"), list(body.get("propertiesWithHistory") or [])
    most = MOST_WITH_HISTORY_IN_BATCH if past else MOST_IN_BATCH
    if not isinstance(inputs, list) or not all(isinstance(each, dict) and "id" in each for each in inputs):
        raise errors.invalid("Invalid input JSON: inputs must be a list of ids")
    if len(inputs) > most:
        raise errors.invalid(f"Batch size {len(inputs)} exceeds the limit of {most}")
    found: dict[int, Record] = {}
    lost: list[str] = []
    for each in inputs:
        record = _find(request.portal, table, str(each["id"]), body.get("idProperty"))
        if record is None or not request.portal.listed(record, request.flag("archived")):
            lost.append(str(each["id"]))
        else:
            found[record.id] = record
    names = list(body.get("properties") or [])
    results = [rendered(request.portal, record, names, past) for record in found.values()]
    at = iso(request.portal.clock())
    made: dict[str, Any] = {"status": "COMPLETE", "results": results, "startedAt": at, "completedAt": at}
    if not lost:
        return 200, made
    kind = table.type.singular.upper()
    made["numErrors"] = 1
    made["errors"] = [
        {
            "status": "error",
            "category": "OBJECT_NOT_FOUND",
            "message": f"Could not get some {kind} objects, they may be deleted or not exist. "
            "Check that ids are valid.",
            "context": {"ids": lost},
        }
    ]
    return errors.MANY_ERRORS, made


def searched(request: Request, table: Table, searches: Searches) -> dict[str, Any]:
    """Associations, history and archived records are not to be had by search."""
    query = request.json()
    total, found, following = searches.search(table, query)
    asked = query.get("properties") or table.type.by_default
    names = sorted({*asked, table.type.created, table.type.modified, "hs_object_id"})
    results = [
        {
            "id": str(entry.record.id),
            "properties": shown(request.portal, entry, names),
            "createdAt": iso(entry.record.created),
            "updatedAt": iso(entry.updated),
            "archived": False,
            "url": _url(request.portal, entry.record),
        }
        for entry in found
    ]
    body: dict[str, Any] = {"total": total, "results": results}
    if following is not None:
        body["paging"] = {"next": {"after": following}}
    return body


def rendered(portal: Portal, record: Record, names: list[str], past: list[str]) -> dict[str, Any]:
    """A record with the properties asked for and those always shown: null where it has none, absent where unknown."""
    properties = portal.tables[record.type.name].properties
    asked = names or list(record.type.by_default)
    wanted = {*asked, record.type.created, record.type.modified, "hs_object_id"}
    known = [name for name in sorted(wanted) if name in properties and properties[name].archived_at is None]
    body: dict[str, Any] = {
        "id": str(record.id),
        "properties": {name: portal.value(record, name) for name in known},
        "createdAt": iso(record.created),
        "updatedAt": iso(record.updated),
        "archived": record.archived_at is not None,
        "url": _url(portal, record),
    }
    if record.archived_at is not None:
        body["archivedAt"] = iso(record.archived_at)
    if past:
        body["propertiesWithHistory"] = {name: _history(portal, record, name) for name in past if name in properties}
    return body


def _shown(request: Request, table: Table, record: Record, past: list[str]) -> dict[str, Any]:
    body = rendered(request.portal, record, request.many("properties"), past)
    associations = request.portal.associations
    for name in request.many("associations"):
        other = request.portal.table(name).type
        found = associations.of(table.type.name, record.id, other.name)
        results = [
            {"id": str(id), "type": kind.label or f"{table.type.singular}_to_{other.singular}"}
            for id, kinds in found
            for kind in kinds
        ]
        if results:
            body.setdefault("associations", {})[other.name] = {"results": results}
    return body


def _url(portal: Portal, record: Record) -> str:
    return f"https://app.hubspot.com/contacts/{portal.id}/record/{record.type.id}/{record.id}"


def _history(portal: Portal, record: Record, name: str) -> list[dict[str, Any]]:
    """Newest first."""
    past = record.history.get(name)
    if past is None:
        value = portal.value(record, name)
        past = [] if value is None else [(record.created, value)]
    return [
        {
            "value": value or "",
            "timestamp": iso(at),
            "sourceType": "CRM_UI",
            "sourceId": "userId:1",
            "updatedByUserId": 1,
        }
        for at, value in reversed(past)
    ]


def _find(portal: Portal, table: Table, id: str, by: str | None) -> Record | None:
    if by:
        return next((each for each in table.records.values() if portal.value(each, by) == id), None)
    return table.find(int(id)) if id.isdigit() else None
