from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.webhook_gateway.schemes.contracts import vectors
from tests.webhook_gateway.schemes.senders import BY_NAME, EC_SECRETS, NOW
from webhook_gateway.schemes import sendgrid
from webhook_gateway.schemes.sdk import Delivery, MalformedBody, Trust

SENDER = BY_NAME["sendgrid"]


def test_the_published_vector() -> None:
    vector = vectors()["sendgrid ECDSA"]
    headers = {
        "x-twilio-email-event-webhook-signature": vector["signature"],
        "x-twilio-email-event-webhook-timestamp": vector["timestamp"],
    }
    body = vector["body"].encode()
    sent, trust = Delivery("POST", "", headers, body, 1_600_112_502), Trust([vector["public_key"]])
    assert SENDER.scheme.verify(sent, trust)
    assert not SENDER.scheme.verify(replace(sent, body=body.strip()), trust)
    assert not SENDER.scheme.verify(replace(sent, received_at=NOW), trust)
    assert not SENDER.scheme.verify(sent, Trust(EC_SECRETS))
    (event,) = SENDER.scheme.events(sent)
    assert event.id == "ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA"
    assert event[1:3] == ("dropped", "email:hello@world.com")
    assert json.loads(event.payload) == json.loads(body)[0]


def public(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


@pytest.mark.parametrize(
    "key",
    [
        public(rsa.generate_private_key(65537, 2048).public_key()),
        EC_SECRETS[0][:-8],
        EC_SECRETS[0].replace("M", "N", 1),
        "AAAA",
        "no base64!",
    ],
    ids=["rsa", "truncated", "damaged", "no key", "no base64"],
)
def test_any_other_key_verifies_nothing_and_disturbs_no_other(key: str) -> None:
    assert not SENDER.scheme.verify(SENDER.signed(), SENDER.trust(key))
    assert SENDER.scheme.verify(SENDER.signed(), SENDER.trust(key, EC_SECRETS[0]))


def test_only_the_documented_curve_counts() -> None:
    sent = SENDER.signed()
    time = sent.headers["x-twilio-email-event-webhook-timestamp"]
    for curve in (ec.SECP256R1(), ec.SECP384R1()):
        key = ec.generate_private_key(curve)
        proof = base64.b64encode(key.sign(time.encode() + sent.body, ec.ECDSA(hashes.SHA256()))).decode()
        headers = {**sent.headers, "x-twilio-email-event-webhook-signature": proof}
        verified = SENDER.scheme.verify(replace(sent, headers=headers), SENDER.trust(public(key.public_key())))
        assert verified == (curve.name == "secp256r1")


def test_a_key_may_be_pasted_with_white_space_around_it() -> None:
    assert SENDER.scheme.verify(SENDER.signed(), SENDER.trust(f" {EC_SECRETS[0]}\n"))


def test_keys_are_parsed_once_and_not_kept_without_bound() -> None:
    sendgrid._key.cache_clear()
    for _ in range(3):
        SENDER.scheme.verify(SENDER.signed(), SENDER.trust())
    assert sendgrid._key.cache_info()[:2] == (2, 1)
    assert sendgrid._key.cache_info().maxsize


def test_events_without_an_id_get_one_that_every_attempt_has() -> None:
    body = b'[{"event":"open","email":"a@x.com","timestamp":1},{"timestamp":2,"event":"open","email":"a@x.com"}]'
    first, second = SENDER.scheme.events(SENDER.unsigned(body))
    assert len({first.id, second.id}) == 2
    (reordered,) = SENDER.scheme.events(SENDER.unsigned(b'[{"timestamp":1,"email":"a@x.com","event":"open"}]'))
    assert reordered.id == first.id


def test_an_event_without_an_address_is_about_its_message() -> None:
    (event,) = SENDER.scheme.events(SENDER.unsigned(b'[{"event":"open","sg_message_id":"m1"}]'))
    assert event.entity == "message:m1"


@pytest.mark.parametrize("bad", [b"{}", b'{"event":1.5}', b'{"event":null}'], ids=["nothing", "a number", "null"])
def test_an_event_that_does_not_say_what_it_is_costs_no_other(bad: bytes) -> None:
    """SendGrid sends hundreds together, and nobody sends them again who was told that they are malformed."""
    events = SENDER.scheme.events(SENDER.unsigned(b'[{"event":"open","sg_event_id":"e1"},' + bad + b"]"))
    assert [event.type for event in events] == ["open", "unknown"]


@pytest.mark.parametrize("body", [b"{}", b"[1]"])
def test_what_is_no_batch(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        SENDER.scheme.events(SENDER.unsigned(body))
