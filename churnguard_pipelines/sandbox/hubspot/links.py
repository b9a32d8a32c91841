"""What belongs together: associations v4 and lists with their members."""

from __future__ import annotations

from typing import Any

from churnguard_pipelines.sandbox.hubspot import errors
from churnguard_pipelines.sandbox.hubspot.associations import AssociationType
from churnguard_pipelines.sandbox.hubspot.instants import iso, iso_micros
from churnguard_pipelines.sandbox.hubspot.portal import Portal, Table
from churnguard_pipelines.sandbox.hubspot.requests import Request
from churnguard_pipelines.sandbox.hubspot.segments import Segment

MOST_INPUTS, MOST_OF_ONE = 1000, 500
MOST_LISTS, MOST_MEMBERS = 500, 250


def associated(request: Request, source: Table, target: Table) -> tuple[int, dict[str, Any]]:
    """POST …/batch/read: a record without any is an error of its own, and makes the answer a 207."""
    inputs = request.json().get("inputs")
    if not isinstance(inputs, list) or len(inputs) > MOST_INPUTS:
        raise errors.invalid(f"The maximum number of inputs supported in a batch request is {MOST_INPUTS}")
    results, failed = [], []
    for each in inputs:
        id = str(each.get("id"))
        record = source.find(int(id)) if id.isdigit() else None
        found = _targets(request.portal, source, record.id, target) if record else []
        place = int(each.get("after") or 0)
        page = found[place : place + MOST_OF_ONE]
        if not page:
            failed.append(_nothing(source, id, target))
            continue
        made: dict[str, Any] = {"from": {"id": id}, "to": page}
        if place + MOST_OF_ONE < len(found):
            made["paging"] = {"next": {"after": str(place + MOST_OF_ONE), "link": ""}}
        results.append(made)
    at = iso(request.portal.clock())
    body: dict[str, Any] = {"status": "COMPLETE", "results": results, "startedAt": at, "completedAt": at}
    if not failed:
        return 200, body
    return errors.MANY_ERRORS, {**body, "numErrors": len(failed), "errors": failed}


def of_one(request: Request, source: Table, id: str, target: Table) -> dict[str, Any]:
    """GET …/objects/{type}/{id}/associations/{type}."""
    record = source.find(int(id)) if id.isdigit() else None
    if record is None:
        raise errors.not_found(id)
    return request.page_of(_targets(request.portal, source, record.id, target), 500, MOST_OF_ONE)


def labels(portal: Portal, source: Table, target: Table) -> dict[str, Any]:
    return {"results": [_kind(kind) for kind in portal.associations.between(source.type.name, target.type.name)]}


def _targets(portal: Portal, source: Table, id: int, target: Table) -> list[dict[str, Any]]:
    """Archived records are associated with nothing until they are restored."""
    found = portal.associations.of(source.type.name, id, target.type.name)
    if source.records[id].archived_at is not None:
        return []
    return [
        {"toObjectId": other, "associationTypes": [_kind(kind) for kind in kinds]}
        for other, kinds in found
        if other in target.records and target.records[other].archived_at is None
    ]


def _kind(kind: AssociationType) -> dict[str, Any]:
    return {"category": kind.category, "typeId": kind.id, "label": kind.label}


def _nothing(source: Table, id: str, target: Table) -> dict[str, Any]:
    return {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
        "message": f"No {target.type.singular} is associated with {source.type.singular} {id}.",
        "context": {
            "fromObjectId": [id],
            "fromObjectType": [source.type.name],
            "toObjectType": [target.type.name],
        },
    }


# Lists


def lists(request: Request) -> dict[str, Any]:
    """POST /crm/v3/lists/search: the only way to all lists; pages by offset."""
    query = request.json()
    count, offset = int(query.get("count") or 20), int(query.get("offset") or 0)
    if not 1 <= count <= MOST_LISTS:
        raise errors.invalid(f"count must be between 1 and {MOST_LISTS}")
    text = str(query.get("query") or "").lower()
    found = [each for each in request.portal.lists.values() if text in each.name.lower()]
    end = offset + count
    return {
        "offset": end,
        "hasMore": end < len(found),
        "lists": [each.shown() for each in found[offset:end]],
        "total": len(found),
    }


def one_list(portal: Portal, id: str) -> dict[str, Any]:
    return {"list": _segment(portal, id).shown()}


def members(request: Request, id: str) -> dict[str, Any]:
    """By record id. Archived records are no members while they are."""
    segment, portal = _segment(request.portal, id), request.portal
    limit, place = request.limit(100, MOST_MEMBERS), request.after()
    records = portal.table(segment.type_id).records
    there = [id for id in sorted(segment.members) if id in records and records[id].archived_at is None]
    found = [id for id in there if id > place][: limit + 1]
    results = [{"recordId": str(id), "membershipTimestamp": iso_micros(segment.members[id])} for id in found[:limit]]
    return request.page(results, found[limit - 1] if len(found) > limit else None, total=len(there))


def _segment(portal: Portal, id: str) -> Segment:
    found = portal.lists.get(int(id)) if id.isdigit() else None
    if found is None:
        raise errors.Refusal(404, f"List does not exist with ID {id}.", "OBJECT_NOT_FOUND")
    return found
