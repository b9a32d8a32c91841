"""The sObjects: which of the CRM's records each shows, and its fields."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from churnguard_pipelines.sandbox.business.crm import Association, Crm, Record
from churnguard_pipelines.sandbox.business.crm_schema import LABELS, LEAD_STATUSES, SCHEMA
from churnguard_pipelines.sandbox.salesforce import ids
from churnguard_pipelines.sandbox.salesforce.fields import SField, Source, custom, of, reference, whole_second

PREFIXES = {
    "user": "005", "company": "001", "contact": "003", "lead": "00Q", "pipeline": "012", "stage": "0Jv", "deal": "006",
    "deal_change": "017", "product": "01t", "line_item": "00k", "ticket": "500", "task": "00T", "call": "00T",
    "email": "00T", "meeting": "00U", "note": "00P", "campaign": "701", "campaign_member": "00v", "contract": "800",
    "workspace": "a00", "OpportunityContactRole": "00K", "ContentDocumentLink": "06A",
}  # fmt: skip
NAMES = {"user": "User", "company": "Account", "contact": "Contact", "deal": "Opportunity", "campaign": "Campaign",
         "lead": "Lead", "product": "Product2", "pipeline": "RecordType", "contract": "Contract"}  # fmt: skip
TASKS = ("task", "call", "email")  # what the object Task shows; their ids interleave


@dataclass(frozen=True)
class SObject:
    """`kinds`: of the CRM's records. `bulk`: the Bulk API takes it. `stamped`: it has the audit fields."""

    name: str
    kinds: tuple[str, ...]
    label: str
    own: tuple[SField, ...]
    bulk: bool = True
    deletable: bool = True
    stamped: bool = True
    custom: bool = False
    restricted: str | None = None  # what a query must say of the object, in Salesforce's words
    extensible: bool = False  # with the custom fields of its kind

    @property
    def prefix(self) -> str:
        return PREFIXES[self.kinds[0]] if self.kinds else PREFIXES[self.name]

    def id_of(self, record: Source) -> str:
        number = record.id
        if len(self.kinds) > 1 and isinstance(record, Record):
            number = record.id * len(self.kinds) + self.kinds.index(record.kind)
        return ids.make(self.prefix, number)

    def records(self, crm: Crm, deleted: bool) -> Iterator[Source]:
        """Those that are there, or with those in the recycle bin too."""
        archived = None if deleted else False
        if self.name == "OpportunityContactRole":
            found: Iterator[Source] = crm.links("deal", "contact", archived=archived)
        else:
            found = chain.from_iterable(crm.records(kind, archived=archived) for kind in self.kinds)
        if not deleted:
            return found
        emptied = crm.now - RECYCLED
        return (each for each in found if each.archived_at is None or each.archived_at > emptied)

    def fields(self, crm: Crm) -> dict[str, SField]:
        """By name, as the account has them now."""
        found = {"Id": SField("Id", "id", lambda crm, record: self.id_of(record), updateable=False, nillable=False)}
        if self.deletable:
            found["IsDeleted"] = SField("IsDeleted", "boolean", _deleted, updateable=False, nillable=False)
        found |= {field.name: field for field in self.own}
        if self.stamped:
            found |= {field.name: field for field in STAMPS}
        if self.extensible:
            defined = [custom(each, PREFIXES, NAMES) for each in crm.fields[self.kinds[0]] if each.custom]
            found |= {field.name: field for field in defined}
        return found


RECYCLED = 15 * 86_400_000  # milliseconds that a deleted record stays in the bin


def _deleted(crm: Crm, record: Source) -> bool:
    return record.archived_at is not None


def _of_user(name: str) -> Any:
    return lambda crm, record: ids.make("005", getattr(record, name, 1))


