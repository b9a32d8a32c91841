from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tests.webhook_gateway.schemes.contracts import contract
from tests.webhook_gateway.schemes.senders import BY_NAME, ORGANIZATION
from webhook_gateway.schemes.sdk import MalformedBody, Trust

SENDER = BY_NAME["salesforce"]
SCHEME = SENDER.scheme
SECRET = SENDER.secrets[0]


def trust(*organizations: str) -> Trust:
    return Trust([SECRET], {"organization_ids": organizations})


def test_the_published_message() -> None:
    body = contract("salesforce/OutboundMessage1.xml")
    assert body.startswith(b"\xef\xbb\xbf")
    sent = SENDER.signed(body=body)
    assert SCHEME.verify(sent, trust("0123456789ABCDENNN"))
    assert SCHEME.verify(sent, trust("0123456789ABCDE"))
    assert not SCHEME.verify(sent, trust(ORGANIZATION))
    events = SCHEME.events(sent)
    assert [event[:3] for event in events] == [
        ("04l37000000L0E5AAK", "Lead1", "Lead1:0123456789ABCDEEAE"),
        ("14l37000123L0E5AAK", "Lead2", "Lead2:1123456789ABCDEEAE"),
        ("24l37123450L0E5AAK", "Lead3", "Lead3:2123456789ABCDEEAE"),
    ]
    said = json.loads(events[0].payload)
    assert (said["OrganizationId"], said["Id"]) == ("0123456789ABCDENNN", "04l37000000L0E5AAK")
    assert said["sObject"]["type"] == "Lead1"
    assert said["sObject"]["Description"] == "Some notes..."
    assert len(said["sObject"]) == 1 + 28  # the type, and the fields


def test_the_session_id_is_never_stored() -> None:
    body = contract("salesforce/OutboundMessage1.xml")
    assert b"BSGSRAzG9lPxyKRPjJ3" in body
    for event in SCHEME.events(SENDER.signed(body=body)):
        assert "BSGSRAzG9lPxyKRPjJ3" not in "".join(event)
        assert "SessionId" not in event.payload


def test_a_message_of_nobody_is_trusted_by_nobody() -> None:
    sent = SENDER.signed(body=contract("salesforce/OutboundMessage2.xml"))
    for organizations in ([], [""], ["  "], [ORGANIZATION]):
        assert not SCHEME.verify(sent, trust(*organizations))
    assert SCHEME.events(sent) == []


@pytest.mark.parametrize("known", ["", " ", ORGANIZATION[:14], ORGANIZATION.lower(), "00D370000001abdEAA"])
def test_other_organizations_are_refused(known: str) -> None:
    assert SCHEME.verify(SENDER.signed(), trust(known, ORGANIZATION))
    assert not SCHEME.verify(SENDER.signed(), trust(known))
    assert not SCHEME.verify(SENDER.signed(), Trust([SECRET]))


def test_the_organization_does_not_replace_the_secret() -> None:
    assert not SCHEME.verify(SENDER.unsigned(), SENDER.trust())
    assert not SCHEME.verify(SENDER.signed(SENDER.secrets[1]), SENDER.trust())


def test_the_acknowledgement_is_the_published_one() -> None:
    answer = SCHEME.accepted(SENDER.signed())
    assert (answer.status, answer.content_type) == (200, "text/xml; charset=utf-8")
    published = contract("salesforce/NotificationResponse.xml").decode("utf-8-sig")
    assert _canonical(answer.body.decode()) == _canonical(published)
    assert b"<Ack>true</Ack>" in answer.body


def _canonical(text: str) -> list[tuple[str, str]]:
    return [(node.tag, (node.text or "").strip()) for node in ElementTree.fromstring(text).iter()]


def message(notifications: str, prolog: str = "") -> bytes:
    return f"""{prolog}<E:Envelope xmlns:E="http://schemas.xmlsoap.org/soap/envelope/"
      xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><E:Body>
      <notifications xmlns="http://soap.sforce.com/2005/09/outbound"><OrganizationId>{ORGANIZATION}</OrganizationId>
      {notifications}</notifications></E:Body></E:Envelope>""".encode()


def test_the_values_of_a_record() -> None:
    body = message(
        '<Notification><Id>n</Id><sObject i:type="x:Lead"><Id>00Q</Id><Empty/><None i:nil="true"/>'
        "<Name>A &amp; É</Name><Many>1</Many><Many>2</Many><Many>3</Many>"
        "<Place><City>X</City></Place></sObject></Notification>"
    )
    (event,) = SCHEME.events(SENDER.unsigned(body))
    assert json.loads(event.payload)["sObject"] == {
        "type": "Lead",
        "Id": "00Q",
        "Empty": "",
        "None": None,
        "Name": "A & É",
        "Many": ["1", "2", "3"],
        "Place": {"City": "X"},
    }


BOMB = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>]>"
FILE = "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"
REMOTE = "<!DOCTYPE x SYSTEM 'http://127.0.0.1:1/x.dtd'>"


@pytest.mark.parametrize("prolog", [BOMB, FILE, REMOTE, "<!DOCTYPE x>", "<!DOCTYPE x [<!ENTITY % p SYSTEM 'x'> %p;]>"])
def test_document_types_and_their_entities_are_refused(prolog: str) -> None:
    sent = SENDER.signed(body=message("", prolog))
    assert SCHEME.verify(SENDER.signed(body=message("")), SENDER.trust())
    assert not SCHEME.verify(sent, SENDER.trust())
    with pytest.raises(MalformedBody, match="document type"):
        SCHEME.events(sent)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<a/>",
        b"{}",
        message("")[:-1],
        message("&a;"),
        message("<a>" * 80 + "</a>" * 80),
        message("").decode().encode("utf-16"),
        message("").decode().encode("utf-16-le"),
        b'<?xml version="1.0" encoding="utf-16"?>' + message("").decode().encode("utf-16-be"),
        b'<?xml version="1.0" encoding="latin-1"?>' + message("<Name>\xc9</Name>").decode().encode("latin-1"),
        message("<Notification/>"),
        message("<Notification><Id>n</Id><sObject/></Notification>"),
        message("</notifications><notifications>"),
    ],
)
def test_what_is_no_message(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        SCHEME.events(SENDER.unsigned(body))


def test_the_url_of_another_endpoint_needs_the_secret_too() -> None:
    sent = SENDER.signed()
    assert not SCHEME.verify(replace(sent, url=sent.url.partition("?")[0]), SENDER.trust())
