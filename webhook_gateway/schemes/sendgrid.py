"""SendGrid's Event Webhook: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/
getting-started-event-webhook-security-features"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from webhook_gateway.schemes.bodies import as_json, digest_of, entity, parsed_batch, scalar, storable
from webhook_gateway.schemes.sdk import Delivery, Event, Scheme, Trust
from webhook_gateway.schemes.signatures import as_bytes, from_base64, header, is_recent

_ALGORITHM = ECDSA(SHA256())


class SendGrid(Scheme):
    """ECDSA over the timestamp and the raw body. The "secret" is the verification key that SendGrid shows: the base64
    of a DER public key on P-256. It only verifies, so it need not be kept from anybody."""

    provider, title = "sendgrid", "SendGrid"

    def verify(self, delivery: Delivery, trust: Trust) -> bool:
        time = header(delivery, "x-twilio-email-event-webhook-timestamp")
        signature = from_base64(header(delivery, "x-twilio-email-event-webhook-signature"))
        if not signature or not is_recent(time, delivery.received_at):
            return False
        signed = as_bytes(time) + delivery.body
        found = False
        for secret in trust.secrets:
            key = _key(secret)
            if key is not None:
                found |= _signed(key, signature, signed)
        return found

    def events(self, delivery: Delivery) -> list[Event]:
        """https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event: ``sg_event_id`` is at most 100
        characters, the same in every attempt, and may be absent. What does not say what it is costs no other."""
        return [
            Event(
                storable(scalar(item.get("sg_event_id")) or digest_of(item)),
                storable(scalar(item.get("event")) or "unknown"),
                entity("email", item.get("email")) or entity("message", item.get("sg_message_id")),
                as_json(item),
            )
            for item in parsed_batch(delivery.body)
        ]


@lru_cache(maxsize=1024)
def _key(secret: str) -> EllipticCurvePublicKey | None:
    try:
        key = load_der_public_key(from_base64(secret.strip()))
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1) else None


def _signed(key: EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed, _ALGORITHM)
    except InvalidSignature:
        return False
    return True
