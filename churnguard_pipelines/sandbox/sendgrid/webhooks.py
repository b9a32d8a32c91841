"""The event webhook: what happens to messages, as SendGrid shows and posts it, signed.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
"""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, derive_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from churnguard_pipelines.sandbox.batch_webhooks import Subscriber
from churnguard_pipelines.sandbox.sendgrid.account import GROUPS, Account
from churnguard_pipelines.sandbox.sendgrid.sending import Happening
from churnguard_pipelines.sandbox.sendgrid.stats import classification_of

USER_AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15"


def private_key(account: str) -> EllipticCurvePrivateKey:
    """The account's own, always the same."""
    number = int.from_bytes(hashlib.sha256(f"sendgrid/{account}".encode()).digest())
    return derive_private_key(number % (2**255) + 1, SECP256R1())


def public_key(account: str) -> str:
    """As the account's settings show it, to verify signatures with."""
    key = private_key(account).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def event_of(account: Account, happening: Happening, place: int) -> dict[str, Any]:
    """`place`: its number among what happened in the account."""
    message, kind = happening.message, happening.kind
    mailing = message.mailing
    digest = hashlib.sha256(f"{account.message_id(message)}/{kind}/{happening.at}/{place}".encode()).digest()
    event: dict[str, Any] = {
        "email": message.email,
        "timestamp": happening.at,
        "event": "bounce" if kind == "blocked" else kind,
        "sg_event_id": base64.urlsafe_b64encode(digest[:18]).decode(),
        "sg_message_id": f"{account.message_id(message)}.0",
        "category": [mailing.topic],
        "mc_stats": "automation" if mailing.step >= 0 else "singlesend",
    }
    if mailing.step >= 0:
        event |= {"mc_auto_id": account.automation_id(), "mc_auto_name": "Onboarding"}
        event |= {"mc_auto_step_id": account.step_id(mailing)}
    else:
        event |= {"singlesend_id": account.single_send_id(mailing), "singlesend_name": mailing.name}
        event |= {"phase_id": "send", "send_at": str(mailing.at * 1000)}
    if kind in ("processed", "deferred", "delivered", "bounce", "blocked", "dropped"):
        event["smtp-id"] = f"<{account.message_id(message)}@geopod-ismtpd-1>"
    if mailing.topic in GROUPS:
        event["asm_group_id"] = GROUPS[mailing.topic]
    match kind:
        case "bounce" | "blocked":
            event |= {"type": kind, "status": "5.1.1", "reason": "550 5.1.1 unknown", "tls": 1, "ip": "192.0.2.17"}
            event["bounce_classification"] = classification_of(message.email)
        case "dropped":
            event["reason"] = "Invalid SMTPAPI header"
        case "deferred":
            event |= {"response": "451 4.7.1 greylisted", "attempt": "1"}
        case "delivered":
            event |= {"response": "250 2.0.0 OK", "ip": "192.0.2.17", "tls": 1}
        case "open" | "click":
            event |= {"ip": "198.51.100.7", "useragent": USER_AGENT, "sg_content_type": "html"}
    if kind == "click":
        event |= {"url": "https://example.com/pricing", "url_offset": {"index": 0, "type": "html"}}
    if kind == "open":
        event["sg_machine_open"] = place % 3 == 0
    return event


class AccountSubscriber(Subscriber):
    """`since`: from the account's event of this number on; None: from now on."""

    def __init__(self, account: Account, url: str, since: int | None) -> None:
        account.follow()
        super().__init__(url, len(account.sending.happened) if since is None else since, account.name)
        self._account = account

    def events(self, most: int) -> list[dict[str, Any]]:
        self._account.follow()
        happened = self._account.sending.happened[self.place : self.place + most]
        return [event_of(self._account, each, place) for place, each in enumerate(happened, self.place)]

    def request(self) -> tuple[bytes, dict[str, str]]:
        body, moment = orjson.dumps(self.batch) + b"\r\n", str(int(time.time()))
        return body, {
            "Content-Type": "application/json",
            "User-Agent": "SendGrid Event API",
            "X-Twilio-Email-Event-Webhook-Timestamp": moment,
            "X-Twilio-Email-Event-Webhook-Signature": signed(self._account.name, body, moment),
        }


def signed(account: str, body: bytes, moment: str) -> str:
    return base64.b64encode(private_key(account).sign(moment.encode() + body, ECDSA(SHA256()))).decode()
