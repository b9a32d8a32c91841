from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.webhook_gateway.schemes.contracts import vectors
from tests.webhook_gateway.schemes.senders import BY_NAME
from webhook_gateway.schemes.sdk import Delivery, MalformedBody, Trust

SENDER = BY_NAME["mandrill"]


def form(items: object) -> bytes:
    return urlencode({"mandrill_events": json.dumps(items)}).encode()


def only(item: dict[str, object]) -> Any:
    (event,) = SENDER.scheme.events(SENDER.unsigned(form([item])))
    return event


def test_the_vector() -> None:
    vector = vectors()["mandrill"]
    body = urlencode(vector["form"]).encode()
    sent = Delivery("POST", vector["url"], {"x-mandrill-signature": vector["signature"]}, body, 0)
    assert SENDER.scheme.verify(sent, Trust([vector["secret"]]))
    assert not SENDER.scheme.verify(replace(sent, url=vector["url"] + "?"), Trust([vector["secret"]]))
    (event,) = SENDER.scheme.events(sent)
    assert event.type == "send"


def test_where_a_field_ends_is_not_signed_so_there_is_only_one() -> None:
    """One field cut into two says the same as the whole."""
    whole = SENDER.signed(body=b"mandrill_events=%5B%5Dzulu%7D")
    assert SENDER.scheme.verify(whole, SENDER.trust())
    for body in (
        b"mandrill_events=%5B%5D&zulu=%7D",
        b"mandrill=_events%5B%5Dzulu%7D",
        b"mandrill_events=&%5B%5Dzulu%7D=",
    ):
        assert not SENDER.scheme.verify(replace(whole, body=body), SENDER.trust())


def test_it_is_tried_with_head_and_the_key_that_everybody_knows_opens_nothing() -> None:
    assert "HEAD" in SENDER.scheme.probes
    assert not SENDER.scheme.verify(SENDER.signed("test-webhook", form([])), SENDER.trust())
    assert SENDER.scheme.events(SENDER.unsigned(form([]))) == []


CLICK = {"event": "click", "_id": "m1", "ts": 1, "url": "https://a", "ip": "1.1.1.1", "msg": {"email": "a@x.com"}}


def test_an_event() -> None:
    event = only(CLICK)
    assert event[1:3] == ("click", "email:a@x.com")
    assert json.loads(event.payload) == CLICK


def test_what_tells_events_of_one_message_apart() -> None:
    assert only(CLICK).id == only({**CLICK, "msg": {"email": "a@x.com", "clicks": [1]}}).id
    for change in ({"_id": "m2"}, {"event": "open"}, {"ts": 2}, {"url": "https://b"}, {"ip": "2.2.2.2"}):
        assert only(CLICK).id != only({**CLICK, **change}).id


def test_a_change_of_the_reject_list_has_no_message() -> None:
    event = only({"type": "blacklist", "action": "add", "ts": 1, "reject": {"email": "a@x.com"}})
    assert event[1:3] == ("blacklist.add", "email:a@x.com")


@pytest.mark.parametrize(
    "body", [b"", b"x=1", b"mandrill_events=", b"mandrill_events={}", form([1]), form([{}]), form([]) + b"&" + form([])]
)
def test_what_is_no_batch(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        SENDER.scheme.events(SENDER.unsigned(body))
