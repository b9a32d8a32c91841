from __future__ import annotations

import base64
import hmac
import secrets
import string
from dataclasses import replace
from typing import Any

import pytest

from tests.webhook_gateway.schemes.contracts import vectors
from tests.webhook_gateway.schemes.senders import BY_NAME, ED_SECRETS, NOW
from webhook_gateway.schemes import scheme
from webhook_gateway.schemes.sdk import Delivery, MalformedBody, Trust

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
V1, V1A = BY_NAME["custom v1"], BY_NAME["custom v1a"]
CUSTOM = scheme("custom")


def test_the_published_vector() -> None:
    vector = vectors()["standard-webhooks v1"]
    headers = {
        "webhook-id": vector["id"],
        "webhook-timestamp": vector["timestamp"],
        "webhook-signature": vector["signature"],
    }
    sent, trust = Delivery("POST", "", headers, vector["body"].encode(), 1_614_265_330), Trust([vector["secret"]])
    assert CUSTOM.verify(sent, trust)
    assert not CUSTOM.verify(replace(sent, headers={**headers, "webhook-id": "msg_other"}), trust)
    assert not CUSTOM.verify(replace(sent, received_at=NOW), trust)
    assert CUSTOM.events(sent) == [(vector["id"], "unknown", "", vector["body"])]


def signed_by(*deliveries: Delivery) -> Delivery:
    proof = " ".join(each.headers["webhook-signature"] for each in deliveries)
    return replace(deliveries[0], headers={**deliveries[0].headers, "webhook-signature": proof})


def test_one_of_several_signatures_is_enough() -> None:
    sent = signed_by(V1.signed(V1.secrets[1]), V1A.signed(ED_SECRETS[1]), V1.signed(), V1A.signed())
    for secret in (*V1.secrets, *ED_SECRETS):
        assert CUSTOM.verify(sent, Trust([secret]))


def test_the_secret_decides_the_scheme() -> None:
    public_as_shared = "whsec_" + ED_SECRETS[0].removeprefix("whpk_")
    forged = V1.signed(public_as_shared)  # with what everybody may know
    assert CUSTOM.verify(forged, Trust([public_as_shared]))
    assert not CUSTOM.verify(forged, Trust([ED_SECRETS[0]]))
    for sender in (V1, V1A):
        sent = sender.signed()
        version, _, proof = sent.headers["webhook-signature"].partition(",")
        other = {"v1": "v1a", "v1a": "v1"}[version]
        renamed = replace(sent, headers={**sent.headers, "webhook-signature": f"{other},{proof}"})
        assert not CUSTOM.verify(renamed, sender.trust())


@pytest.mark.parametrize("prefix", ["", "whsk_", "WHSEC_", "whpk_"])
def test_a_secret_of_no_known_kind_verifies_nothing(prefix: str) -> None:
    assert not CUSTOM.verify(V1.signed(), Trust([prefix + V1.secrets[0].removeprefix("whsec_")]))


def test_a_signature_has_one_spelling() -> None:
    sent = V1A.signed()
    proof = sent.headers["webhook-signature"]
    assert proof.endswith("==")
    twin = f"{proof[:-3]}{ALPHABET[ALPHABET.index(proof[-3]) + 1]}=="
    assert base64.b64decode(twin[4:]) == base64.b64decode(proof[4:])
    for other in (twin, proof + "=", proof.rstrip("="), proof[:10] + "\n" + proof[10:]):
        headers = {**sent.headers, "webhook-signature": other}
        assert not CUSTOM.verify(replace(sent, headers=headers), V1A.trust())


def test_the_most_signatures_that_are_looked_at() -> None:
    sent = V1A.signed()
    assert CUSTOM.verify(signed_by(sent, *[V1A.signed(ED_SECRETS[1])] * 3), V1A.trust())
    assert not CUSTOM.verify(signed_by(sent, *[V1A.signed(ED_SECRETS[1])] * 4), V1A.trust())
    assert not CUSTOM.verify(signed_by(V1.signed(), *[V1.signed(V1.secrets[1])] * 16), V1.trust())


def test_a_delivery_without_an_id_is_refused_even_if_signed() -> None:
    sent = V1.unsigned()
    key = base64.b64decode(V1.secrets[0].removeprefix("whsec_"))
    proof = base64.b64encode(hmac.digest(key, f".{int(NOW)}.".encode() + sent.body, "sha256")).decode()
    headers = {"webhook-id": "", "webhook-timestamp": str(int(NOW)), "webhook-signature": f"v1,{proof}"}
    assert not CUSTOM.verify(replace(sent, headers=headers), V1.trust())


def test_a_secret_of_hexadecimal_digits_after_the_prefix_is_a_secret() -> None:
    secret = f"{CUSTOM.generated_secret_prefix}{secrets.token_hex(32)}"
    assert CUSTOM.verify(V1.signed(secret), Trust([secret]))


@pytest.mark.parametrize(
    ("body", "kind", "entity"),
    [
        (b'{"type":"contact.created","data":{"id":"c_1"}}', "contact.created", "contact:c_1"),
        (b'{"type":"ping","data":{"id":7}}', "ping", "ping:7"),
        (b'{"type":"ping","data":[]}', "ping", ""),
        (b'{"type":5}', "5", ""),
        (b'{"type":{}}', "unknown", ""),
    ],
)
def test_what_an_event_is(body: bytes, kind: str, entity: str) -> None:
    (event,) = CUSTOM.events(V1.signed(body=body))
    assert event == ("msg_1", kind, entity, body.decode())


@pytest.mark.parametrize("identifier", ["m" * 201, "a\x00b", "\ud800", "a\nb"])
def test_an_id_that_cannot_be_stored_is_hashed(identifier: str) -> None:
    def events(name: str) -> Any:
        return CUSTOM.events(replace(V1.signed(), headers={"webhook-id": name}))[0]

    assert len(events(identifier).id) == 64
    assert events(identifier).id == events(identifier).id != events(identifier + "x").id
    assert events("m" * 200).id == "m" * 200


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b'{"a":NaN}', b'{"a":"\xff"}'])
def test_what_is_no_event(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        CUSTOM.events(V1.signed(body=body))