CREATED = SField("CreatedDate", "datetime", lambda crm, r: whole_second(r.created), updateable=False, nillable=False)
STAMPS = (
    CREATED,
    SField("CreatedById", "reference", _of_user("created_by"), to=("User",), updateable=False, nillable=False),
    SField("LastModifiedDate", "datetime", lambda crm, r: whole_second(r.modified), updateable=False, nillable=False),
    SField("LastModifiedById", "reference", _of_user("modified_by"), to=("User",), updateable=False, nillable=False),
    SField("SystemModstamp", "datetime", lambda crm, r: whole_second(r.modified), updateable=False, nillable=False),
)


def _kinds_field(kind: str, name: str) -> Any:
    return next(each for each in SCHEMA[kind] if each.name == name)


def _plain(kind: str, pairs: str) -> tuple[SField, ...]:
    """`Phone:phone Industry:industry …`: fields whose type and values are the neutral ones."""
    made = []
    for pair in pairs.split():
        name, _, source = pair.partition(":")
        field = _kinds_field(kind, source)
        if field.type == "reference":
            made.append(SField(name, "reference", reference(source, PREFIXES[field.to]), to=(NAMES[field.to],),
                               source=source))  # fmt: skip
        else:
            type = {"text": "string", "integer": "int", "number": "double", "money": "currency"}.get(
                field.type, field.type
            )
            made.append(SField(name, type, of(source), values=field.values, nillable=not field.required,
                               source=source))  # fmt: skip
    return tuple(made)


def _address(begins: str, name: str) -> tuple[SField, ...]:
    parts = ("street", "city", "postal_code", "country")
    names = ("street", "city", "postalCode", "country")

    def whole(crm: Crm, record: Record) -> dict[str, Any] | None:
        found = {shown: record.values.get(part) for shown, part in zip(names, parts, strict=True)}
        if not any(found.values()):
            return None
        return {**found, "state": None, "geocodeAccuracy": None, "latitude": None, "longitude": None}

    single = _plain("company", f"{begins}Street:street {begins}City:city {begins}PostalCode:postal_code "
                               f"{begins}Country:country")  # fmt: skip
    street = SField(f"{begins}Street", "textarea", of("street"), source="street")
    return (street, *single[1:], SField(name, "address", whole, updateable=False))


def _person_name(crm: Crm, record: Record) -> str:
    return " ".join(filter(None, (record.values.get("first_name"), record.values.get("last_name"))))


PERSON_NAME = SField("Name", "string", _person_name, updateable=False)


def _master(prefix: str) -> SField:
    def read(crm: Crm, record: Record) -> str | None:
        return None if record.merged_into is None else ids.make(prefix, record.merged_into)

    return SField("MasterRecordId", "reference", read, to=(), updateable=False)


def _stage(name: str) -> Any:
    def read(crm: Crm, record: Record) -> Any:
        stage = crm.get("stage", record.values.get("stage", 0))
        return None if stage is None else stage.values.get(name)

    return read


def _history_value(name: str) -> Any:
    def read(crm: Crm, record: Record) -> str | None:
        value = record.values.get(name)
        if record.values["field"] == "stage" and isinstance(value, int):
            stage = crm.get("stage", value)
            return None if stage is None else stage.values["label"]
        return None if value is None else str(value)

    return read


def _what(crm: Crm, record: Record) -> str | None:
    deal, company = record.values.get("deal"), record.values.get("company")
    if deal is not None:
        return ids.make("006", deal)
    return None if company is None else ids.make("001", company)


def _end(which: str, prefix: str) -> Any:
    def read(crm: Crm, record: Association) -> str:
        return ids.make(prefix, getattr(record, which)[1])

    return read


def _subtype(crm: Crm, record: Record) -> str:
    return record.kind.capitalize()


def _task_status(crm: Crm, record: Record) -> str:
    return str(record.values.get("status", "Completed"))


def _body(crm: Crm, record: Record) -> str:
    return base64.b64encode(str(record.values.get("body", "")).encode()).decode()


