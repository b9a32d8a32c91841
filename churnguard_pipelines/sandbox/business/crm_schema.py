"""What kinds of record a CRM has and what is known of each, in words of no provider.

Values: TEXT and its like are str; INTEGER int; NUMBER, MONEY and PERCENT float; BOOLEAN bool; DATE `2026-01-31`;
DATETIME milliseconds; PICKLIST str; MULTIPICKLIST `a;b`; REFERENCE the id (int) of a record of kind `to`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Type = Literal[
    "text", "textarea", "email", "phone", "url", "integer", "number", "money", "percent", "boolean", "date",
    "datetime", "picklist", "multipicklist", "reference",
]  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One property. A `calculated` one changes without its record being modified: a formula or a roll-up."""

    name: str
    type: Type
    label: str = ""
    values: tuple[str, ...] = ()  # of a picklist
    to: str = ""  # what a reference refers to
    calculated: bool = False
    custom: bool = False
    required: bool = False

    @property
    def title(self) -> str:
        return self.label or self.name.replace("_", " ").capitalize()


def _plain(type: Type, names: str) -> tuple[Field, ...]:
    return tuple(Field(name, type) for name in names.split())


def _link(name: str, to: str, required: bool = False) -> Field:
    return Field(name, "reference", to=to, required=required)


INDUSTRIES = ("Agriculture", "Banking", "Education", "Healthcare", "Manufacturing", "Media", "Retail", "Technology")
SOURCES = ("Web", "Phone inquiry", "Partner referral", "Purchased list", "Other")
LEAD_STATUSES = ("Open - not contacted", "Working - contacted", "Closed - converted", "Closed - not converted")
PRIORITIES = ("High", "Medium", "Low")
TASK_STATUSES = ("Not started", "In progress", "Completed", "Deferred")
TICKET_STATUSES = ("New", "Working", "Escalated", "Closed")
PLANS = ("Starter", "Team", "Business")
COMPETITORS = ("Initech", "Hooli", "Umbrella", "Soylent")
OWNER = _link("owner", "user")
WHO_AND_WHAT = (_link("contact", "contact"), _link("company", "company"), _link("deal", "deal"), OWNER)

