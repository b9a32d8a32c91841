"""HubSpot's objects and their columns, each with how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from churnguard_pipelines.connectors.sdk import Object
from churnguard_pipelines.connectors.sdk.columns import columns
from churnguard_pipelines.records import BOOLEAN, JSON, TEXT, TIMESTAMP, Column

HOUR = 3600 * 1000
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class CrmOptions:
    """A CRM object. ``modified``, ``created``: the properties by which search finds what changed and what is new."""

    modified: str = "hs_lastmodifieddate"
    created: str = "hs_createdate"


@dataclass(frozen=True, slots=True)
class PairOptions:
    """Associations from records of one type to records of another. ``sweep_every``: milliseconds after which all are
    read again, as no date tells that one was made or removed."""

    source: str
    target: str
    sweep_every: int = DAY


class Listing(StrEnum):
    """Lists of which each has its own way."""

    OWNERS = "owners"
    PIPELINES = "pipelines"
    STAGES = "pipeline_stages"
    LISTS = "lists"
    MEMBERSHIPS = "list_memberships"
    EMAILS = "marketing_emails"
    EVENTS = "marketing_events"
    CAMPAIGNS = "campaigns"
    FORMS = "forms"
    SUBMISSIONS = "form_submissions"


@dataclass(frozen=True, slots=True)
class ListingOptions:
    """``every``: milliseconds between two complete reads, where one takes many calls."""

    listing: Listing
    every: int = 0


TYPE_IDS: Mapping[str, str] = {
    "0-1": "contacts", "0-2": "companies", "0-3": "deals", "0-5": "tickets", "0-7": "products", "0-8": "line_items",
    "0-27": "tasks", "0-46": "notes", "0-47": "meetings", "0-48": "calls", "0-49": "emails",
}  # fmt: skip
"""developers.hubspot.com/docs/guides/crm/understanding-the-crm#object-type-ids"""
SINGULAR: Mapping[str, str] = {
    "contact": "contacts", "company": "companies", "deal": "deals", "ticket": "tickets", "product": "products",
    "line_item": "line_items", "task": "tasks", "note": "notes", "meeting": "meetings", "call": "calls",
    "email": "emails",
}  # fmt: skip
"""As webhooks name the types."""

CUSTOM_COLUMNS = (
    Column("created_at", TIMESTAMP, "createdAt"),
    Column("updated_at", TIMESTAMP, "updatedAt"),
    Column("archived", BOOLEAN),
    Column("properties", JSON),
)
"""Of every record: what else it has are properties, which the account's view shows in their own types."""


def crm(name: str, *, options: CrmOptions = CrmOptions(), **kinds: str) -> Object:
    made = (*CUSTOM_COLUMNS, *columns("properties.", **kinds))
    return Object(name, name, made, options=options, created_column="created_at", modified_column="updated_at")


PAIR_COLUMNS = (Column("from_id", TEXT), Column("to_id", TEXT), Column("labels", JSON), Column("types", JSON))


def pair(source: str, target: str, *, sweep_every: int = DAY) -> Object:
    return Object(
        f"{source}_{target}",
        f"{source}/{target}",
        PAIR_COLUMNS,
        options=PairOptions(source, target, sweep_every),
        created_column="",
    )


def listing(kind: Listing, *, key: str = "id", every: int = 0, created: str = "created_at", **kinds: str) -> Object:
    options = ListingOptions(kind, every)
    return Object(kind.value, kind.value, columns(**kinds), key=key, options=options, created_column=created)


_STANDARD = CrmOptions(created="createdate")
_CONTACT = CrmOptions(modified="lastmodifieddate", created="createdate")
_ENGAGED_WITH = ("contacts", "companies", "deals", "tickets")
_OWNED = "owner_id=hubspot_owner_id"
_AT = "at=hs_timestamp"

