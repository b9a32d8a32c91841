"""Mandrill, Mailchimp Transactional: https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/"""

from __future__ import annotations

import base64
import hmac
from typing import Any

from webhook_gateway.schemes.bodies import as_json, digest, digest_of, entity, parsed_batch, scalar, storable
from webhook_gateway.schemes.forms import CONTENT_TYPES, fields
from webhook_gateway.schemes.sdk import Delivery, Event, MalformedBody, Scheme, Trust
from webhook_gateway.schemes.signatures import any_equal, as_bytes, header

_FIELD = "mandrill_events"


class Mandrill(Scheme):
    """``X-Mandrill-Signature``: base64 HMAC-SHA1 of the URL as configured, then every form field's name and value,
    sorted by name. There is one field; with more, where one ends and the next begins would not be signed. There is no
    timestamp either: a repeated delivery is known by its events' own ids.

    Mandrill tries a URL with HEAD, and only if that fails with a POST signed by a key everybody knows:
    https://mandrill.zendesk.com/hc/en-us/articles/205583217-Introduction-to-Webhooks"""

    provider, title = "mandrill", "Mandrill"
    content_types = CONTENT_TYPES
    probes = ("HEAD",)

    def verify(self, delivery: Delivery, trust: Trust) -> bool:
        offered = header(delivery, "x-mandrill-signature")
        if not offered:  # the form of a stranger is not even read
            return False
        try:
            (name, value), *others = fields(delivery.body)
        except (MalformedBody, ValueError):
            return False
        if name != _FIELD or others:
            return False
        signed = as_bytes(delivery.url + name + value)
        return any_equal(
            [as_bytes(offered)], [base64.b64encode(hmac.digest(key, signed, "sha1")) for key in trust.keys]
        )

    def events(self, delivery: Delivery) -> list[Event]:
        """``mandrill_events`` holds a JSON array of at most 1000:
        https://mandrill.zendesk.com/hc/en-us/articles/360038740594-Webhook-Format"""
        found = [value for name, value in fields(delivery.body) if name == _FIELD]
        if len(found) != 1:
            raise MalformedBody("the form has no mandrill_events, or several.")
        return [
            Event(_id(item), _type(item), _entity(item), as_json(item)) for item in parsed_batch(as_bytes(found[0]))
        ]


def _id(item: dict[str, Any]) -> str:
    """``_id`` is the message's, not the event's. Who opened it and which link was clicked tells apart what happened
    within one second. ``msg`` must not count: it sums up the message's events, and grows."""
    if not scalar(item.get("_id")):
        return digest_of(item)
    return digest(*(scalar(item.get(name)) for name in ("_id", "event", "ts", "url", "ip", "user_agent")))


def _type(item: dict[str, Any]) -> str:
    """Changes of the reject and allow lists have no ``event``, but a type and an action."""
    named = scalar(item.get("event")) or ".".join(filter(None, (scalar(item.get("type")), scalar(item.get("action")))))
    if not named:
        raise MalformedBody("an event has neither 'event' nor 'type'.")
    return storable(named)


def _entity(item: dict[str, Any]) -> str:
    """A message's recipient, or whom an entry of the reject or allow list is of."""
    for name in ("msg", "reject", "entry"):
        about = item.get(name)
        if isinstance(about, dict):
            return entity("email", about.get("email"))
    return ""
