"""Change events: their Avro schemas, and the events that a change of the CRM becomes.

The Avro record of an object has `ChangeEventHeader` first and then its fields; names and addresses are records within.
Formulas, `SystemModstamp`, `IsDeleted` and the id itself are no fields of it. The header says by bitmaps which fields
changed: `0x…`, whose lowest bit is the schema's first field, and `position-0x…` for the parts of a record within.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal

import fastavro
import orjson

from churnguard_pipelines.sandbox.business.crm import Change, Crm, Record
from churnguard_pipelines.sandbox.business.instants import instant
from churnguard_pipelines.sandbox.salesforce import ids
from churnguard_pipelines.sandbox.salesforce.fields import SField
from churnguard_pipelines.sandbox.salesforce.objects import BY_NAME, SObject

PUBLISHED = ("Account", "Contact", "Lead", "Opportunity", "Case", "Task", "Event", "Campaign", "CampaignMember",
             "Product2", "Contract", "Workspace__c")  # fmt: skip
OVERFLOWN = "000000000000000AAA"  # in place of the ids that an overflow event does not give
DIFF_FROM = 1000  # characters of a long text of which only the difference is sent
TYPES = ("CREATE", "UPDATE", "DELETE", "UNDELETE", "GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE",
         "GAP_OVERFLOW", "SNAPSHOT")  # fmt: skip
AVRO = {"boolean": "boolean", "int": "int", "double": "double", "currency": "double", "percent": "double",
        "date": "long", "datetime": "long"}  # fmt: skip
DOCS = {"boolean": "Boolean", "int": "Integer", "double": "Double", "currency": "Currency", "percent": "Percent",
        "date": "DateOnly", "datetime": "DateTime", "reference": "EntityId", "picklist": "DynamicEnum",
        "multipicklist": "MultiEnum", "email": "Email", "phone": "Phone", "url": "Url"}  # fmt: skip
TEXTS = {"type": "array", "items": "string"}
HEADER = {
    "type": "record",
    "name": "ChangeEventHeader",
    "fields": [
        {"name": "entityName", "type": "string"},
        {"name": "recordIds", "type": TEXTS},
        {"name": "changeType", "type": {"type": "enum", "name": "ChangeType", "symbols": list(TYPES)}},
        {"name": "changeOrigin", "type": "string"},
        {"name": "transactionKey", "type": "string"},
        {"name": "sequenceNumber", "type": "int"},
        {"name": "commitTimestamp", "type": "long"},
        {"name": "commitNumber", "type": "long"},
        {"name": "commitUser", "type": "string"},
        {"name": "nulledFields", "type": TEXTS},
        {"name": "diffFields", "type": TEXTS},
        {"name": "changedFields", "type": TEXTS},
    ],
}
PARTS = {"Billing": ("Street", "City", "PostalCode", "Country"), "Mailing": ("Street", "City", "PostalCode", "Country")}
NEVER = ("Id", "IsDeleted", "MasterRecordId", "SystemModstamp", "LastViewedDate")


@dataclass(frozen=True)
class Slot:
    """One field of an event: a field of the object, or a record of several under one name."""

    name: str
    field: SField | None
    parts: tuple[tuple[str, SField], ...] = ()

    def avro(self) -> dict[str, Any]:
        if self.field is not None:
            return {"name": self.name, **_avro(self.field)}
        record = "Switchable_PersonName" if self.name == "Name" else "Address"
        parts = [{"name": name, **_avro(field)} for name, field in self.parts]
        return {"name": self.name, "type": ["null", {"type": "record", "name": record, "fields": parts}],
                "default": None}  # fmt: skip


def _avro(field: SField) -> dict[str, Any]:
    doc = "Data:" + DOCS.get(field.type, "Text")
    return {"type": ["null", AVRO.get(field.type, "string")], "doc": doc, "default": None}


def topic_of(entity: SObject) -> str:
    return f"/data/{entity.name.replace('__c', '__')}ChangeEvent"


class Layout:
    """How an object's events are laid out, as its fields are now."""

    def __init__(self, crm: Crm, entity: SObject) -> None:
        fields = {name: each for name, each in entity.fields(crm).items() if name not in NEVER and not each.calculated}
        self.entity = entity
        self.slots: list[Slot] = []
        for name, field in fields.items():
            if name == "Name" and "LastName" in fields:
                named = (("FirstName", fields["FirstName"]), ("LastName", fields["LastName"]))
                self.slots.append(Slot("Name", None, named))
            elif field.type == "address":
                begins = name.removesuffix("Address")
                self.slots.append(Slot(name, None, tuple((part, fields[begins + part]) for part in PARTS[begins])))
            elif not _is_part(name, fields):
                self.slots.append(Slot(name, field))
        name = topic_of(entity).removeprefix("/data/")
        slots = [{"name": "ChangeEventHeader", "type": HEADER}, *(slot.avro() for slot in self.slots)]
        self.json = orjson.dumps(
            {"type": "record", "name": name, "namespace": "com.sforce.eventbus", "fields": slots}
        ).decode()
        self.schema_id = hashlib.sha256(self.json.encode()).hexdigest()[:22]
        self._schema = fastavro.parse_schema(orjson.loads(self.json))

    def encode(self, event: Event, crm: Crm) -> bytes:
        """The payload: the header, and of the fields only those that the event is about."""
        changed, nulled, diff = Bits(), Bits(), Bits()
        body: dict[str, Any] = {}
        for position, slot in enumerate(self.slots, 1):
            inner = {}
            for place, (name, field) in enumerate(slot.parts or ((slot.name, slot.field),)):
                if field is None or not event.concerns(field):
                    continue
                value = _value(field, crm, event.record)
                bit = (position, place) if slot.parts else (position, None)
                if event.doing == "UPDATE":
                    changed.add(*bit)
                    if value is None:
                        nulled.add(*bit)
                    elif field.type == "textarea" and len(str(value)) > DIFF_FROM:
                        diff.add(*bit)
                        value = "--- \n+++ \n@@ -1 +1 @@\n+" + str(value)[:80]
                inner[name] = value
            if inner:
                body[slot.name] = inner if slot.parts else inner[slot.name]
        head = {
            "entityName": self.entity.name,
            "recordIds": [OVERFLOWN if event.doing == "GAP_OVERFLOW" else self.entity.id_of(event.record)],
            "changeType": event.doing,
            "changeOrigin": "com/salesforce/api/rest/66.0;client=sandbox",
            "transactionKey": f"{event.number:08x}-0000-0000-0000-000000000000",
            "sequenceNumber": 1,
            "commitTimestamp": event.record.modified,
            "commitNumber": event.number,
            "commitUser": ids.make("005", 1),
            "nulledFields": nulled.texts(),
            "diffFields": diff.texts(),
            "changedFields": changed.texts(),
        }
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._schema, {"ChangeEventHeader": head, **body})
        return out.getvalue()


