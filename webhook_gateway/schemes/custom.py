"""Any sender that follows Standard Webhooks:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"""

from __future__ import annotations

import base64
import hmac
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from webhook_gateway.schemes.bodies import digest, entity, parsed_object, scalar, storable
from webhook_gateway.schemes.sdk import Delivery, Event, Scheme, Trust
from webhook_gateway.schemes.signatures import any_equal, as_bytes, from_base64, header, is_recent

_MOST_ASYMMETRIC = 4  # each costs some 100 µs per key


class Custom(Scheme):
    """``webhook-signature``: signatures of ``id.timestamp.body``, separated by spaces. What a secret begins with says
    which ones it can verify: ``whsec_`` (base64 of a key) v1, HMAC-SHA256; ``whpk_`` (base64 of a public key) v1a,
    ed25519. The delivery has no say in it."""

    provider, title = "custom", "Standard Webhooks"
    generated_secret_prefix = "whsec_"  # noqa: S105 - no secret: how those that we make begin

    def verify(self, delivery: Delivery, trust: Trust) -> bool:
        identifier, time = header(delivery, "webhook-id"), header(delivery, "webhook-timestamp")
        if not identifier or not is_recent(time, delivery.received_at):
            return False
        signed = as_bytes(f"{identifier}.{time}.") + delivery.body
        offered = [item.partition(",") for item in header(delivery, "webhook-signature").split(" ")]
        symmetric = [as_bytes(value) for version, _, value in offered if version == "v1"]
        shared = filter(None, (_decoded(secret, "whsec_") for secret in trust.secrets))
        found = any_equal(symmetric, [base64.b64encode(hmac.digest(key, signed, "sha256")) for key in shared])
        asymmetric = [from_base64(value) for version, _, value in offered if version == "v1a"]
        if len(asymmetric) <= _MOST_ASYMMETRIC:
            for key in filter(None, map(_public_key, trust.secrets)):
                for signature in asymmetric:
                    found |= _signed(key, signature, signed)
        return found

    def events(self, delivery: Delivery) -> list[Event]:
        """One per delivery. ``type`` is recommended, not required. ``webhook-id`` is signed and the same in every
        attempt; it can only be missing where nobody verifies."""
        body = parsed_object(delivery.body)
        kind = storable(scalar(body.get("type")) or "unknown")
        identifier = header(delivery, "webhook-id") or digest(delivery.body)
        return [Event(storable(identifier), kind, _entity(kind, body.get("data")), delivery.body.decode())]


def _entity(kind: str, data: Any) -> str:
    """``contact.created`` with ``data.id`` 7 is about ``contact:7``."""
    return entity(kind.rpartition(".")[0] or kind, data.get("id")) if isinstance(data, dict) else ""


def _decoded(secret: str, prefix: str) -> bytes:
    return from_base64(secret[len(prefix) :]) if secret.startswith(prefix) else b""


@lru_cache(maxsize=1024)
def _public_key(secret: str) -> Ed25519PublicKey | None:
    try:
        return Ed25519PublicKey.from_public_bytes(_decoded(secret, "whpk_"))
    except ValueError:
        return None


def _signed(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True
