from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.gateway.schemes.contracts import vectors
from tests.gateway.schemes.senders import BY_NAME
from webhook_gateway.schemes.sdk import Delivery, MalformedBody, Trust

SENDER = BY_NAME["github"]


@pytest.mark.parametrize("name", ["github docs", "github octokit"])
def test_the_published_vectors(name: str) -> None:
    vector = vectors()[name]
    sent = Delivery("POST", "", {"x-hub-signature-256": vector["signature"]}, vector["body"].encode(), 0)
    assert SENDER.scheme.verify(sent, Trust([vector["secret"]]))
    assert not SENDER.scheme.verify(sent, Trust([vector["secret"] + "x"]))
    for wrong in (vector["signature"].removeprefix("sha256="), vector["signature"].replace("sha256", "sha1")):
        assert not SENDER.scheme.verify(
            replace(sent, headers={"x-hub-signature-256": wrong}), Trust([vector["secret"]])
        )
    assert not SENDER.scheme.verify(
        replace(sent, headers={"x-hub-signature": vector["signature"]}), Trust([vector["secret"]])
    )


@pytest.mark.parametrize(
    ("name", "body", "kind", "entity"),
    [
        ("issues", {"action": "opened", "issue": {"id": 1}}, "issues.opened", "issue:1"),
        ("issue_comment", {"action": "created", "comment": {"id": 2}}, "issue_comment.created", "comment:2"),
        ("pull_request", {"action": "closed", "pull_request": {"id": 3}}, "pull_request.closed", "pull_request:3"),
        ("push", {"repository": {"id": 4}}, "push", "repository:4"),
        ("ping", {"zen": "Keep it logically awesome."}, "ping", ""),
    ],
)
def test_an_event(name: str, body: dict[str, object], kind: str, entity: str) -> None:
    text = json.dumps(body)
    sent = SENDER.signed(body=text.encode())
    headers = {**sent.headers, "x-github-event": name}
    (event,) = SENDER.scheme.events(replace(sent, headers=headers))
    assert event == ("72d3162e-cc78-11e3-81ab-4c9367dc0958", kind, entity, text)


def test_without_a_delivery_id_the_body_is_the_id() -> None:
    (event,) = SENDER.scheme.events(replace(SENDER.signed(), headers={"x-github-event": "issues"}))
    assert len(event.id) == 64


def test_what_is_no_event() -> None:
    with pytest.raises(MalformedBody):
        SENDER.scheme.events(SENDER.unsigned())
    with pytest.raises(MalformedBody):
        SENDER.scheme.events(SENDER.signed(body=b"Hello, World!"))
