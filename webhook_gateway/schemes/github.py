"""GitHub: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""

from __future__ import annotations

import hmac
from typing import Any

from webhook_gateway.schemes.bodies import digest, entity, parsed_object, scalar, storable
from webhook_gateway.schemes.sdk import Delivery, Event, MalformedBody, Scheme, Trust
from webhook_gateway.schemes.signatures import any_equal, as_bytes, keys


class GitHub(Scheme):
    """``X-Hub-Signature-256: sha256=<hex>``: HMAC-SHA256 of the raw body. There is no timestamp; the older
    ``X-Hub-Signature`` (SHA-1) is ignored."""

    provider, title = "github", "GitHub"
    generated_secret_prefix = "ghwh_"  # noqa: S105 - no secret: how those that we make begin

    def verify(self, delivery: Delivery, trust: Trust) -> bool:
        return any_equal(
            [as_bytes(delivery.headers.get("x-hub-signature-256", ""))],
            [b"sha256=" + hmac.digest(key, delivery.body, "sha256").hex().encode() for key in keys(trust)],
        )

    def events(self, delivery: Delivery) -> list[Event]:
        """https://docs.github.com/en/webhooks/webhook-events-and-payloads#delivery-headers. ``X-GitHub-Delivery`` stays
        the same when a delivery is repeated. The type is the event's name and action, as in ``issues.opened``."""
        body = parsed_object(delivery.body)
        name = delivery.headers.get("x-github-event", "")
        if not name:
            raise MalformedBody("the delivery has no X-GitHub-Event.")
        identifier = delivery.headers.get("x-github-delivery", "") or digest(name, delivery.body)
        kind = ".".join(filter(None, (name, scalar(body.get("action")))))
        return [Event(storable(identifier), storable(kind), _entity(name, body), delivery.body.decode())]


def _entity(name: str, body: dict[str, Any]) -> str:
    """``issues`` is about the body's issue, ``issue_comment`` about its comment, ``push`` about the repository."""
    for member in (name, name.removesuffix("s"), name.rpartition("_")[2], "repository", "organization"):
        found = body.get(member)
        if isinstance(found, dict) and scalar(found.get("id")):
            return entity(member, found["id"])
    return ""
