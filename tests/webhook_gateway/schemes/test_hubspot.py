from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.webhook_gateway.schemes.contracts import vectors
from tests.webhook_gateway.schemes.senders import BY_NAME, HUBSPOT_BODY
from webhook_gateway.schemes.sdk import Delivery, MalformedBody, Trust

V1, V2, V3 = BY_NAME["hubspot v1"], BY_NAME["hubspot v2"], BY_NAME["hubspot v3"]


@pytest.mark.parametrize("name", ["hubspot v1", "hubspot v2 GET", "hubspot v2 POST", "hubspot v3"])
def test_the_published_vectors(name: str) -> None:
    vector = vectors()[name]
    time = vector.get("timestamp", "0")
    headers = (
        {"x-hubspot-signature-v3": vector["signature"], "x-hubspot-request-timestamp": time}
        if name.endswith("v3")
        else {"x-hubspot-signature": vector["signature"], "x-hubspot-signature-version": name.split()[1]}
    )
    body = vector["body"].encode()
    sent = Delivery(vector.get("method", "POST"), vector.get("uri", ""), headers, body, int(time) / 1000)
    options = {} if name.endswith("v3") else {"signature_versions": [name.split()[1]]}
    assert V1.scheme.verify(sent, Trust([vector["secret"]], options))
    assert not V1.scheme.verify(replace(sent, body=body + b" "), Trust([vector["secret"]], options))
    assert not V1.scheme.verify(sent, Trust(["zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"], options))


def delivered() -> Delivery:
    """As HubSpot sends CRM events: v3, and v1 beside it."""
    sent = V3.signed()
    return replace(sent, headers={**sent.headers, **V1.signed().headers})


def test_what_hubspot_sends_verifies() -> None:
    assert V3.scheme.verify(delivered(), V3.trust())
    assert V3.scheme.verify(delivered(), V1.trust())


@pytest.mark.parametrize("older", [V1, V2], ids=["v1", "v2"])
def test_a_delivery_stripped_to_an_older_signature_does_not_verify(older: Any) -> None:
    stripped = older.signed()
    for trust in (V3.trust(), Trust(V3.secrets, {"signature_versions": ["v3", "", "V1"]})):
        assert not V3.scheme.verify(stripped, trust)
    assert not V3.scheme.verify(stripped, (V2 if older is V1 else V1).trust())


def test_a_delivery_whose_v3_is_too_old_does_not_verify_by_its_v1() -> None:
    old = replace(delivered(), received_at=delivered().received_at + 86_400)
    assert not V3.scheme.verify(old, V3.trust())
    assert not V3.scheme.verify(old, V1.trust())


@pytest.mark.parametrize("older", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("offered", ["", "AAAA", "signature of another tenant"])
def test_beside_v3_the_older_signatures_count_for_nothing(older: Any, offered: str) -> None:
    valid = older.signed()
    assert older.scheme.verify(valid, older.trust())
    v3 = V3.signed(V3.secrets[1]).headers if offered.startswith("sig") else {"x-hubspot-signature-v3": offered}
    assert not older.scheme.verify(replace(valid, headers={**valid.headers, **v3}), older.trust())


def test_v3_beside_a_wrong_v1_verifies() -> None:
    sent = V3.signed()
    headers = {**sent.headers, "x-hubspot-signature": "0" * 64, "x-hubspot-signature-version": "v1"}
    assert V3.scheme.verify(replace(sent, headers=headers), V3.trust())


@pytest.mark.parametrize("version", ["", "v0", "v3", "V1", "v1 "])
def test_a_version_that_does_not_exist_is_refused(version: str) -> None:
    sent = V1.signed()
    headers = {**sent.headers, "x-hubspot-signature-version": version}
    assert not V1.scheme.verify(replace(sent, headers=headers), V1.trust())


def test_the_signature_is_of_one_url_and_method() -> None:
    for sender in (V2, V3):
        sent = sender.signed()
        for other in (replace(sent, url=sent.url.replace("org_1", "org_2")), replace(sent, method="PUT")):
            assert not sender.scheme.verify(other, sender.trust())


def test_v3_is_of_the_url_with_the_documented_characters_decoded() -> None:
    plain, sent = (
        "https://x.com/a:/?@!$'()*,;b?c=%20%25%26%5B",
        "https://x.com/a%3A%2f%3F%40%21%24%27%28%29%2a%2C%3Bb?c=%20%25%26%5B",
    )
    signed = V3.signer(V3.secrets[0], replace(V3.unsigned(), url=plain))
    assert V3.scheme.verify(replace(signed, url=sent), V3.trust())
    # Decoded once: %253A is an encoded %3A, not a colon.
    twice = V3.signer(V3.secrets[0], replace(V3.unsigned(), url="https://x.com/%253A"))
    assert V3.scheme.verify(twice, V3.trust())


def event(**changes: object) -> dict[str, object]:
    said: dict[str, object] = json.loads(HUBSPOT_BODY)[0] | {"attemptNumber": 0, "objectId": 123} | changes
    return {name: value for name, value in said.items() if value is not None}


def only(item: dict[str, object]) -> Any:
    (found,) = V1.scheme.events(V1.unsigned(json.dumps([item]).encode()))
    return found


def test_an_event() -> None:
    found = only(event())
    assert found[:3] == ("1:2:3:4", "contact.creation", "contact:123")
    assert json.loads(found.payload) == event()


def test_attempts_of_one_event_have_one_id() -> None:
    assert only(event()).id == only(event(attemptNumber=3)).id
    assert only(event(eventId=None)).id == only(event(eventId=None, attemptNumber=3)).id
    assert only(event(eventId=None)).id != only(event(eventId=None, objectId=124)).id


@pytest.mark.parametrize("name", ["eventId", "subscriptionId", "portalId", "occurredAt"])
def test_each_part_of_the_key_counts(name: str) -> None:
    assert only(event()).id != only(event(**{name: 99})).id


@pytest.mark.parametrize(
    ("changes", "entity"),
    [
        ({"subscriptionType": "object.creation", "objectTypeId": "0-1"}, "0-1:123"),
        (
            {"objectId": None, "fromObjectId": 5, "toObjectId": 6, "subscriptionType": "deal.associationChange"},
            "deal:5",
        ),
        ({"objectId": None}, ""),
    ],
)
def test_what_an_event_is_about(changes: dict[str, object], entity: str) -> None:
    assert only(event(**changes)).entity == entity


def test_a_batch_becomes_single_events_in_its_order() -> None:
    items = [event(eventId=number) for number in range(100)]
    found = V1.scheme.events(V1.unsigned(json.dumps(items).encode()))
    assert [json.loads(each.payload) for each in found] == items
    assert len({each.id for each in found}) == 100
    assert V1.scheme.events(V1.unsigned(b"[]")) == []


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"[{}, []]", b'"x"'])
def test_what_is_no_batch(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        V1.scheme.events(V1.unsigned(body))
