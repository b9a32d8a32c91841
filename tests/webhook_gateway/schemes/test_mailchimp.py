from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.webhook_gateway.schemes.senders import BY_NAME, MAILCHIMP_BODY
from webhook_gateway.schemes.sdk import MalformedBody

SENDER = BY_NAME["mailchimp"]
SCHEME = SENDER.scheme


def test_it_is_tried_with_get_and_an_empty_post() -> None:
    assert set(SCHEME.probes) == {"GET", "HEAD"}
    assert SCHEME.events(SENDER.signed(body=b"")) == []


def test_one_secret_and_no_more() -> None:
    mine, theirs = SENDER.secrets
    url = SENDER.unsigned().url
    for query in (
        "",
        "?",
        "?secret",
        "?secret=",
        f"?secret={theirs}",
        f"?key={mine}",
        f"?secret={mine}&secret={theirs}",
    ):
        assert not SCHEME.verify(replace(SENDER.unsigned(), url=url + query), SENDER.trust())
    for query in (f"?secret={mine}", f"?list=1&secret={mine}", f"?secret={mine.replace('a', '%61')}"):
        assert SCHEME.verify(replace(SENDER.unsigned(), url=url + query), SENDER.trust())
    assert not SCHEME.verify(replace(SENDER.unsigned(), headers={"secret": mine}), SENDER.trust())


def only(body: bytes) -> Any:
    (event,) = SCHEME.events(SENDER.unsigned(body))
    return event


def test_the_form_becomes_json() -> None:
    body = MAILCHIMP_BODY + b"&data%5Bmerges%5D%5BFNAME%5D=Ad%C3%A9le+L&data%5Bmerges%5D%5BEMAIL%5D="
    event = only(body)
    assert json.loads(event.payload) == {
        "type": "subscribe",
        "fired_at": "2027-01-15 08:00:00",
        "data": {"id": "8a25ff1d98", "list_id": "a6b5da1054", "merges": {"FNAME": "Adéle L", "EMAIL": ""}},
    }
    assert event[1:3] == ("subscribe", "a6b5da1054:8a25ff1d98")


def test_the_id_is_what_it_says() -> None:
    pairs = MAILCHIMP_BODY.split(b"&")
    assert only(MAILCHIMP_BODY).id == only(b"&".join(reversed(pairs))).id
    for pair in pairs:
        assert only(MAILCHIMP_BODY.replace(pair, pair + b"x")).id != only(MAILCHIMP_BODY).id
    assert only(b"type=x&a=bc&d=").id != only(b"type=x&a=b&cd=").id


def test_a_changed_address_has_no_member_but_a_new_one() -> None:
    body = b"type=upemail&data[list_id]=l&data[new_id]=n&data[new_email]=new@x.com&data[old_email]=old@x.com"
    assert only(body).entity == "l:n"


@pytest.mark.parametrize("body", [b"x=1", b"type=", b"type[a]=1", b"type=x&data[=1", b"\xff=1", b"type=%ff"])
def test_what_is_no_event(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        SCHEME.events(SENDER.unsigned(body))