HISTORY = {"stage": "StageName", "amount": "Amount", "close_date": "CloseDate"}
ACTIVITY = (SField("WhoId", "reference", reference("contact", "003"), to=("Contact", "Lead"), source="contact"),
            SField("WhatId", "reference", _what, to=("Account", "Opportunity"), source="company"),
            SField("AccountId", "reference", reference("company", "001"), to=("Account",),
                   updateable=False, source="company"))  # fmt: skip

SOBJECTS: tuple[SObject, ...] = (
    SObject("Account", ("company",), "Account", (
        _master("001"),
        *_plain("company", "Name:name Type:type ParentId:parent Phone:phone Website:domain Industry:industry "
                "AnnualRevenue:annual_revenue NumberOfEmployees:employees Description:description OwnerId:owner"),
        *_address("Billing", "BillingAddress"),
    ), extensible=True),
    SObject("Contact", ("contact",), "Contact", (
        _master("003"), PERSON_NAME,
        *_plain("contact", "LastName:last_name FirstName:first_name Title:title Email:email Phone:phone "
                "LeadSource:source HasOptedOutOfEmail:opted_out AccountId:company OwnerId:owner"),
        *_address("Mailing", "MailingAddress"),
    ), extensible=True),
    SObject("Lead", ("lead",), "Lead", (
        _master("00Q"), PERSON_NAME,
        *_plain("lead", "LastName:last_name FirstName:first_name Title:title Company:company_name Email:email "
                "Phone:phone LeadSource:source IsConverted:converted ConvertedAccountId:converted_company "
                "ConvertedContactId:converted_contact OwnerId:owner"),
        SField("Status", "picklist", of("status"), values=LEAD_STATUSES, source="status"),
    ), extensible=True),
    SObject("Opportunity", ("deal",), "Opportunity", (
        *_plain("deal", "Name:name AccountId:company Amount:amount CloseDate:close_date CampaignId:campaign "
                "OwnerId:owner Description:description RecordTypeId:pipeline"),
        SField("StageName", "picklist", _stage("label"), source="stage", values=("Prospecting", "Proposal",
               "Negotiation", "Closed won", "Closed lost", "Upcoming", "Renewed", "Churned")),
        SField("Probability", "percent", _stage("probability"), source="stage"),
        SField("IsClosed", "boolean", _stage("closed"), updateable=False, source="stage"),
        SField("IsWon", "boolean", _stage("won"), updateable=False, source="stage"),
    ), extensible=True),
    SObject("OpportunityLineItem", ("line_item",), "Opportunity Product", (
        SField("OpportunityId", "reference", reference("deal", "006"), to=("Opportunity",)),
        *_plain("line_item", "Product2Id:product Name:name Quantity:quantity UnitPrice:price TotalPrice:amount"),
    )),
    SObject("OpportunityContactRole", (), "Opportunity Contact Role", (
        SField("OpportunityId", "reference", _end("source", "006"), to=("Opportunity",)),
        SField("ContactId", "reference", _end("target", "003"), to=("Contact",)),
        SField("Role", "picklist", lambda crm, r: r.label, values=LABELS["deal", "contact"]),
        SField("IsPrimary", "boolean", lambda crm, r: r.label == "Decision maker"),
    )),
    SObject("OpportunityFieldHistory", ("deal_change",), "Opportunity Field History", (
        SField("OpportunityId", "reference", reference("deal", "006"), to=("Opportunity",)),
        SField("CreatedById", "reference", reference("by", "005"), to=("User",)),
        CREATED,
        SField("DataType", "picklist", lambda crm, r: "DynamicEnum"),
        SField("Field", "picklist", lambda crm, r: HISTORY[r.values["field"]]),
        SField("OldValue", "anyType", _history_value("old"), filterable=False),
        SField("NewValue", "anyType", _history_value("new"), filterable=False),
    ), stamped=False),
    SObject("Case", ("ticket",), "Case", (
        _master("500"),
        *_plain("ticket", "CaseNumber:number Subject:subject Description:description Status:status Priority:priority "
                "Origin:source ClosedDate:closed_at AccountId:company ContactId:contact OwnerId:owner"),
        SField("IsClosed", "boolean", lambda crm, r: r.values.get("status") == "Closed",
               updateable=False, source="status"),
    ), extensible=True),
    SObject("Task", TASKS, "Task", (
        *_plain("task", "Subject:subject Description:body Priority:priority OwnerId:owner"),
        SField("Status", "picklist", _task_status, source="status"),
        SField("ActivityDate", "date", of("due"), source="due"),
        SField("TaskSubtype", "picklist", _subtype, updateable=False), *ACTIVITY,
    ), extensible=True),
    SObject("Event", ("meeting",), "Event", (
        *_plain("meeting", "Subject:subject Description:body Location:location StartDateTime:start EndDateTime:end "
                "OwnerId:owner"), *ACTIVITY,
    )),
    SObject("Campaign", ("campaign",), "Campaign", _plain(
        "campaign", "Name:name Status:status Type:type StartDate:start EndDate:end BudgetedCost:budget IsActive:active "
        "OwnerId:owner")),
    SObject("CampaignMember", ("campaign_member",), "Campaign Member", (
        *_plain("campaign_member", "CampaignId:campaign ContactId:contact LeadId:lead Status:status"),
        SField("HasResponded", "boolean", lambda crm, r: r.values.get("status") == "Responded",
               updateable=False, source="status"),
    )),
    SObject("Product2", ("product",), "Product", _plain(
        "product", "Name:name ProductCode:sku Family:family Description:description IsActive:active")),
    SObject("Contract", ("contract",), "Contract", _plain(
        "contract", "ContractNumber:number AccountId:company Status:status StartDate:start ContractTerm:months "
        "OwnerId:owner")),
    SObject("User", ("user",), "User", (
        PERSON_NAME, SField("Username", "string", of("email")),
        *_plain("user", "LastName:last_name FirstName:first_name Email:email Title:title IsActive:active"),
    ), deletable=False),
    SObject("RecordType", ("pipeline",), "Record Type", (
        SField("Name", "string", of("label")),
        SField("DeveloperName", "string", lambda crm, r: r.values["label"].replace(" ", "_")),
        SField("SobjectType", "picklist", lambda crm, r: "Opportunity" if r.values["of"] == "deal" else "Case"),
        SField("IsActive", "boolean", lambda crm, r: True),
    ), deletable=False),
    SObject("OpportunityStage", ("stage",), "Opportunity Stage", (
        SField("MasterLabel", "string", of("label")), SField("SortOrder", "int", of("position")),
        SField("DefaultProbability", "percent", of("probability")), SField("IsClosed", "boolean", of("closed")),
        SField("IsWon", "boolean", of("won")),
    ), bulk=False, deletable=False),
    SObject("Attachment", ("note",), "Attachment", (
        SField("ParentId", "reference", reference("company", "001"), to=("Account",)),
        SField("Name", "string", lambda crm, r: f"note-{r.id}.txt"),
        SField("ContentType", "string", lambda crm, r: "text/plain"),
        SField("Body", "base64", _body),
    )),
    SObject("ContentDocumentLink", (), "Content Document Link", (
        SField("LinkedEntityId", "reference", lambda crm, r: None, to=("Account",)),
        SField("ContentDocumentId", "reference", lambda crm, r: None, to=("ContentDocument",)),
        SField("SystemModstamp", "datetime", lambda crm, r: None, filterable=False),
    ), stamped=False, restricted=(
        "Implementation restriction: ContentDocumentLink requires a filter by a single Id on ContentDocumentId or "
        "LinkedEntityId using the equals operator or multiple Id's using the IN operator.")),
    SObject("Workspace__c", ("workspace",), "Workspace", _plain("workspace", "Name:name"), custom=True,
            extensible=True),
)  # fmt: skip
BY_NAME = {each.name.lower(): each for each in SOBJECTS}
