"""The event webhook: arrays that the gateway takes as signed, in no order, some twice, again until they are taken."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.receiver import WebhookReceiver
from tests.serving import serving
from webhook_gateway.schemes import scheme
from webhook_gateway.schemes.sdk import Delivery, Trust


class Receiver(WebhookReceiver):
    def all(self, ids: set[str]) -> list[dict[str, Any]]:
        """Events, until all of these came."""
        found: list[dict[str, Any]] = []
        while not ids <= {each["sg_event_id"] for each in found}:
            found += json.loads(self.deliveries.get(timeout=10)[1])
        return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver("/webhooks/sendgrid/acme")
    with serving(made.server):
        yield made


def ids(account: AccountHandle) -> set[str]:
    return {each["sg_event_id"] for each in account.objects("events")}


def test_the_gateway_s_verifier_takes_a_delivery(account: AccountHandle, receiver: Receiver) -> None:
    account.webhooks(receiver.url, since=0)
    headers, body = receiver.deliveries.get(timeout=10)
    sendgrid, delivery = scheme("sendgrid"), Delivery("POST", receiver.url, headers, body, time.time())
    assert sendgrid.verify(delivery, Trust([account.public_key]))
    assert not sendgrid.verify(Delivery("POST", "", headers, body.strip(), time.time()), Trust([account.public_key]))
    assert {each.id for each in sendgrid.events(delivery)} <= ids(account)


def test_the_account_shows_the_key_that_verifies(sandbox: Sandbox, account: AccountHandle, api: httpx.Client) -> None:
    (webhook,) = api.get("/v3/user/webhooks/event/settings/all").json()["webhooks"]
    assert webhook["public_key"] == account.public_key
    assert httpx.get(f"{sandbox.url}/_sendgrid/acme").json()["public_key"] == account.public_key


def test_everything_comes_in_no_order_and_some_of_it_twice(account: AccountHandle, receiver: Receiver) -> None:
    receiver.refusing = 1
    account.webhooks(receiver.url, since=0)
    found = receiver.all(ids(account))
    assert len(found) > len(ids(account))
    assert [each["timestamp"] for each in found] != sorted(each["timestamp"] for each in found)


def test_what_happens_from_now_on_is_delivered(sandbox: Sandbox, account: AccountHandle, receiver: Receiver) -> None:
    before = ids(account)
    account.webhooks(receiver.url)
    sandbox.account("acme").advance(8 * 86_400)
    fresh = ids(account) - before
    assert fresh
    assert not {each["sg_event_id"] for each in receiver.all(fresh)} & before
