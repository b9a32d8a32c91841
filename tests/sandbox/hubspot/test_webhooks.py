"""Webhooks: arrays signed by v3, in no order, some twice, again until somebody takes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest

from churnguard_pipelines.sandbox.hubspot.handle import PortalHandle
from churnguard_pipelines.sandbox.hubspot.webhooks import signed
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.receiver import WebhookReceiver
from tests.serving import serving

SECRET = "app-secret"


class Receiver(WebhookReceiver):
    def batch(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = json.loads(self.deliveries.get(timeout=10)[1])
        return events

    def all(self, number: int) -> list[dict[str, Any]]:
        """Batches until so many events came."""
        found: list[dict[str, Any]] = []
        while len({each["eventId"] for each in found}) < number:
            found += self.batch()
        return found


@pytest.fixture
def receiver(portal: PortalHandle) -> Iterator[Receiver]:
    made = Receiver("/webhooks/hubspot/acme?a=%2Fb")
    with serving(made.server):
        portal.webhooks(made.url, SECRET)
        yield made


def test_the_published_signature() -> None:
    """Of HubSpot/hubspot-api-python tests/spec/utils/test_signature.py."""
    secret, url = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy", "https://www.example.com/webhook_uri"
    made = signed(secret, "POST", url, b"{'example_field':'example_value'}", 1693657560000)
    assert made == "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y="


def test_a_change_is_delivered_signed(sandbox: Sandbox, portal: PortalHandle, receiver: Receiver) -> None:
    sandbox.account("acme").crm("update", kind="contact", id=1, title="Head of Webhooks")
    headers, body = receiver.deliveries.get(timeout=10)
    (event,) = json.loads(body)
    assert event["subscriptionType"] == "contact.propertyChange"
    assert (event["propertyName"], event["propertyValue"]) == ("jobtitle", "Head of Webhooks")
    assert (event["portalId"], event["attemptNumber"]) == (portal.id, 0)
    assert event["occurredAt"] == sandbox.account("acme").now * 1000
    decoded = receiver.url.replace("%2F", "/")
    message = f"POST{decoded}".encode() + body + headers["x-hubspot-request-timestamp"].encode()
    expected = base64.b64encode(hmac.new(SECRET.encode(), message, hashlib.sha256).digest()).decode()
    assert headers["x-hubspot-signature-v3"] == expected
    assert headers["x-hubspot-signature"] == hashlib.sha256(SECRET.encode() + body).hexdigest()


def test_what_is_told(sandbox: Sandbox, portal: PortalHandle, receiver: Receiver) -> None:
    account = sandbox.account("acme")
    made = account.crm("create", kind="contact", last_name="New")
    account.crm("associate", ("contact", made), ("company", 1), label="Primary")
    account.crm("delete", kind="deal", id=1)
    account.crm("undelete", kind="deal", id=1)
    account.crm("merge", kind="company", winner=2, loser=3)
    account.crm("purge", kind="contact", id=made)
    account.crm("update", kind="workspace", id=1, seats=77)
    events = receiver.all(portal.act(lambda it: len(it.events)))
    told = {each["subscriptionType"]: each for each in events}
    assert {"contact.creation", "deal.deletion", "deal.restore", "company.merge"} <= set(told)
    assert told["contact.privacyDeletion"]["objectId"] == told["contact.creation"]["objectId"]
    assert told["object.propertyChange"]["objectTypeId"] == "2-100515001"
    merge = told["company.merge"]
    assert (merge["primaryObjectId"], len(merge["mergedObjectIds"])) == (merge["objectId"], 1)
    contact = told["contact.creation"]["objectId"]
    ends = {
        (each["associationType"], each["associationTypeId"], each["isPrimaryAssociation"])
        for each in events
        if contact in (each.get("fromObjectId"), each.get("toObjectId"))
    }
    assert ends == {
        ("CONTACT_TO_COMPANY", 279, False),
        ("CONTACT_TO_COMPANY", 1, True),
        ("COMPANY_TO_CONTACT", 280, False),
        ("COMPANY_TO_CONTACT", 2, True),
    }


def test_batches_have_no_order_and_repeat(sandbox: Sandbox, portal: PortalHandle, receiver: Receiver) -> None:
    portal.act(lambda it: [it.create("notes", {"hs_note_body": str(number)}) for number in range(250)])
    batches: list[list[dict[str, Any]]] = []
    while len({each["eventId"] for batch in batches for each in batch}) < 250:
        batches.append(receiver.batch())
    assert max(map(len, batches)) == 100
    ids = [each["eventId"] for batch in batches for each in batch]
    assert len(ids) > len(set(ids)) == 250
    assert ids != sorted(ids)


def test_a_delivery_that_was_not_taken_comes_again(sandbox: Sandbox, portal: PortalHandle, receiver: Receiver) -> None:
    receiver.refusing = 2
    sandbox.account("acme").crm("update", kind="contact", id=1, title="Again")
    attempts = [receiver.batch() for _ in range(3)]
    assert [batch[0]["attemptNumber"] for batch in attempts] == [0, 1, 2]
    assert len({batch[0]["eventId"] for batch in attempts}) == 1


def test_nothing_is_delivered_from_before_the_subscription(
    sandbox: Sandbox, portal: PortalHandle, receiver: Receiver
) -> None:
    sandbox.account("acme").crm("update", kind="contact", id=1, title="Before")
    receiver.batch()
    portal.webhooks(receiver.url, SECRET)
    sandbox.account("acme").crm("update", kind="contact", id=1, title="After")
    assert [each["propertyValue"] for each in receiver.batch()] == ["After"]
