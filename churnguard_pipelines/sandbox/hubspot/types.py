"""The kinds of records that a portal has from the start: ids, scopes, and the properties each shows unasked."""

from __future__ import annotations

from dataclasses import dataclass

CREATED, MODIFIED, ID = "hs_createdate", "hs_lastmodifieddate", "hs_object_id"


@dataclass(frozen=True)
class ObjectType:
    """`name` stands in paths, `singular` in webhooks' subscription types, `id` is the objectTypeId."""

    name: str
    singular: str
    id: str
    scope: str
    shown: tuple[str, ...] = ()
    created: str = CREATED
    modified: str = MODIFIED

    @property
    def by_default(self) -> tuple[str, ...]:
        return (*self.shown, self.created, self.modified, ID)


def _engagement(name: str, singular: str, id: str) -> ObjectType:
    return ObjectType(name, singular, id, "crm.objects.contacts.read")


STANDARD = (
    ObjectType(
        "contacts",
        "contact",
        "0-1",
        "crm.objects.contacts.read",
        ("email", "firstname", "lastname"),
        "createdate",
        "lastmodifieddate",
    ),
    ObjectType("companies", "company", "0-2", "crm.objects.companies.read", ("domain", "name"), "createdate"),
    ObjectType(
        "deals",
        "deal",
        "0-3",
        "crm.objects.deals.read",
        ("amount", "closedate", "dealname", "dealstage", "pipeline"),
        "createdate",
    ),
    ObjectType(
        "tickets",
        "ticket",
        "0-5",
        "tickets",
        ("content", "hs_pipeline", "hs_pipeline_stage", "hs_ticket_category", "hs_ticket_priority", "subject"),
        "createdate",
    ),
    ObjectType("products", "product", "0-7", "e-commerce", ("description", "name", "price"), "createdate"),
    ObjectType(
        "line_items", "line_item", "0-8", "crm.objects.line_items.read", ("name", "quantity", "amount"), "createdate"
    ),
    _engagement("calls", "call", "0-48"),
    _engagement("emails", "email", "0-49"),
    _engagement("meetings", "meeting_event", "0-47"),
    _engagement("notes", "note", "0-46"),
    _engagement("tasks", "task", "0-27"),
)


def custom_type(portal_id: int, number: int, name: str) -> ObjectType:
    """An object that an account defines itself; its full name begins with the portal's id."""
    return ObjectType(f"p{portal_id}_{name}", name, f"2-{number}", "crm.objects.custom.read")