def _is_part(name: str, fields: dict[str, SField]) -> bool:
    if name in ("FirstName", "LastName"):
        return True
    return any(
        name == begins + part for begins, parts in PARTS.items() for part in parts if begins + "Address" in fields
    )


def _value(field: SField, crm: Crm, record: Record) -> Any:
    """As Avro wants it; None where the field's type is another one since."""
    value = field.read(crm, record)
    if value is None:
        return None
    match AVRO.get(field.type, "string"):
        case "boolean":
            return bool(value)
        case "int":
            return value if isinstance(value, int) else None
        case "double":
            return float(value) if isinstance(value, int | float) else None
        case "long" if field.type == "date":
            return instant(date.fromisoformat(value)) * 1000
        case "long":
            return int(value)
    return str(value)


class Bits:
    """Positions of fields, and of parts within them."""

    def __init__(self) -> None:
        self._own = 0
        self._within: dict[int, int] = {}

    def add(self, position: int, part: int | None) -> None:
        if part is None:
            self._own |= 1 << position
        else:
            self._within[position] = self._within.get(position, 0) | 1 << part

    def texts(self) -> list[str]:
        own = [_hex(self._own)] if self._own else []
        return own + [f"{position}-{_hex(bits)}" for position, bits in self._within.items()]


def _hex(bits: int) -> str:
    digits = f"{bits:X}"
    return "0x" + digits.zfill(len(digits) + len(digits) % 2)


@dataclass(frozen=True)
class Event:
    """`number` orders all events of an organization; replay ids are made of it. `record`: as far as it is told."""

    number: int
    entity: SObject
    doing: str  # one of TYPES
    record: Record

    def concerns(self, field: SField) -> bool:
        if self.doing in ("CREATE", "UNDELETE"):
            return True
        if self.doing != "UPDATE":
            return False
        if field.source:
            return field.source in self.record.values
        return field.name in ("LastModifiedDate", "LastModifiedById")


OF_KIND = {kind: BY_NAME[name.lower()] for name in PUBLISHED for kind in BY_NAME[name.lower()].kinds}
DOING = {"create": "CREATE", "update": "UPDATE", "delete": "DELETE", "purge": "DELETE", "undelete": "UNDELETE"}


def events_of(crm: Crm, change: Change) -> Iterator[Event]:
    """None, one, or two: of a merge the loser is deleted and the winner updated."""
    entity = OF_KIND.get(change.kind)
    if entity is None:
        return
    number = 2 * change.number
    if change.doing == "merge":
        assert change.other is not None
        yield Event(number, entity, "DELETE", _told(crm, change, change.other[1], {}))
        yield Event(number + 1, entity, "UPDATE", _told(crm, change, change.id, {}))
    elif change.doing in DOING:
        values = change.fields
        if change.doing == "undelete" and (record := crm.get(change.kind, change.id)):
            values = record.values
        yield Event(number, entity, DOING[change.doing], _told(crm, change, change.id, values))


def _told(crm: Crm, change: Change, id: int, values: dict[str, Any]) -> Record:
    """The record as the event tells of it."""
    now = crm.get(change.kind, id)
    if now is None:
        return Record(change.kind, id, change.at, change.at, values)
    return Record(
        change.kind, id, now.created, change.at, values, created_by=now.created_by, modified_by=now.modified_by
    )


def disturbed(event: Event, how: Literal["gap", "overflow"], overflown: Collection[str]) -> Event | None:
    """What becomes of an event while Salesforce cannot say what changed, or says only that too much did."""
    if how == "gap":
        return replace(event, doing="GAP_" + event.doing)
    return None if event.entity.name in overflown else replace(event, doing="GAP_OVERFLOW")
