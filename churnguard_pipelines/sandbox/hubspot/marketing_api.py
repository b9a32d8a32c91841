"""/marketing/v3/… and the submissions of /form-integrations/v1, whose instants are epoch milliseconds."""

from __future__ import annotations

from typing import Any

from churnguard_pipelines.sandbox.hubspot import errors
from churnguard_pipelines.sandbox.hubspot.marketing import Rows
from churnguard_pipelines.sandbox.hubspot.requests import Request


def forms(request: Request) -> dict[str, Any]:
    return request.page_of(_there(request, request.portal.marketing.forms), 50, 500)


def submissions(request: Request, form: str) -> dict[str, Any]:
    """Newest first; its `after` is opaque and says nothing of time."""
    marketing = request.portal.marketing
    _one(marketing.forms, form)
    return request.page_of(marketing.submissions.get(form, []), 20, 50)


def emails(request: Request) -> dict[str, Any]:
    marketing = request.portal.marketing
    found = _there(request, marketing.emails)
    if request.flag("includeStats"):
        found = [{**each, "stats": marketing.statistics[each["id"]]} for each in found]
    return request.page_of(found, 10, 100, total=len(found))


def email(request: Request, id: str) -> dict[str, Any]:
    marketing = request.portal.marketing
    found = _one(marketing.emails, id)
    return {**found, "stats": marketing.statistics[id]} if request.flag("includeStats") else found


def email_statistics(request: Request, id: str) -> dict[str, Any]:
    _one(request.portal.marketing.emails, id)
    return request.portal.marketing.statistics[id]


def statistics(request: Request) -> dict[str, Any]:
    """Of all e-mails published in a time that both ends must be given of, or of those named, added up."""
    if request.one("startTimestamp") is None or request.one("endTimestamp") is None:
        raise errors.invalid("startTimestamp and endTimestamp are required")
    marketing = request.portal.marketing
    start, end = request.one("startTimestamp") or "", request.one("endTimestamp") or ""
    named = request.many("emailIds")
    found = [
        id
        for id, each in marketing.emails.items()
        if id in named or (not named and each["isPublished"] and start <= each["publishDate"] <= end)
    ]
    total: dict[str, int] = {}
    for id in found:
        for name, number in marketing.statistics[id]["counters"].items():
            total[name] = total.get(name, 0) + number
    aggregate = {"counters": total, "ratios": {}, "deviceBreakdown": {}, "qualifierStats": {}}
    return {"aggregate": aggregate, "campaignAggregations": {}, "emails": [int(id) for id in found]}


def campaigns(request: Request) -> dict[str, Any]:
    """Without `properties` only ids and dates."""
    found = [_campaign(request, each) for each in request.portal.marketing.campaigns.values()]
    return request.page_of(found, 50, 100, total=len(found))


def campaign(request: Request, id: str) -> dict[str, Any]:
    return _campaign(request, _one(request.portal.marketing.campaigns, id))


def events(request: Request) -> dict[str, Any]:
    found = list(request.portal.marketing.events.values())
    return request.page_of(found, 10, 100, total=len(found))


def event(request: Request, id: str) -> dict[str, Any]:
    return _one(request.portal.marketing.events, id)


def _campaign(request: Request, whole: dict[str, Any]) -> dict[str, Any]:
    names = request.many("properties")
    return {**whole, "properties": {name: whole["properties"].get(name) for name in names}}


def _there(request: Request, rows: Rows) -> list[dict[str, Any]]:
    archived = request.flag("archived")
    return [each for each in rows.values() if each["archived"] is archived]


def _one(rows: Rows, id: str) -> dict[str, Any]:
    found = rows.get(id)
    if found is None:
        raise errors.not_found(id)
    return found