SCHEMA: dict[str, tuple[Field, ...]] = {
    "user": (
        *_plain("text", "first_name last_name title"),
        Field("email", "email"),
        Field("active", "boolean"),
    ),
    "company": (
        Field("name", "text", required=True),
        *_plain("url", "domain"),
        Field("industry", "picklist", values=INDUSTRIES),
        Field("type", "picklist", values=("Prospect", "Customer", "Former customer", "Partner")),
        *_plain("integer", "employees"),
        *_plain("money", "annual_revenue"),
        *_plain("phone", "phone"),
        *_plain("text", "street city postal_code country"),
        *_plain("textarea", "description"),
        _link("parent", "company"),
        OWNER,
        Field("customer_id", "text", "Stripe customer", custom=True),
        Field("plan", "picklist", values=PLANS, custom=True),
        Field("renewal_date", "date", custom=True),
        Field("health", "number", "Health score", calculated=True, custom=True),
    ),
    "contact": (
        Field("last_name", "text", required=True),
        *_plain("text", "first_name title"),
        *_plain("email", "email"),
        *_plain("phone", "phone"),
        *_plain("text", "street city postal_code country"),
        Field("source", "picklist", values=SOURCES),
        Field("opted_out", "boolean"),
        _link("company", "company"),
        OWNER,
        Field("nps", "integer", "NPS", custom=True),
        Field("last_seen", "datetime", custom=True),
    ),
    "lead": (
        Field("last_name", "text", required=True),
        *_plain("text", "first_name title company_name"),
        *_plain("email", "email"),
        *_plain("phone", "phone"),
        Field("status", "picklist", values=LEAD_STATUSES),
        Field("source", "picklist", values=SOURCES),
        Field("converted", "boolean"),
        _link("converted_company", "company"),
        _link("converted_contact", "contact"),
        OWNER,
    ),
    "pipeline": (*_plain("text", "label of"), *_plain("integer", "position")),
    "stage": (
        Field("label", "text"),
        _link("pipeline", "pipeline"),
        *_plain("integer", "position"),
        *_plain("percent", "probability"),
        *_plain("boolean", "closed won"),
    ),
    "deal": (
        Field("name", "text", required=True),
        *_plain("money", "amount"),
        *_plain("date", "close_date"),
        _link("pipeline", "pipeline"),
        _link("stage", "stage"),
        *_plain("textarea", "description"),
        _link("company", "company"),
        _link("campaign", "campaign"),
        OWNER,
        Field("competitors", "multipicklist", values=COMPETITORS, custom=True),
        Field("days_open", "integer", "Days open", calculated=True, custom=True),
    ),
    "deal_change": (  # what was written over in a deal: `field` had the value `old` before
        _link("deal", "deal"),
        *_plain("text", "field old new"),
        _link("by", "user"),
    ),
    "product": (
        Field("name", "text", required=True),
        *_plain("text", "sku family"),
        *_plain("textarea", "description"),
        *_plain("money", "price"),
        *_plain("boolean", "active"),
    ),
    "line_item": (
        _link("deal", "deal", required=True),
        _link("product", "product"),
        *_plain("text", "name"),
        *_plain("number", "quantity"),
        *_plain("money", "price"),
        *_plain("money", "amount"),
    ),
    "ticket": (
        *_plain("text", "number subject"),
        *_plain("textarea", "description"),
        Field("status", "picklist", values=TICKET_STATUSES),
        Field("priority", "picklist", values=PRIORITIES),
        Field("source", "picklist", values=("Phone", "Email", "Web")),
        Field("closed_at", "datetime"),
        _link("company", "company"),
        _link("contact", "contact"),
        OWNER,
    ),
    "task": (
        *_plain("text", "subject"),
        *_plain("textarea", "body"),
        Field("status", "picklist", values=TASK_STATUSES),
        Field("priority", "picklist", values=PRIORITIES),
        *_plain("date", "due"),
        *WHO_AND_WHAT,
    ),
    "meeting": (
        *_plain("text", "subject location"),
        *_plain("textarea", "body"),
        *_plain("datetime", "start end"),
        *WHO_AND_WHAT,
    ),
    "call": (
        *_plain("text", "subject"),
        *_plain("textarea", "body"),
        Field("direction", "picklist", values=("INBOUND", "OUTBOUND")),
        *_plain("integer", "duration"),  # milliseconds
        *_plain("datetime", "at"),
        *WHO_AND_WHAT,
    ),
    "email": (
        *_plain("text", "subject"),
        *_plain("textarea", "body"),
        Field("direction", "picklist", values=("EMAIL", "INCOMING_EMAIL", "FORWARDED_EMAIL")),
        *_plain("datetime", "at"),
        *WHO_AND_WHAT,
    ),
    "note": (*_plain("textarea", "body"), *_plain("datetime", "at"), *WHO_AND_WHAT),
    "campaign": (
        Field("name", "text", required=True),
        Field("status", "picklist", values=("Planned", "In progress", "Completed", "Aborted")),
        Field("type", "picklist", values=("Conference", "Webinar", "Email", "Advertisement")),
        *_plain("date", "start end"),
        *_plain("money", "budget"),
        *_plain("boolean", "active"),
        OWNER,
    ),
    "campaign_member": (
        _link("campaign", "campaign", required=True),
        _link("contact", "contact"),
        _link("lead", "lead"),
        Field("status", "picklist", values=("Sent", "Responded")),
    ),
    "contract": (
        *_plain("text", "number"),
        _link("company", "company", required=True),
        Field("status", "picklist", values=("Draft", "In approval process", "Activated")),
        *_plain("date", "start"),
        *_plain("integer", "months"),
        OWNER,
    ),
    # A custom object: the workspaces of the product's database, as its `workspaces.id` numbers them
    "workspace": (
        Field("name", "text", required=True),
        Field("number", "integer", custom=True),
        Field("seats", "integer", custom=True),
        Field("last_login", "datetime", custom=True),
        Field("plan", "picklist", values=PLANS, custom=True),
        Field("company", "reference", to="company", custom=True),
    ),
}  # fmt: skip

OF_ACCOUNT: dict[str, dict[str, tuple[Field, ...]]] = {
    "acme": {"company": (Field("churn_risk", "percent", custom=True),)},
    "globex": {"company": (Field("region", "picklist", values=("DACH", "BeNeLux", "Nordics"), custom=True),)},
}  # what only one account has

PARTS = (("deal", "line_item"), ("deal", "deal_change"), ("campaign", "campaign_member"))  # go and come with the whole
HISTORY_FIELDS = ("stage", "amount", "close_date")  # of a deal: each change is kept as a `deal_change`
ASSOCIATED = (
    ("contact", "company"), ("deal", "company"), ("deal", "contact"), ("ticket", "company"), ("ticket", "contact"),
    ("task", "contact"), ("call", "contact"), ("meeting", "contact"), ("email", "contact"), ("note", "company"),
    ("line_item", "deal"), ("workspace", "company"),
)  # fmt: skip
LABELS: dict[tuple[str, str], tuple[str, ...]] = {
    ("deal", "contact"): ("Decision maker", "Billing contact", "Influencer"),
    ("contact", "company"): ("Primary", "Former employee", "Consultant"),
}
