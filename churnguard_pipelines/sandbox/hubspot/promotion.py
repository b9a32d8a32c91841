"""The marketing of a portal, made of the CRM's campaigns: lists of members, e-mails, events, forms."""

from __future__ import annotations

from random import Random
from uuid import UUID

from churnguard_pipelines.sandbox.business.crm import Crm, Record
from churnguard_pipelines.sandbox.hubspot.instants import iso
from churnguard_pipelines.sandbox.hubspot.mapping import owner_id, record_id
from churnguard_pipelines.sandbox.hubspot.marketing import counted
from churnguard_pipelines.sandbox.hubspot.portal import Portal
from churnguard_pipelines.sandbox.hubspot.segments import Segment

FORMS = ("Newsletter", "Request a demo", "Contact us")


def fill(crm: Crm, portal: Portal) -> None:
    """What the history had; nothing is added to it in life but what tests add."""
    rng = Random(f"{crm.business.seed}/{crm.business.profile.name}/hubspot")  # noqa: S311 - must come out the same again
    for campaign in crm.records("campaign"):
        _campaign(crm, portal, campaign, rng)
    people = list(crm.records("contact"))
    for number, name in enumerate(FORMS):
        _form(crm, portal, number, name, people, rng)
    customers = {record_id(each.id): each.created for each in people if each.values.get("last_seen")}
    at = crm.business.opened * 1000
    portal.lists[90] = Segment(90, "Users of the product", "0-1", "DYNAMIC", at, at, customers)


def _guid(portal: Portal, kind: int, number: int) -> str:
    return str(UUID(int=(portal.id << 96) | (kind << 32) | 4 << 76 | 8 << 60 | number))


def _campaign(crm: Crm, portal: Portal, campaign: Record, rng: Random) -> None:
    id, marketing, values = _guid(portal, 1, campaign.id), portal.marketing, campaign.values
    created, updated = campaign.created, campaign.modified
    marketing.campaigns[id] = {
        "id": id,
        "properties": {
            "hs_name": values["name"],
            "hs_start_date": values["start"],
            "hs_end_date": values["end"],
            "hs_campaign_status": values["status"].lower().replace(" ", "_"),
            "hs_owner": owner_id(values["owner"]),
            "hs_budget_items_sum_amount": str(values["budget"]),
            "hs_notes": None,
        },
        "createdAt": iso(created),
        "updatedAt": iso(updated),
    }
    members = [each for each in crm.records("campaign_member") if each.values["campaign"] == campaign.id]
    contacts = {record_id(each.values["contact"]): each.created for each in members if each.values.get("contact")}
    portal.lists[campaign.id] = Segment(
        campaign.id, f"Members of {values['name']}", "0-1", "MANUAL", created, updated, contacts
    )
    for part in range(3):
        email = str(48_000_000_000 + campaign.id * 10 + part)
        at = created + part * 86_400_000
        sent = rng.randrange(200, 5000)
        opened = rng.randrange(sent // 2)
        marketing.statistics[email] = counted(sent, opened, opened // 3, sent // 50, sent // 90)
        marketing.emails[email] = {
            "id": email,
            "name": f"{values['name']} {part + 1}",
            "subject": f"{values['name']}: part {part + 1}",
            "state": "PUBLISHED" if part < 2 else "DRAFT",
            "type": "BATCH_EMAIL",
            "campaign": id,
            "campaignName": values["name"],
            "language": "en",
            "from": {"fromName": "Marketing", "replyTo": "marketing@example.com"},
            "isPublished": part < 2,
            "isTransactional": False,
            "archived": False,
            "createdAt": iso(at),
            "updatedAt": iso(at),
            "publishDate": iso(at // 1000 * 1000),  # drafts have one too
        }
    if values["type"] in ("Webinar", "Conference"):
        event = str(300_000_000 + campaign.id)
        marketing.events[event] = {
            "objectId": event,
            "externalEventId": f"ext-{campaign.id}",
            "eventName": values["name"],
            "eventType": values["type"].upper(),
            "eventOrganizer": crm.business.profile.title,
            "eventDescription": None,
            "eventUrl": None,
            "eventStatus": "PAST",
            "startDateTime": f"{values['start']}T09:00:00Z",
            "endDateTime": f"{values['end']}T17:00:00Z",
            "eventCancelled": False,
            "eventCompleted": True,
            "registrants": len(members),
            "attendees": sum(each.values["status"] == "Responded" for each in members),
            "cancellations": 0,
            "noShows": sum(each.values["status"] != "Responded" for each in members),
            "customProperties": [],
            "appInfo": {"id": "1160452", "name": "Events"},
            "createdAt": iso(created),
            "updatedAt": iso(updated),
        }


def _form(crm: Crm, portal: Portal, number: int, name: str, people: list[Record], rng: Random) -> None:
    id, at = _guid(portal, 2, number), crm.business.opened * 1000
    portal.marketing.forms[id] = {
        "id": id,
        "name": name,
        "formType": "hubspot",
        "createdAt": iso(at),
        "updatedAt": iso(at),
        "archived": False,
        "fieldGroups": [
            {
                "groupType": "default_group",
                "richTextType": "text",
                "fields": [
                    {"objectTypeId": "0-1", "name": field, "label": field, "required": field == "email",
                     "hidden": False, "fieldType": "email" if field == "email" else "single_line_text"}
                    for field in ("email", "firstname")
                ],
            }
        ],
        "configuration": {"language": "en", "archivable": True, "editable": True, "cloneable": True},
        "displayOptions": {"theme": "default_style", "submitButtonText": "Submit"},
        "legalConsentOptions": {"type": "none"},
    }  # fmt: skip
    sent = sorted(rng.sample(people, min(len(people), 60)), key=lambda each: each.created, reverse=True)
    portal.marketing.submissions[id] = [
        {
            "submittedAt": each.created,
            "conversionId": _guid(portal, 3 + number, each.id),
            "pageUrl": f"https://{portal.id}.example.com/{number}",
            "values": [
                {"name": "email", "value": each.values["email"], "objectTypeId": "0-1"},
                {"name": "firstname", "value": each.values["first_name"], "objectTypeId": "0-1"},
            ],
        }
        for each in sent
        if each.values.get("email")
    ]
