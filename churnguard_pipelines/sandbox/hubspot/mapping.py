"""How the business's CRM is spelled in HubSpot: kinds of records, names and types of their properties, values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from churnguard_pipelines.sandbox.business.crm_schema import Field
from churnguard_pipelines.sandbox.hubspot.instants import iso_millis
from churnguard_pipelines.sandbox.hubspot.records import Property

KINDS = {
    "company": "companies",
    "contact": "contacts",
    "deal": "deals",
    "ticket": "tickets",
    "product": "products",
    "line_item": "line_items",
    "task": "tasks",
    "meeting": "meetings",
    "call": "calls",
    "email": "emails",
    "note": "notes",
    "workspace": "workspaces",  # a custom object, behind the portal's prefix
}
CUSTOM = "workspace"
ID_FROM, ID_STEP = 20_000_000_000, 3

# Fields that HubSpot has under another name; others keep theirs, and those that are None it has not
NAMES: dict[str, dict[str, str | None]] = {
    "company": {
        "employees": "numberofemployees",
        "annual_revenue": "annualrevenue",
        "street": "address",
        "postal_code": "zip",
        "parent": "hs_parent_company_id",
    },
    "contact": {
        "first_name": "firstname",
        "last_name": "lastname",
        "title": "jobtitle",
        "street": "address",
        "postal_code": "zip",
        "source": "lead_source",
        "opted_out": "hs_email_optout",
        "company": "associatedcompanyid",
    },
    "deal": {
        "name": "dealname",
        "close_date": "closedate",
        "stage": "dealstage",
        "company": None,
        "campaign": "hs_campaign",
    },
    "ticket": {
        "number": "ticket_number",
        "description": "content",
        "status": "hs_pipeline_stage",
        "priority": "hs_ticket_priority",
        "source": "source_type",
        "closed_at": "closed_date",
        "company": None,
        "contact": None,
    },
    "product": {"sku": "hs_sku", "family": "hs_product_type", "active": "hs_active"},
    "line_item": {"deal": None, "product": "hs_product_id"},
    "task": {"due": "hs_timestamp"},
    "meeting": {"subject": "hs_meeting_title", "start": "hs_meeting_start_time", "end": "hs_meeting_end_time"},
    "call": {"subject": "hs_call_title", "at": "hs_timestamp"},
    "email": {"at": "hs_timestamp", "body": "hs_email_text"},
    "note": {"at": "hs_timestamp", "body": "hs_note_body"},
    "workspace": {"company": None},
}
ACTIVITIES = ("task", "meeting", "call", "email", "note")
TYPES = {
    "integer": "number",
    "number": "number",
    "money": "number",
    "percent": "number",
    "boolean": "bool",
    "date": "date",
    "datetime": "datetime",
    "picklist": "enumeration",
    "multipicklist": "enumeration",
    "phone": "phone_number",
}
FIELD_TYPES = {"textarea": "textarea", "multipicklist": "checkbox", "email": "text", "money": "number"}
Values = dict[str, str | None]


@dataclass(frozen=True)
class Mapped:
    """One field as a property."""

    name: str
    field: Field
    text: Callable[[Any], str]

    def property(self, at: int) -> Property:
        options: tuple[tuple[str, str | None], ...] = tuple((code(value), value) for value in self.field.values)
        if options and self.name == "lead_source":
            options = (*options, ("legacy_import", None))  # labels may be missing
        if self.name in ("hubspot_owner_id", "hs_pipeline_stage"):
            options = ()
        return Property(
            self.name,
            "datetime" if self.name in _MOMENTS else TYPES.get(self.field.type, "string"),
            None if self.name == "hs_campaign" else self.field.title,
            FIELD_TYPES.get(self.field.type),
            options=options,
            defined_by_hubspot=not self.field.custom,
            calculated=self.field.calculated,
            formula=f"[properties.{self.name}_inputs]" if self.field.calculated else None,
            created=at,
            updated=at,
        )


_MOMENTS = ("closedate", "hs_timestamp", "closed_date")


def code(label: str) -> str:
    """A picklist's value as HubSpot stores it."""
    return label.upper().replace(" ", "_").replace("-", "").replace("__", "_")


def record_id(id: int) -> int:
    """A pure function of the CRM's own, so that a restart gives the same; beyond 32 bits, as HubSpot's are."""
    return ID_FROM + ID_STEP * id


def mapped(kind: str, field: Field) -> Mapped | None:
    """None for what HubSpot knows by an association alone."""
    if field.name == "owner":
        return Mapped("hubspot_owner_id", field, owner_id)
    name = NAMES[kind].get(field.name, field.name)
    if kind in ACTIVITIES and field.name not in NAMES[kind]:
        if field.name in ("contact", "company", "deal"):
            return None
        name = f"hs_{kind}_{field.name}" if not field.custom else field.name
    return None if name is None else Mapped(name, field, _text(kind, name, field))


def owner_id(user: Any) -> str:
    return str(70_000_000 + int(user))


def pipeline_id(pipeline: Any) -> str:
    return "default" if int(pipeline) == 1 else str(600_000 + int(pipeline))


def stage_id(stage: Any) -> str:
    return str(900_000 + int(stage))


def _text(kind: str, name: str, field: Field) -> Callable[[Any], str]:
    if name == "pipeline":
        return pipeline_id
    if name == "dealstage":
        return stage_id
    if name in _MOMENTS and field.type == "date":
        return lambda value: f"{value}T00:00:00.000Z"
    match field.type:
        case "boolean":
            return lambda value: "true" if value else "false"
        case "datetime":
            return iso_millis
        case "picklist":
            return code
        case "multipicklist":
            return lambda value: ";".join(code(each) for each in value.split(";"))
        case "reference":
            return lambda value: str(record_id(value))
        case "integer" | "number" | "money" | "percent":
            return _number
    return str


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
