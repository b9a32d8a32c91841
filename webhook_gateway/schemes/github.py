"""GitHub: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""

from __future__ import annotations

import hmac
from typing import Any

from webhook_gateway.schemes.bodies import digest, entity, parsed_object, scalar, storable
from webhook_gateway.schemes.sdk import Delivery, Event, MalformedBody, Scheme, Trust
from webhook_gateway.schemes.signatures import any_equal, as_bytes, header

# Which names a body can go by, told by the first of these members that it has; the more special ones come first:
# https://docs.github.com/en/webhooks/webhook-events-and-payloads
_NAMES = {
    "zen": "ping", "hook": "meta", "starred_at": "star", "pusher": "push", "pusher_type": "create delete",
    "forkee": "fork", "pages": "gollum", "client_payload": "repository_dispatch", "inputs": "workflow_dispatch",
    "build": "page_build", "blocked_user": "org_block", "key": "deploy_key", "context": "status",
    "repositories_added": "installation_repositories", "repositories": "installation", "since": "deployment_review",
    "alert": "code_scanning_alert dependabot_alert "
    "secret_scanning_alert secret_scanning_alert_location repository_vulnerability_alert",
    "thread": "pull_request_review_thread",
    "review": "pull_request_review", "pull_request": "pull_request", "issue": "issues", "discussion": "discussion",
    "workflow_job": "workflow_job", "deployment_status": "deployment_status",
    "deployment": "deployment deployment_protection_rule",
    "workflow_run": "workflow_run", "check_run": "check_run", "check_suite": "check_suite", "release": "release",
    "milestone": "milestone", "label": "label", "member": "member membership", "membership": "organization",
    "team": "team team_add",
}  # fmt: skip
_COMMENTED = {
    "pull_request": "pull_request_review_comment", "issue": "issue_comment", "discussion": "discussion_comment",
}  # fmt: skip
_EVERYWHERE = {"action", "changes", "repository", "organization", "enterprise", "installation", "sender"}
_BARE = ("watch", "public", "repository", "organization", "installation")
_UNKNOWN = "unknown"


class GitHub(Scheme):
    """``X-Hub-Signature-256: sha256=<hex>``: HMAC-SHA256 of the raw body, and of nothing else. There is no timestamp;
    the older ``X-Hub-Signature`` (SHA-1) is ignored.

    So whoever has one signed body can send it again with any ``X-GitHub-Event`` and ``X-GitHub-Delivery``. An event's
    id is therefore its body's digest, whatever the delivery is called, and the event's name only counts where the body
    can be of it: else its type is ``unknown``, and an endpoint that allows certain types does not take it.
    """

    provider, title = "github", "GitHub"
    generated_secret_prefix = "ghwh_"  # noqa: S105 - no secret: how those that we make begin

    def verify(self, delivery: Delivery, trust: Trust) -> bool:
        return any_equal(
            [as_bytes(header(delivery, "x-hub-signature-256"))],
            [b"sha256=" + hmac.digest(key, delivery.body, "sha256").hex().encode() for key in trust.keys],
        )

    def events(self, delivery: Delivery) -> list[Event]:
        """https://docs.github.com/en/webhooks/webhook-events-and-payloads#delivery-headers. The type is the event's
        name and action, as in ``issues.opened``."""
        body = parsed_object(delivery.body)
        name = header(delivery, "x-github-event")
        if not name:
            raise MalformedBody("the delivery has no X-GitHub-Event.")
        kind = ".".join(filter(None, (name, scalar(body.get("action"))))) if _can_be(name, body) else _UNKNOWN
        return [Event(digest(delivery.body), storable(kind), _entity(name, body), delivery.body.decode())]


def _can_be(name: str, body: dict[str, Any]) -> bool:
    if isinstance(body.get("comment"), dict):
        return name == next((called for member, called in _COMMENTED.items() if member in body), "commit_comment")
    for member, names in _NAMES.items():
        if member in body:
            return name in names.split()
    told = body.keys() - _EVERYWHERE
    # Of names that are not listed, an event brings what it is called by.
    return not told.isdisjoint({name, name.removesuffix("s"), name.rpartition("_")[2]}) if told else name in _BARE


def _entity(name: str, body: dict[str, Any]) -> str:
    """``issues`` is about the body's issue, ``issue_comment`` about its comment, ``push`` about the repository."""
    for member in (name, name.removesuffix("s"), name.rpartition("_")[2], "repository", "organization"):
        found = body.get(member)
        if isinstance(found, dict) and scalar(found.get("id")):
            return entity(member, found["id"])
    return ""
