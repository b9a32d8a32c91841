"""What holds for every scheme: who may sign, for how long, and that nothing a stranger sends can do harm."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.webhook_gateway.schemes.senders import CUSTOM_BODY, NOW, SENDERS, Sender
from webhook_gateway.schemes import schemes
from webhook_gateway.schemes.forms import fields
from webhook_gateway.schemes.sdk import Delivery, MalformedBody, Scheme, Trust

each = pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.name)
timed = pytest.mark.parametrize("sender", [s for s in SENDERS if s.timed], ids=lambda sender: sender.name)
covering = pytest.mark.parametrize("sender", [s for s in SENDERS if s.covers_body], ids=lambda sender: sender.name)
by_header = pytest.mark.parametrize("sender", [s for s in SENDERS if s.proof], ids=lambda sender: sender.name)
quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.differing_executors])

HEADERS = sorted({name for sender in SENDERS for name in sender.signed().headers} | {"x-hubspot-signature-version"})
ODD = [
    "",
    " ",
    "\x00",
    "\ud800",
    "é",
    "nan",
    "inf",
    "-1",
    "1e9",
    "9" * 400,
    "١٢٣",
    "t=1,t=2",
    "v1=",
    "v1,",
    "====",
    "sha256=",
]


def test_every_provider_is_tested() -> None:
    assert {sender.provider for sender in SENDERS} == set(schemes())


@each
def test_a_signed_delivery_verifies_and_its_events_can_be_stored(sender: Sender) -> None:
    delivery = sender.signed()
    assert sender.scheme.verify(delivery, sender.trust())
    (event,) = sender.scheme.events(delivery)
    assert event.id
    assert event.type
    json.loads(event.payload)


@each
def test_every_attempt_has_the_same_ids(sender: Sender) -> None:
    first, second = sender.signed(), sender.signed(at=NOW + 3600)
    assert sender.scheme.events(first) == sender.scheme.events(second)


@each
def test_another_tenants_secret_does_not_verify(sender: Sender) -> None:
    mine, theirs = sender.secrets
    assert not sender.scheme.verify(sender.signed(theirs), sender.trust(mine))


@each
def test_while_a_secret_is_replaced_both_verify(sender: Sender) -> None:
    old, new = sender.secrets
    for order in ((old, new), (new, old)):
        assert sender.scheme.verify(sender.signed(old), sender.trust(*order))
        assert sender.scheme.verify(sender.signed(new), sender.trust(*order))


@each
@pytest.mark.parametrize("secrets", [(), ("",), ("  ",), ("\ud800",), ("whsec_",), ("whpk_",), ("é",)])
def test_no_usable_secret_verifies_nothing(sender: Sender, secrets: tuple[str, ...]) -> None:
    assert not sender.scheme.verify(sender.signed(), replace(sender.trust(), secrets=secrets))


@pytest.mark.parametrize(
    "sender", [s for s in SENDERS if not s.secrets[0].startswith(("wh", "MF"))], ids=lambda s: s.name
)
def test_what_is_signed_with_the_empty_secret_does_not_verify(sender: Sender) -> None:
    for secret in ("", " "):
        forged = sender.signer(secret, sender.unsigned())
        assert not sender.scheme.verify(forged, replace(sender.trust(), secrets=("", " ")))


def test_what_is_signed_with_an_empty_standard_webhooks_key_does_not_verify() -> None:
    custom = next(sender for sender in SENDERS if sender.name == "custom v1")
    assert not custom.scheme.verify(custom.signed("whsec_"), custom.trust("whsec_", ""))


@each
def test_a_delivery_without_proof_does_not_verify(sender: Sender) -> None:
    assert not sender.scheme.verify(sender.unsigned(), sender.trust())
    signed = sender.signed()
    for name in signed.headers:
        if not name.startswith("x-github"):  # which are not signed
            fewer = {key: value for key, value in signed.headers.items() if key != name}
            assert not sender.scheme.verify(replace(signed, headers=fewer), sender.trust())


@timed
def test_three_hundred_seconds_either_way_and_no_more(sender: Sender) -> None:
    delivery = sender.signed()
    for difference in (-300.0, 0.0, 300.0):
        assert sender.scheme.verify(replace(delivery, received_at=NOW + difference), sender.trust())
    for difference in (-86_400, -301, 301, 86_400, float("inf"), float("nan")):
        assert not sender.scheme.verify(replace(delivery, received_at=NOW + difference), sender.trust())


@each
def test_headers_and_urls_of_strangers_are_not_taken_apart(sender: Sender) -> None:
    """Longer than the gateway takes them, so that what is done with each character would show."""
    forged, size = sender.signed(sender.secrets[1]), 1 << 20
    for unit in (",", "v1=0,", "v1,AAAA ", "v1a,AAAA ", "=", "9"):
        for name, value in forged.headers.items():
            headers = {**forged.headers, name: value + unit * (size // len(unit))}
            assert cost(sender, replace(forged, headers=headers)) < 0.05
    for unit in ("%3A", "&secret=", "?", "&a=%41", "%"):
        url = f"{forged.url}?secret={unit * (size // len(unit))}"
        assert cost(sender, replace(forged, url=url)) < 0.05


def cost(sender: Sender, delivery: Delivery) -> float:
    """Seconds of the quickest of some verifications."""
    found = []
    for _ in range(5):
        begun = time.perf_counter()
        assert not sender.scheme.verify(delivery, sender.trust())
        found.append(time.perf_counter() - begun)
    return min(found)


@covering
@given(st.data())
@quick
def test_any_changed_byte_of_the_body_is_noticed(sender: Sender, data: st.DataObject) -> None:
    delivery = sender.signed()
    place = data.draw(st.integers(0, len(delivery.body) - 1))
    body = bytearray(delivery.body)
    body[place] ^= data.draw(st.integers(1, 255))
    if sender.provider == "mandrill":  # signs what the form says, and %3a says the same as %3A
        assume(_said(bytes(body)) != _said(delivery.body))
    assert not sender.scheme.verify(replace(delivery, body=bytes(body)), sender.trust())


@covering
@given(st.data())
@quick
def test_a_truncated_or_prolonged_body_is_noticed(sender: Sender, data: st.DataObject) -> None:
    delivery = sender.signed()
    kept = data.draw(st.integers(0, len(delivery.body) - 1))
    for body in (delivery.body[:kept], delivery.body + delivery.body[kept:]):
        assert not sender.scheme.verify(replace(delivery, body=body), sender.trust())


@by_header
@given(st.data())
@quick
def test_any_changed_character_of_the_signature_is_noticed(sender: Sender, data: st.DataObject) -> None:
    delivery = sender.signed()
    assert sender.proof
    proof = delivery.headers[sender.proof]
    place = data.draw(st.integers(0, len(proof) - 1))
    other = data.draw(st.sampled_from("0aA=,+ /v\x00é\ud800") | st.characters())
    assume(other != proof[place])
    for changed in (proof[:place] + other + proof[place + 1 :], proof[:place]):
        headers = {**delivery.headers, sender.proof: changed}
        assert not sender.scheme.verify(replace(delivery, headers=headers), sender.trust())


@pytest.mark.parametrize("sender", [s for s in SENDERS if not s.proof], ids=lambda sender: sender.name)
@given(st.data())
@quick
def test_any_changed_character_of_the_secret_in_the_url_is_noticed(sender: Sender, data: st.DataObject) -> None:
    delivery = sender.signed()
    place = data.draw(st.integers(delivery.url.index("?"), len(delivery.url) - 1))
    other = data.draw(st.sampled_from("0aA=&+%?#;\x00é\ud800") | st.characters())
    assume(other != delivery.url[place])
    for changed in (delivery.url[:place] + other + delivery.url[place + 1 :], delivery.url[:place]):
        assert not sender.scheme.verify(replace(delivery, url=changed), sender.trust())


@timed
@given(st.sampled_from(ODD) | st.text() | st.integers().map(str))
@quick
def test_a_timestamp_that_is_not_the_signed_one_is_noticed(sender: Sender, said: str) -> None:
    delivery = sender.signed()
    if sender.provider == "stripe":
        proof = delivery.headers["stripe-signature"].partition(",")[2]
        headers = {"stripe-signature": f"t={said},{proof}"}
    else:
        (name,) = [name for name in delivery.headers if name.endswith("timestamp")]
        headers = {**delivery.headers, name: said}
    assert not sender.scheme.verify(replace(delivery, headers=headers), sender.trust())


# Whatever is sent, ``verify`` answers and ``events`` answers or refuses.

texts = st.sampled_from(ODD) | st.text(max_size=20)
names = st.sampled_from(
    ["id", "type", "data", "object", "eventId", "objectId", "event", "email", "msg", "_id", "ts", "action", "issue"]
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(names, values, max_size=6)
json_bodies = (objects | st.lists(objects, max_size=3) | values).map(lambda value: json.dumps(value).encode())
form_bodies = st.lists(
    st.tuples(st.sampled_from(["type", "data[id]", "data[a][b]", "data", "data[", "[]", "mandrill_events"]), texts)
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode("utf-8", "surrogatepass"))
pieces = st.sampled_from(
    [
        *(sender.body for sender in SENDERS),
        b"<a>", b"</a>", b"<!DOCTYPE a [", b"<!ENTITY b 'c'>", b"]>", b"&b;", b"&amp;", b"&#0;", b"<![CDATA[", b"]]>",
        b"[", b"]", b"{", b"}", b'"', b"\\", b'\\"', b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"%", b"%00",
        b"mandrill_events=", b"&", b"=", b"1e999", b"NaN", b"\xff\xfe",
    ]
)  # fmt: skip
bodies = st.one_of(
    st.binary(max_size=60), json_bodies, form_bodies, st.lists(pieces, max_size=6).map(b"".join), st.just(CUSTOM_BODY)
)
urls = st.sampled_from(["", "?", "http://[", "/?secret=%", "/?secret=%ff", "/?secret=&secret=", "\ud800?secret=\ud800"])
deliveries = st.builds(
    Delivery,
    st.sampled_from(["POST", "GET", "", "\ud800"]),
    urls | st.text(),
    st.dictionaries(st.sampled_from(HEADERS), texts | st.just(str(int(NOW))) | st.just(str(int(NOW * 1000)))),
    bodies,
    st.just(NOW),
)
trusts = st.builds(
    Trust,
    st.lists(st.sampled_from([secret for sender in SENDERS for secret in sender.secrets] + ["", "whpk_AA=="])),
    st.dictionaries(
        st.sampled_from(["organization_ids", "signature_versions"]), st.lists(texts | st.sampled_from(["v1", "v2"]))
    ),
)


@pytest.mark.parametrize("chosen", schemes().values(), ids=lambda chosen: chosen.provider)
@given(deliveries, trusts)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_nothing_that_is_sent_raises_anything_else(chosen: Scheme, delivery: Delivery, trust: Trust) -> None:
    assert chosen.verify(delivery, trust) is False
    assert chosen.accepted(delivery).status == 200
    try:
        events = chosen.events(delivery)
    except MalformedBody:
        return
    for event in events:
        for text in event:
            text.encode()
            assert "\x00" not in text
        assert 0 < len(event.id) <= 200
        assert 0 < len(event.type) <= 200
        assert len(event.entity) <= 200
        json.loads(event.payload)


def _said(form: bytes) -> list[tuple[str, str]] | None:
    try:
        return fields(form)
    except MalformedBody:
        return None
