"""What describes a portal: properties, schemas of custom objects, pipelines, owners, the account."""

from __future__ import annotations

from typing import Any

from churnguard_pipelines.sandbox.hubspot import errors
from churnguard_pipelines.sandbox.hubspot.instants import iso
from churnguard_pipelines.sandbox.hubspot.limits import Quota
from churnguard_pipelines.sandbox.hubspot.portal import Portal, Table
from churnguard_pipelines.sandbox.hubspot.requests import Request


def properties(request: Request, table: Table) -> dict[str, Any]:
    archived = request.flag("archived")
    found = table.properties.values()
    return {"results": [each.shown() for each in found if (each.archived_at is not None) is archived]}


def one_property(table: Table, name: str) -> dict[str, Any]:
    found = table.properties.get(name)
    if found is None or found.archived_at is not None:
        raise errors.Refusal(404, f"Property {name} does not exist", "OBJECT_NOT_FOUND")
    return found.shown()


def schemas(portal: Portal) -> dict[str, Any]:
    """The custom objects; HubSpot's own are not among them."""
    return {"results": [schema(portal, portal.tables[name]) for name in portal.schemas]}


def schema(portal: Portal, table: Table) -> dict[str, Any]:
    kind = table.type
    described = dict(portal.schemas.get(kind.name) or {"labels": {}, "created": 0, "updated": 0})
    created, updated = described.pop("created"), described.pop("updated")
    own = [kind for kind in portal.associations.types.values() if table.type.name in (kind.source, kind.target)]
    return {
        **described,
        "archived": False,
        "id": kind.id.partition("-")[2],
        "fullyQualifiedName": kind.name,
        "createdAt": iso(created),
        "updatedAt": iso(updated),
        "objectTypeId": kind.id,
        "properties": [each.shown() for each in table.properties.values() if each.archived_at is None],
        "associations": [
            {
                "fromObjectTypeId": portal.tables[each.source].type.id,
                "toObjectTypeId": portal.tables[each.target].type.id,
                "name": each.label or f"{each.source}_to_{each.target}",
                "cardinality": "ONE_TO_MANY",
                "inverseCardinality": "ONE_TO_MANY",
                "id": str(each.id),
                "createdAt": None,
                "updatedAt": None,
            }
            for each in own
            if each.source in portal.tables and each.target in portal.tables
        ],
        "name": kind.singular,
    }


def pipelines(portal: Portal, table: Table) -> dict[str, Any]:
    return {"results": portal.pipelines.get(table.type.name, [])}


def pipeline(portal: Portal, table: Table, id: str, stages: bool) -> dict[str, Any]:
    for each in portal.pipelines.get(table.type.name, []):
        if each["id"] == id:
            return {"results": each["stages"]} if stages else each
    raise errors.Refusal(404, f"Pipeline {id} not found", "OBJECT_NOT_FOUND")


def owners(request: Request) -> dict[str, Any]:
    archived = request.flag("archived")
    email = request.one("email")
    found = [
        each
        for each in request.portal.owners
        if each["archived"] is archived and (email is None or each["email"] == email)
    ]
    return request.page_of(found, 100, 500)


def owner(portal: Portal, id: str) -> dict[str, Any]:
    for each in portal.owners:
        if each["id"] == id:
            return each
    raise errors.not_found(id)


def account(portal: Portal) -> dict[str, Any]:
    return {
        "portalId": portal.id,
        "accountType": "STANDARD",
        "timeZone": "Etc/UTC",
        "companyCurrency": portal.currency,
        "additionalCurrencies": [],
        "utcOffset": "+00:00",
        "utcOffsetMilliseconds": 0,
        "uiDomain": "app.hubspot.com",
        "dataHostingLocation": "na1",
    }


def usage(portal: Portal, quota: Quota) -> dict[str, Any]:
    """Of all private apps together."""
    at = portal.clock()
    return {
        "results": [
            {
                "name": "private-apps-api-calls-daily",
                "usageLimit": portal.limits.daily,
                "currentUsage": quota.today,
                "collectedAt": iso(at),
                "fetchStatus": "SUCCESS",
                "resetsAt": iso((at // 86_400_000 + 1) * 86_400_000),
            }
        ]
    }
