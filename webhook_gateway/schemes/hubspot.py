"""HubSpot: https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Any
from urllib.parse import unquote

from webhook_gateway.schemes.bodies import as_json, digest_of, entity, parsed_batch, scalar, storable
from webhook_gateway.schemes.sdk import Delivery, Event, Scheme, Trust
from webhook_gateway.schemes.signatures import any_equal, as_bytes, is_recent, keys

# The table in HubSpot's description of v3: these are decoded before signing, and no others.
_DECODED = re.compile("%(?:3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)


class HubSpot(Scheme):
    """v3 is verified whenever its header is there: HubSpot sends the older signatures along with it, and falling back
    to them would let a replay through that v3 refuses. v1 and v2 are bare SHA-256 sums, which can be prolonged without
    the secret, but only with bytes that no JSON holds."""

    provider, title = "hubspot", "HubSpot"

    def verify(self, delivery: Delivery, trust: Trust) -> bool:
        headers, secrets = delivery.headers, keys(trust)
        if "x-hubspot-signature-v3" in headers:
            offered = headers["x-hubspot-signature-v3"]
            time = headers.get("x-hubspot-request-timestamp", "")
            if not is_recent(time, delivery.received_at, per_second=1000):
                return False
            url = _DECODED.sub(lambda found: unquote(found[0]), delivery.url)
            signed = as_bytes(delivery.method + url) + delivery.body + as_bytes(time)
            expected = [base64.b64encode(hmac.digest(key, signed, "sha256")) for key in secrets]
        else:
            offered = headers.get("x-hubspot-signature", "")
            version = headers.get("x-hubspot-signature-version", "")
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
