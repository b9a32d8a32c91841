"""Stripe: https://docs.stripe.com/webhooks#verify-manually, https://docs.stripe.com/api/events/object"""

from __future__ import annotations

import hmac
from typing import Any

from webhook_gateway.schemes.bodies import entity, parsed_object, required, storable
from webhook_gateway.schemes.sdk import Delivery, Event, Scheme, Trust
from webhook_gateway.schemes.signatures import any_equal, as_bytes, header, is_recent


class Stripe(Scheme):
    """``Stripe-Signature: t=<seconds>,v1=<hex>[,v1=…]``: HMAC-SHA256 of ``t.body``. While a secret is rolled there is a
    v1 for each. v0 is of test events and proves nothing."""

    provider, title = "stripe", "Stripe"

    def verify(self, delivery: Delivery, trust: Trust) -> bool:
        items = [item.partition("=") for item in header(delivery, "stripe-signature").split(",")]
        times = [value for name, _, value in items if name == "t"]
        if len(times) != 1 or not is_recent(times[0], delivery.received_at):
            return False
        signed = as_bytes(times[0]) + b"." + delivery.body
        return any_equal(
            [as_bytes(value) for name, _, value in items if name == "v1"],
            [hmac.digest(key, signed, "sha256").hex().encode() for key in trust.keys],
        )

    def events(self, delivery: Delivery) -> list[Event]:
        event = parsed_object(delivery.body)
        identifier, kind = required(event, "id"), required(event, "type")
        return [Event(storable(identifier), storable(kind), _entity(event), delivery.body.decode())]


def _entity(event: dict[str, Any]) -> str:
    data = event.get("data")
    found = data.get("object") if isinstance(data, dict) else None
    if isinstance(found, dict) and isinstance(found.get("object"), str):
        return entity(found["object"], found.get("id"))
    # A thin event only names what it is about: https://docs.stripe.com/event-destinations#thin-events
    related = event.get("related_object")
    if isinstance(related, dict) and isinstance(related.get("type"), str):
        return entity(related["type"], related.get("id"))
    return ""
