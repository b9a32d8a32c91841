"""The simulated Pub/Sub API: its messages are the published ones, and what it tells adds up to what the CRM holds."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from queue import Queue
from typing import Any

import fastavro
import grpc
import orjson
import pytest

from churnguard_pipelines.sandbox.business.crm_schema import Field
from churnguard_pipelines.sandbox.salesforce.pubsub.messages import FIELDS, MESSAGES, PRESETS
from churnguard_pipelines.sandbox.salesforce.pubsub.server import ALL, PubSub
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.salesforce.conftest import query, salesforce
from tests.webhook_gateway.schemes.contracts import contract

ACCOUNTS = "/data/AccountChangeEvent"
LATEST, EARLIEST, CUSTOM = range(3)


class Client:
    """What a subscriber does, in its simplest form."""

    def __init__(self, pubsub: PubSub, user: str = "acme") -> None:
        self._channel = grpc.insecure_channel(pubsub.target)
        self._metadata = (("accesstoken", f"00Dsandbox_{user}"), ("instanceurl", "http://x"), ("tenantid", "00D"))
        self._schemas: dict[str, Any] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, name: str, request: Any, answer: str) -> Any:
        send = self._channel.unary_unary(
            f"/eventbus.v1.PubSub/{name}", type(request).SerializeToString, MESSAGES[answer].FromString
        )
        return send(request, metadata=self._metadata, timeout=20)

    def subscribe(self, topic: str, preset: int = EARLIEST, replay: bytes = b"", number: int = 100) -> Subscribed:
        requests: Queue[Any] = Queue()
        requests.put(
            MESSAGES["FetchRequest"](topic_name=topic, replay_preset=preset, replay_id=replay, num_requested=number)
        )
        open_stream = self._channel.stream_stream(
            "/eventbus.v1.PubSub/Subscribe",
            MESSAGES["FetchRequest"].SerializeToString,
            MESSAGES["FetchResponse"].FromString,
        )
        return Subscribed(self, requests, open_stream(iter(requests.get, None), metadata=self._metadata, timeout=60))

    def schema(self, id: str) -> Any:
        if id not in self._schemas:
            info = self.call("GetSchema", MESSAGES["SchemaRequest"](schema_id=id), "SchemaInfo")
            self._schemas[id] = orjson.loads(info.schema_json)
        return self._schemas[id]

    def decode(self, consumer: Any) -> dict[str, Any]:
        """The record, with the names of changed and nulled fields instead of their bitmaps."""
        schema = self.schema(consumer.event.schema_id)
        record: Any = fastavro.schemaless_reader(
            io.BytesIO(consumer.event.payload), fastavro.parse_schema(schema), None
        )
        for name in ("changedFields", "nulledFields", "diffFields"):
            record["ChangeEventHeader"][name] = named(schema["fields"], record["ChangeEventHeader"][name])
        return dict(record)


class Subscribed:
    def __init__(self, client: Client, requests: Queue[Any], stream: Any) -> None:
        self._client, self._requests, self._stream = client, requests, stream
        self.replay = b""

    def ask(self, number: int) -> None:
        self._requests.put(MESSAGES["FetchRequest"](num_requested=number))

    def fetch(self) -> Any:
        found = next(self._stream)
        self.replay = found.latest_replay_id
        return found

    def events(self, number: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < number:
            found += [self._client.decode(each) for each in self.fetch().events]
        return found

    def close(self) -> None:
        self._requests.put(None)
        self._stream.cancel()


def named(fields: list[dict[str, Any]], bitmaps: list[str]) -> set[str]:
    def bits(text: str) -> list[int]:
        return [place for place in range(200) if int(text, 16) >> place & 1]

    found: set[str] = set()
    for bitmap in bitmaps:
        if bitmap.startswith("0x"):
            found |= {fields[place]["name"] for place in bits(bitmap)}
        else:
            position, _, inner = bitmap.partition("-")
            whole = fields[int(position)]
            found |= {f"{whole['name']}.{whole['type'][1]['fields'][place]['name']}" for place in bits(inner)}
    return found


@pytest.fixture
def pubsub(sandbox: Sandbox) -> PubSub:
    """Subscribers of acme, and what happened so far is known."""
    made = sandbox.salesforce.pubsub()
    made.keep_alive = 0.2
    return made


@pytest.fixture
def client(pubsub: PubSub) -> Iterator[Client]:
    with Client(pubsub) as made:
        yield made


def test_the_messages_are_the_published_ones() -> None:
    text = contract("salesforce/pubsub_api.proto").decode()
    published = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    for message, fields in FIELDS.items():
        found = re.search(rf"message {message} \{{(.*?)\}}", published, re.DOTALL)
        assert found, message
        declared = [" ".join(part.split()) for part in found[1].split(";") if part.strip()]
        assert declared == [f"{text} = {number}" for number, text in enumerate(fields.split(", "), 1)], message
    presets = re.search(r"enum ReplayPreset \{(.*?)\}", published, re.DOTALL)
    assert presets
    assert re.findall(r"(\w+) = \d", presets[1]) == list(PRESETS)
    for call in ("Subscribe (stream FetchRequest) returns (stream FetchResponse)", "GetSchema (SchemaRequest)"):
        assert f"rpc {call}" in published


def test_a_topic_and_its_schema(client: Client) -> None:
    topic = client.call("GetTopic", MESSAGES["TopicRequest"](topic_name=ACCOUNTS), "TopicInfo")
    assert (topic.topic_name, topic.can_subscribe, topic.can_publish) == (ACCOUNTS, True, False)
    schema = client.schema(topic.schema_id)
    fields = [field["name"] for field in schema["fields"]]
    assert fields[0] == "ChangeEventHeader"
    assert {"Name", "BillingAddress", "Churn_Risk__c", "LastModifiedDate"} <= set(fields)
    assert not {"Id", "Health__c", "SystemModstamp", "BillingCity"} & set(fields)


def test_an_update_tells_only_what_changed(sandbox: Sandbox, client: Client) -> None:
    account = sandbox.account("acme")
    company = account.crm("create", kind="company", name="Here", employees=3, phone="1", city="Ulm", street="A 1")
    contact = account.crm("create", kind="contact", last_name="Doe", first_name="Jo", company=company)
    account.crm("update", kind="company", id=company, employees=4, phone=None, city=None)
    account.crm("update", kind="contact", id=contact, first_name="Jim")
    account.crm("recalculate", kind="company", id=company, health=0.1)
    account.crm("delete", kind="company", id=company)
    account.crm("undelete", kind="company", id=company)
    made, person, updated, renamed, deleted, back = client.subscribe(ALL).events(6)
    assert (made["ChangeEventHeader"]["changeType"], made["Name"], made["NumberOfEmployees"]) == ("CREATE", "Here", 3)
    assert made["BillingAddress"]["City"] == "Ulm"
    assert person["Name"] == {"FirstName": "Jo", "LastName": "Doe"}
    header = updated["ChangeEventHeader"]
    assert header["changeType"] == "UPDATE"
    assert header["changedFields"] == {
        "NumberOfEmployees", "Phone", "BillingAddress.City", "LastModifiedDate", "LastModifiedById",
    }  # fmt: skip
    assert header["nulledFields"] == {"Phone", "BillingAddress.City"}
    assert (updated["Name"], updated["NumberOfEmployees"], updated["Phone"]) == (None, 4, None)
    assert renamed["ChangeEventHeader"]["changedFields"] == {"Name.FirstName", "LastModifiedDate", "LastModifiedById"}
    assert deleted["ChangeEventHeader"]["changeType"] == "DELETE"
    assert deleted["Name"] is None
    assert (back["ChangeEventHeader"]["changeType"], back["Name"]) == ("UNDELETE", "Here")
    with salesforce(sandbox) as api:
        (record,) = query(api, "SELECT Id FROM Account WHERE Name = 'Here'")
    assert made["ChangeEventHeader"]["recordIds"] == [record["Id"]]


def test_of_a_long_text_only_the_difference(sandbox: Sandbox, client: Client) -> None:
    account = sandbox.account("acme")
    company = account.crm("create", kind="company", name="Here")
    account.crm("update", kind="company", id=company, description="long " * 400)
    _, updated = client.subscribe(ACCOUNTS).events(2)
    assert updated["ChangeEventHeader"]["diffFields"] == {"Description"}
    assert updated["Description"].startswith("--- ")


def test_nothing_more_comes_than_was_asked_for(sandbox: Sandbox, client: Client) -> None:
    account = sandbox.account("acme")
    for number in range(5):
        account.crm("create", kind="company", name=f"Company {number}")
    subscribed = client.subscribe(ACCOUNTS, number=2)
    first = subscribed.fetch()
    assert (len(first.events), first.pending_num_requested) == (2, 0)
    quiet = subscribed.fetch()
    assert (len(quiet.events), quiet.latest_replay_id) == (0, first.latest_replay_id)
    subscribed.ask(10)
    second = subscribed.fetch()
    while not second.events:
        second = subscribed.fetch()
    assert (len(second.events), second.pending_num_requested) == (3, 7)


def test_a_quiet_subscription_hears_where_it_is_and_can_go_on_there(sandbox: Sandbox, client: Client) -> None:
    account = sandbox.account("acme")
    subscribed = client.subscribe(ACCOUNTS, LATEST)
    account.crm("create", kind="lead", last_name="Not for this topic")
    before = subscribed.fetch()
    assert not before.events
    account.crm("create", kind="company", name="Later")
    (event,) = subscribed.events(1)
    assert event["Name"] == "Later"
    subscribed.close()
    account.crm("create", kind="company", name="Meanwhile")
    (event,) = client.subscribe(ACCOUNTS, CUSTOM, subscribed.replay).events(1)
    assert event["Name"] == "Meanwhile"
    again = client.subscribe(ACCOUNTS, CUSTOM, before.latest_replay_id).events(2)
    assert [each["Name"] for each in again] == ["Later", "Meanwhile"]


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    return error.code(), dict(error.trailing_metadata()).get("error-code", "")


def test_replay_ids_expire_after_72_hours_and_with_a_migration(
    sandbox: Sandbox, pubsub: PubSub, client: Client
) -> None:
    account = sandbox.account("acme")
    account.crm("create", kind="company", name="Old")
    subscribed = client.subscribe(ACCOUNTS)
    subscribed.events(1)
    invalid = (
        grpc.StatusCode.INVALID_ARGUMENT,
        "sfdc.platform.eventbus.grpc.subscription.fetch.replayid.validation.failed",
    )
    account.crm("create", kind="company", name="Old too")
    account.advance(72 * 3600 + 1)
    assert refused(client.subscribe(ACCOUNTS, CUSTOM, subscribed.replay).fetch) == invalid
    account.crm("create", kind="company", name="New")
    (event,) = client.subscribe(ACCOUNTS).events(1)
    assert event["Name"] == "New"
    fresh = client.subscribe(ACCOUNTS, LATEST).fetch().latest_replay_id
    account.crm("create", kind="company", name="Newer")
    pubsub.forget("acme")
    assert refused(client.subscribe(ACCOUNTS, CUSTOM, fresh).fetch) == invalid
    assert refused(client.subscribe(ACCOUNTS, CUSTOM, b"?").fetch) == invalid


def test_gaps_and_overflows_tell_no_fields(sandbox: Sandbox, pubsub: PubSub, client: Client) -> None:
    account = sandbox.account("acme")
    pubsub.disturb("acme", "gap")
    company = account.crm("create", kind="company", name="Here")
    pubsub.calm("acme")
    account.crm("update", kind="company", id=company, employees=1)
    pubsub.disturb("acme", "overflow")
    for number in range(3):
        account.crm("update", kind="company", id=company, employees=number + 5)
    account.crm("create", kind="lead", last_name="Lead")
    pubsub.calm("acme")
    account.crm("delete", kind="company", id=company)
    events = client.subscribe(ALL).events(5)
    headers = [event["ChangeEventHeader"] for event in events]
    assert [(header["entityName"], header["changeType"]) for header in headers] == [
        ("Account", "GAP_CREATE"), ("Account", "UPDATE"), ("Account", "GAP_OVERFLOW"), ("Lead", "GAP_OVERFLOW"),
        ("Account", "DELETE"),
    ]  # fmt: skip
    assert events[0]["Name"] is None
    assert headers[0]["recordIds"] == headers[1]["recordIds"]
    assert headers[2]["recordIds"] == ["000000000000000AAA"]


def test_who_may_not(client: Client, pubsub: PubSub) -> None:
    auth = (grpc.StatusCode.UNAUTHENTICATED, "sfdc.platform.eventbus.grpc.service.auth.error")
    with Client(pubsub, "nobody") as stranger:
        assert refused(stranger.subscribe(ACCOUNTS).fetch) == auth
    with Client(pubsub, "acme_no_Account") as other:
        assert refused(other.subscribe(ACCOUNTS).fetch)[1].endswith("topic.not.found")
    assert refused(client.subscribe("/data/NothingChangeEvent").fetch)[0] is grpc.StatusCode.NOT_FOUND
    assert refused(client.subscribe(ACCOUNTS, number=0).fetch)[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_subscription_that_breaks_off(sandbox: Sandbox, pubsub: PubSub, client: Client) -> None:
    subscribed = client.subscribe(ACCOUNTS, LATEST)
    subscribed.fetch()
    pubsub.drop("acme")
    assert refused(lambda: [subscribed.fetch() for _ in range(3)])[0] is grpc.StatusCode.UNAVAILABLE


def test_a_session_that_ends_takes_its_subscriptions_along(sandbox: Sandbox, client: Client) -> None:
    subscribed = client.subscribe(ACCOUNTS, LATEST)
    subscribed.fetch()
    sandbox.salesforce.grants.end("00Dsandbox_acme")
    assert refused(lambda: [subscribed.fetch() for _ in range(3)])[0] is grpc.StatusCode.UNAUTHENTICATED


def test_a_new_field_makes_a_new_schema(sandbox: Sandbox, client: Client) -> None:
    account = sandbox.account("acme")
    subscribed = client.subscribe(ACCOUNTS, LATEST)
    subscribed.fetch()
    account.crm("add_field", kind="company", made=Field("tier", "text"))
    account.crm("create", kind="company", name="Here", tier="gold")
    (event,) = subscribed.events(1)
    assert event["Tier__c"] == "gold"


def test_a_change_arrives_at_once(sandbox: Sandbox, pubsub: PubSub, client: Client) -> None:
    pubsub.keep_alive = 30
    subscribed = client.subscribe(ACCOUNTS, LATEST, number=1)
    deadline = time.monotonic() + 25
    account = sandbox.account("acme")
    while time.monotonic() < deadline and not account.act(lambda _: pubsub.subscribers("acme")):
        time.sleep(0.005)
    account.crm("create", kind="company", name="Now")
    (event,) = subscribed.events(1)
    assert event["Name"] == "Now"


def test_events_add_up_to_what_rest_shows(sandbox: Sandbox, client: Client) -> None:
    account = sandbox.account("acme")
    columns = "Id, Name, NumberOfEmployees, Plan__c, OwnerId, IsDeleted, Type, SystemModstamp, CreatedById"
    soql = f"SELECT {columns} FROM Account"
    with salesforce(sandbox) as api:
        mirror = {record["Id"]: record for record in query(api, soql)}
        account.read_crm(lambda crm: None)
        start = client.subscribe(ALL, LATEST).fetch().latest_replay_id
        account.crm_tick(400)
        account.tick(20)
        account.crm("create", kind="company", name="The last")
        subscribed = client.subscribe(ACCOUNTS, CUSTOM, start, number=5000)
        while True:
            batch = subscribed.events(1)
            for event in batch:
                header = event["ChangeEventHeader"]
                (id,) = header["recordIds"]
                if header["changeType"] == "DELETE":
                    mirror.pop(id, None)
                    continue
                names = header["changedFields"] if header["changeType"] == "UPDATE" else set(event)
                stamp = datetime.fromtimestamp(header["commitTimestamp"] / 1000, UTC)
                shown = {name: event[name] for name in names if name in columns.split(", ")}
                shown |= {"Id": id, "SystemModstamp": stamp.strftime("%Y-%m-%dT%H:%M:%S.000+0000"), "IsDeleted": False}
                mirror[id] = {**mirror.get(id, {}), **shown}
            if batch[-1].get("Name") == "The last":
                break
        now = {record["Id"]: record for record in query(api, soql)}
        assert set(mirror) == set(now)
        for id, record in now.items():
            del record["attributes"]
            assert {name: mirror[id].get(name) for name in record} == record
