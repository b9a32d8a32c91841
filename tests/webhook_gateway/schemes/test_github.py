from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.webhook_gateway.schemes.contracts import vectors
from tests.webhook_gateway.schemes.senders import BY_NAME
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
        (
            "issue_comment",
            {"action": "created", "issue": {"id": 1}, "comment": {"id": 2}},
            "issue_comment.created",
            "comment:2",
        ),
        ("commit_comment", {"action": "created", "comment": {"id": 2}}, "commit_comment.created", "comment:2"),
        ("pull_request", {"action": "closed", "pull_request": {"id": 3}}, "pull_request.closed", "pull_request:3"),
        ("push", {"pusher": {"name": "a"}, "repository": {"id": 4}}, "push", "repository:4"),
        ("ping", {"zen": "Keep it logically awesome."}, "ping", ""),
        ("watch", {"action": "started", "repository": {"id": 4}}, "watch.started", "repository:4"),
        ("public", {"repository": {"id": 4}, "sender": {"id": 5}}, "public", "repository:4"),
        ("sponsorship", {"action": "created", "sponsorship": {"id": 6}}, "sponsorship.created", "sponsorship:6"),
        ("branch_protection_rule", {"action": "edited", "rule": {"id": 7}}, "branch_protection_rule.edited", "rule:7"),
        (
            "pull_request",
            {"action": "labeled", "pull_request": {"id": 3}, "label": {"id": 8}},
            "pull_request.labeled",
            "pull_request:3",
        ),
        (
            "deployment_review",
            {"action": "approved", "since": "x", "comment": "ok", "workflow_run": {"id": 9}},
            "deployment_review.approved",
            "",
        ),
    ],
)
def test_an_event(name: str, body: dict[str, object], kind: str, entity: str) -> None:
    text = json.dumps(body)
    sent = SENDER.signed(body=text.encode())
    headers = {**sent.headers, "x-github-event": name}
    (event,) = SENDER.scheme.events(replace(sent, headers=headers))
    assert event[1:] == (kind, entity, text)


def test_the_id_is_of_what_is_signed() -> None:
    sent = SENDER.signed()
    (first,) = SENDER.scheme.events(sent)
    for changed in ({"x-github-delivery": "another"}, {"x-github-event": "push"}):
        again = replace(sent, headers={**sent.headers, **changed})
        assert SENDER.scheme.verify(again, SENDER.trust())
        assert SENDER.scheme.events(again)[0].id == first.id
    (other,) = SENDER.scheme.events(SENDER.signed(body=b'{"action":"opened","issue":{"id":2}}'))
    assert other.id != first.id


ISSUE, COMMENT = {"action": "x", "issue": {"id": 1}}, {"action": "x", "issue": {"id": 1}, "comment": {"id": 2}}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("push", ISSUE),
        ("ping", ISSUE),
        ("issues", COMMENT),
        ("commit_comment", COMMENT),
        ("label", {**ISSUE, "label": {"id": 3}}),
        ("milestone", {**ISSUE, "milestone": {"id": 3}}),
        ("repository", {**ISSUE, "repository": {"id": 3}}),
        ("sender", {"sender": {"id": 3}}),
        ("action", ISSUE),
        ("deployment", {"deployment": {"id": 1}, "deployment_status": {"id": 2}}),
        ("sponsorship", {"repository": {"id": 3}}),
    ],
)
def test_a_name_that_the_body_cannot_be_of_does_not_count(name: str, body: dict[str, object]) -> None:
    sent = SENDER.signed(body=json.dumps(body).encode())
    (event,) = SENDER.scheme.events(replace(sent, headers={**sent.headers, "x-github-event": name}))
    assert event.type == "unknown"


def test_what_is_no_event() -> None:
    with pytest.raises(MalformedBody):
        SENDER.scheme.events(SENDER.unsigned())
    with pytest.raises(MalformedBody):
        SENDER.scheme.events(SENDER.signed(body=b"Hello, World!"))