OBJECTS: tuple[Object, ...] = (
    crm(
        "contacts", options=_CONTACT,
        TEXT=f"email firstname lastname phone company lifecyclestage lead_status=hs_lead_status {_OWNED}",
    ),
    crm("companies", options=_STANDARD, TEXT=f"name domain industry country lifecyclestage {_OWNED}"),
    crm(
        "deals", options=_STANDARD, TEXT=f"dealname dealstage pipeline {_OWNED}", NUMERIC="amount",
        TIMESTAMP="closedate",
    ),
    crm(
        "tickets", options=_STANDARD,
        TEXT=f"subject pipeline=hs_pipeline stage=hs_pipeline_stage priority=hs_ticket_priority {_OWNED}",
    ),
    crm(
        "line_items", options=_STANDARD, TEXT="name product_id=hs_product_id sku=hs_sku",
        NUMERIC="quantity price amount",
    ),
    crm("products", options=_STANDARD, TEXT="name sku=hs_sku", NUMERIC="price"),
    crm("calls", TEXT=f"title=hs_call_title status=hs_call_status {_OWNED}", TIMESTAMP=_AT),
    crm("emails", TEXT=f"subject=hs_email_subject direction=hs_email_direction {_OWNED}", TIMESTAMP=_AT),
    crm("meetings", TEXT=f"title=hs_meeting_title outcome=hs_meeting_outcome {_OWNED}", TIMESTAMP=_AT),
    crm("notes", TEXT=f"body=hs_note_body {_OWNED}", TIMESTAMP=_AT),
    crm(
        "tasks", TEXT=f"subject=hs_task_subject status=hs_task_status priority=hs_task_priority {_OWNED}",
        TIMESTAMP=_AT,
    ),
    pair("contacts", "companies"),
    pair("companies", "companies"),
    *(pair("deals", target) for target in ("contacts", "companies", "line_items", "tickets")),
    *(pair("tickets", target) for target in ("contacts", "companies")),
    *(
        pair(source, target, sweep_every=7 * DAY)
        for source in ("calls", "emails", "meetings", "notes", "tasks")
        for target in _ENGAGED_WITH
    ),
    listing(
        Listing.OWNERS, TEXT="email first_name=firstName last_name=lastName type user_id=userId", BOOLEAN="archived",
        TIMESTAMP="created_at=createdAt updated_at=updatedAt", JSON="teams",
    ),
    listing(
        Listing.PIPELINES, key="key", TEXT="pipeline_id=id object_type label", BIGINT="display_order=displayOrder",
        BOOLEAN="archived", TIMESTAMP="created_at=createdAt updated_at=updatedAt",
    ),
    listing(
        Listing.STAGES, key="key", TEXT="stage_id=id pipeline_id object_type label",
        BIGINT="display_order=displayOrder", BOOLEAN="archived",
        TIMESTAMP="created_at=createdAt updated_at=updatedAt", JSON="metadata",
    ),
    listing(
        Listing.LISTS, key="listId",
        TEXT="name object_type_id=objectTypeId processing_type=processingType processing_status=processingStatus",
        TIMESTAMP="created_at=createdAt updated_at=updatedAt", JSON="additional_properties=additionalProperties",
    ),
    listing(
        Listing.MEMBERSHIPS, key="key", every=HOUR, created="", TEXT="list_id record_id=recordId",
        TIMESTAMP="member_since=membershipTimestamp",
    ),
    listing(
        Listing.EMAILS,
        TEXT="name subject state type campaign=campaign campaign_name=campaignName",
        BIGINT="sent=stats.counters.sent delivered=stats.counters.delivered opened=stats.counters.open "
        "clicked=stats.counters.click bounced=stats.counters.bounce unsubscribed=stats.counters.unsubscribed "
        "reported_as_spam=stats.counters.spamreport",
        TIMESTAMP="created_at=createdAt updated_at=updatedAt published_at=publishDate", JSON="stats",
    ),
    listing(
        Listing.EVENTS, key="objectId", TEXT="event_name=eventName event_type=eventType "
        "event_organizer=eventOrganizer event_status=eventStatus external_id=externalEventId",
        BIGINT="registrants attendees cancellations no_shows=noShows",
        TIMESTAMP="created_at=createdAt updated_at=updatedAt start_at=startDateTime end_at=endDateTime",
    ),
    listing(
        Listing.CAMPAIGNS,
        TEXT="name=properties.hs_name status=properties.hs_campaign_status",
        TIMESTAMP="created_at=createdAt updated_at=updatedAt", JSON="properties",
    ),
    listing(
        Listing.FORMS, TEXT="name form_type=formType", BOOLEAN="archived",
        TIMESTAMP="created_at=createdAt updated_at=updatedAt",
    ),
    listing(
        Listing.SUBMISSIONS, key="key", created="submitted_at", TEXT="form_id page_url=pageUrl",
        TIMESTAMP="submitted_at=submitted_at", JSON="values",
    ),
)  # fmt: skip
"""Every object that any account may have. Statistics of marketing e-mails are columns of the e-mails."""
