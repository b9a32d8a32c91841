from __future__ import annotations

import json
from dataclasses import replace

import pytest
import stripe

from tests.webhook_gateway.schemes.contracts import contract, vectors
from tests.webhook_gateway.schemes.senders import BY_NAME, NOW
from webhook_gateway.schemes import scheme
from webhook_gateway.schemes.sdk import Delivery, MalformedBody, Trust

SENDER = BY_NAME["stripe"]
SECRET = SENDER.secrets[0]


def delivery(header: str, body: bytes = SENDER.body, at: float = NOW) -> Delivery:
    return Delivery("POST", "https://x/webhooks/stripe/o", {"stripe-signature": header}, body, at)


def test_the_published_vector() -> None:
    vector = vectors()["stripe v1"]
    body = contract("signatures/stripe-event.json")
    assert body == vector["body"].encode()
    sent = delivery(vector["header"], body, 1_533_204_620)
    assert scheme("stripe").verify(sent, Trust([vector["secret"]]))
    assert not scheme("stripe").verify(replace(sent, received_at=1_533_204_921), Trust([vector["secret"]]))
    (event,) = scheme("stripe").events(sent)
    assert event == ("evt_123", "customer.created", "customer:cus_123", body.decode())


def test_v0_alone_proves_nothing() -> None:
    signed = SENDER.signed().headers["stripe-signature"]
    assert SENDER.scheme.verify(delivery(signed), SENDER.trust())
    assert not SENDER.scheme.verify(delivery(signed.replace("v1=", "v0=")), SENDER.trust())


def test_while_the_secret_is_rolled_one_of_several_v1_is_enough() -> None:
    mine = SENDER.signed().headers["stripe-signature"]
    theirs = SENDER.signed(SENDER.secrets[1]).headers["stripe-signature"].partition(",")[2]
    for header in (f"{mine},{theirs}", f"{theirs},{mine}", f"{mine},v0={'0' * 64}"):
        assert SENDER.scheme.verify(delivery(header), SENDER.trust())


def test_many_signatures_are_not_even_compared() -> None:
    mine = SENDER.signed().headers["stripe-signature"]
    assert not SENDER.scheme.verify(delivery(mine + f",v1={'0' * 64}" * 16), SENDER.trust())


def test_several_times_are_refused() -> None:
    mine = SENDER.signed().headers["stripe-signature"]
    assert not SENDER.scheme.verify(delivery(f"{mine},t={int(NOW)}"), SENDER.trust())
    assert not SENDER.scheme.verify(delivery(f"t=1,{mine}"), SENDER.trust())


@pytest.mark.parametrize(
    "time", ["", "x", "nan", "1e9", "+1800000000", "1800000000.0", " 1800000000", "١٨", "9" * 5000]
)
def test_a_time_that_is_no_number_is_refused_even_if_signed(time: str) -> None:
    proof = stripe.WebhookSignature._compute_signature(f"{time}.{SENDER.body.decode()}", SECRET)
    assert not SENDER.scheme.verify(delivery(f"t={time},v1={proof}"), SENDER.trust())


@pytest.mark.parametrize(
    ("data", "entity"),
    [
        ({"data": {"object": {"object": "invoice", "id": "in_1"}}}, "invoice:in_1"),
        ({"data": {"object": {"object": "balance"}}}, ""),
        ({"data": {"object": {"object": "invoice", "id": "i" * 300}}}, None),
        ({"related_object": {"type": "v2.core.account", "id": "acct_1"}}, "v2.core.account:acct_1"),
        ({"data": []}, ""),
        ({"data": {"object": "in_1"}, "related_object": 5}, ""),
    ],
)
def test_what_an_event_is_about(data: dict[str, object], entity: str | None) -> None:
    body = json.dumps({"id": "evt_1", "type": "x", **data}).encode()
    (event,) = SENDER.scheme.events(SENDER.unsigned(body))
    assert event.entity == entity if entity is not None else len(event.entity) == 64
    assert event.payload == body.decode()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"id":"","type":"x"}', b'{"id":"e"}', b'{"id":["e"],"type":"x"}']
)
def test_what_is_no_event(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        SENDER.scheme.events(SENDER.unsigned(body))
