"""Schemas and payloads of change events: bitmaps become names, and what a hostile server sends is refused."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import orjson
import pytest

from churnguard_pipelines.connectors.salesforce.pubsub.change_events import Schema, Unreadable
from churnguard_pipelines.connectors.salesforce.pubsub.client import connect
from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.errors import InvalidConfiguration
from tests.conftest import configuration

TEXTS = {"type": "array", "items": "string"}
HEADER = {
    "type": "record",
    "name": "ChangeEventHeader",
    "fields": [
        {"name": "entityName", "type": "string"},
        {"name": "recordIds", "type": TEXTS},
        {"name": "changeType", "type": {"type": "enum", "name": "ChangeType", "symbols": ["UPDATE", "GAP_OVERFLOW"]}},
        {"name": "commitTimestamp", "type": "long"},
        {"name": "nulledFields", "type": TEXTS},
        {"name": "diffFields", "type": TEXTS},
        {"name": "changedFields", "type": TEXTS},
    ],
}
ADDRESS = {
    "type": "record",
    "name": "Address",
    "fields": [{"name": part, "type": ["null", "string"]} for part in ("Street", "City", "Country")],
}
CONTACT = "003000000000001AAA"


def schema(*fields: tuple[str, Any]) -> dict[str, Any]:
    named = [{"name": "ChangeEventHeader", "type": HEADER}, *({"name": name, "type": kind} for name, kind in fields)]
    return {"type": "record", "name": "ContactChangeEvent", "namespace": "com.sforce.eventbus", "fields": named}


CONTACTS = schema(
    ("Title", ["null", "string"]),
    ("MailingAddress", ["null", ADDRESS]),
    ("OtherAddress", ["null", "com.sforce.eventbus.Address"]),  # a type is spelled out once
    ("Tier__c", ["null", "double"]),
)


def payload(told: dict[str, Any], **header: Any) -> bytes:
    out = io.BytesIO()
    lists: dict[str, Any] = {name: [] for name in ("nulledFields", "diffFields", "changedFields")}
    head = {"entityName": "Contact", "recordIds": [CONTACT], "changeType": "UPDATE", "commitTimestamp": 1} | lists
    record = {"ChangeEventHeader": head | header, "Title": "VP"}
    fastavro.schemaless_writer(out, fastavro.parse_schema(orjson.loads(orjson.dumps(told))), record)
    return out.getvalue()


def read(told: dict[str, Any], **header: Any) -> Any:
    return Schema(orjson.dumps(told).decode()).read(payload(told, **header))


@pytest.mark.parametrize("moment", [-1, 253_402_300_800_000, 2**63 - 1], ids=["before all", "year 10000", "last"])
def test_a_moment_that_is_none_makes_an_event_unreadable(moment: int) -> None:
    with pytest.raises(Unreadable):
        read(CONTACTS, commitTimestamp=moment)


def test_bitmaps_become_the_names_of_fields() -> None:
    event = read(CONTACTS, changedFields=["0x02", "2-0x06"], nulledFields=["0x10", "3-0x01"])
    assert event.changed == {"Title", "MailingAddress.City", "MailingAddress.Country", "Tier__c", "OtherAddress.Street"}
    assert (event.object, event.doing, event.ids, event.at) == ("Contact", "UPDATE", (CONTACT,), 1)


@pytest.mark.parametrize(
    "ids", [["000000000000000AAA"], ["003*"], [CONTACT, "; DROP"]], ids=["zeros", "a-pattern", "junk"]
)
def test_ids_that_name_no_record_mean_that_any_may_have_changed(ids: list[str]) -> None:
    assert read(CONTACTS, recordIds=ids, changeType="GAP_OVERFLOW").ids == ()


@pytest.mark.parametrize(
    "bitmap", ["0x20", "2-0x08", "9-0x01", "0x", "x", "1" * 9 + "-0x1"],
    ids=["a-bit-too-far", "within-too-far", "no-such-field", "empty", "junk", "a-long-position"],
)  # fmt: skip
def test_a_bitmap_that_fits_no_field_is_refused(bitmap: str) -> None:
    with pytest.raises(Unreadable):
        read(CONTACTS, changedFields=[bitmap])


NESTED = {"type": "record", "name": "A", "fields": [{"name": "B", "type": ["null", ADDRESS]}]}
HOSTILE = {
    "a-record-in-itself": schema(("A", ["null", ADDRESS | {"fields": [{"name": "A", "type": ["null", "Address"]}]}])),
    "records-in-records": schema(("A", ["null", NESTED])),
    "an-empty-record": schema(("A", ["null", {"type": "record", "name": "A", "fields": []}])),
    "nulls-without-end": schema(("A", {"type": "array", "items": "null"})),
    "a-huge-fixed": schema(("A", {"type": "fixed", "name": "F", "size": 2**40})),
    "a-map": schema(("A", {"type": "map", "values": "string"})),
    "one-name-twice": schema(("A", ["null", ADDRESS]), ("B", ["null", ADDRESS | {"namespace": "other"}])),
    "no-header": {"type": "record", "name": "X", "fields": [{"name": "A", "type": "string"}]},
    "no-record": ["null"],
    "too-long": {"name": "x" * 3_000_000},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_schema_that_no_change_has_is_refused(name: str) -> None:
    with pytest.raises(Unreadable):
        Schema(orjson.dumps(HOSTILE[name]).decode())


@pytest.mark.parametrize("cut", [0, 1, 7, 20])
def test_a_payload_that_is_cut_off_is_refused(cut: int) -> None:
    whole = Schema(orjson.dumps(CONTACTS).decode())
    with pytest.raises(Unreadable):
        whole.read(payload(CONTACTS)[:cut])


def test_an_array_that_claims_to_be_endless_is_refused() -> None:
    whole = Schema(orjson.dumps(CONTACTS).decode())
    with pytest.raises(Unreadable):
        whole.read(b"\x0eContact" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\x00" * 50)


@pytest.mark.parametrize("url", ["http://127.0.0.1:7443", "https://10.0.0.7:7443", "ftp://example.com", "nonsense"])
def test_an_organization_cannot_have_its_events_read_from_within(url: str) -> None:
    credentials = {"credential_type": "bearer", "access_token": "00D!session", "custom_fields": {"pubsub_url": url}}
    made = configuration("crm", provider_name="salesforce", credentials=credentials, configured_by="organization")
    with pytest.raises(InvalidConfiguration):
        connect(made, Token("00D!session"), "00D000000000001AAA")
