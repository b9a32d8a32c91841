"""HubSpot: https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any
from urllib.parse import unquote

from webhook_gateway.schemes.bodies import as_json, digest_of, entity, parsed_batch, scalar, storable
from webhook_gateway.schemes.sdk import Delivery, Event, Scheme, Trust
from webhook_gateway.schemes.signatures import any_equal, as_bytes, header, is_recent

# The table in HubSpot's description of v3: these are decoded before signing, and no others. What they stand for is no
# part of another one, so that they can be replaced one after the other.
_DECODED = {
    spelled: unquote(code)
    for code in ("%3A", "%2F", "%3F", "%40", "%21", "%24", "%27", "%28", "%29", "%2A", "%2C", "%3B")
    for spelled in {code, code.lower()}
}
_LONGEST_URL = 4096
_OLDER = "signature_versions"


class HubSpot(Scheme):
    """v3: HMAC-SHA256 of method, URL, body and a timestamp, which is held to five minutes. HubSpot sends the older
    signatures along with it, and those are bare SHA-256 sums that never age: v1 of the secret and the body only. Who
    takes the headers of v3 off a delivery that he has seen could repeat it for ever, at every endpoint of that secret.
    So v3 is asked for. An app that HubSpot signs with an older version alone has it in the endpoint's option
    ``signature_versions`` (``v1``, ``v2``); even there, a delivery that says v3 must prove it."""

    provider, title = "hubspot", "HubSpot"

    def verify(self, delivery: Delivery, trust: Trust) -> bool:
        secrets = trust.keys
        if "x-hubspot-signature-v3" in delivery.headers:
            offered = header(delivery, "x-hubspot-signature-v3")
            time = header(delivery, "x-hubspot-request-timestamp")
            if len(delivery.url) > _LONGEST_URL or not is_recent(time, delivery.received_at, per_second=1000):
                return False
            signed = as_bytes(delivery.method + _decoded(delivery.url)) + delivery.body + as_bytes(time)
            expected = [base64.b64encode(hmac.digest(key, signed, "sha256")) for key in secrets]
        else:
            offered = header(delivery, "x-hubspot-signature")
            version = header(delivery, "x-hubspot-signature-version")
            if version not in trust.options.get(_OLDER, ()):
                return False
            if version == "v1":
                signed = delivery.body
            elif version == "v2":
                signed = as_bytes(delivery.method + delivery.url) + delivery.body
            else:
                return False
            expected = [hashlib.sha256(key + signed).hexdigest().encode() for key in secrets]
        return any_equal([as_bytes(offered)], expected)

    def events(self, delivery: Delivery) -> list[Event]:
        """https://developers.hubspot.com/docs/api/webhooks#webhook-payloads: an array, of up to 100."""
        return [
            Event(_id(item), storable(scalar(item.get("subscriptionType")) or "unknown"), _entity(item), as_json(item))
            for item in parsed_batch(delivery.body)
        ]


def _decoded(url: str) -> str:
    for spelled, character in _DECODED.items():
        url = url.replace(spelled, character)
    return url


def _id(item: dict[str, Any]) -> str:
    """``eventId`` alone is not promised to be unique; ``attemptNumber`` differs between attempts of one event."""
    if not scalar(item.get("eventId")):
        return digest_of(item, without="attemptNumber")
    return storable(
        ":".join(scalar(item.get(name)) for name in ("eventId", "subscriptionId", "portalId", "occurredAt"))
    )


def _entity(item: dict[str, Any]) -> str:
    """``contact.creation`` is of contact objectId; ``object.creation`` names the kind in objectTypeId, e.g. 0-1. A
    change of an association has two ends and counts for the first."""
    kind = scalar(item.get("objectTypeId")) or scalar(item.get("subscriptionType")).partition(".")[0]
    return entity(kind, item.get("objectId")) or entity(kind, item.get("fromObjectId"))
