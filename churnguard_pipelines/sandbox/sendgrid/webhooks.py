"""The event webhook: what happens to messages, as SendGrid shows and posts it: signed, in no order, some of it twice.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
"""

from __future__ import annotations

import base64
import hashlib
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from random import Random
from threading import Event, Thread
from typing import Any

import httpx
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, derive_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from churnguard_pipelines.sandbox.sendgrid.account import GROUPS, Account
from churnguard_pipelines.sandbox.sendgrid.sending import Happening
from churnguard_pipelines.sandbox.sendgrid.stats import classification_of

MOST = 100  # of one delivery; the real one goes by bytes
LOOK_EVERY = 0.1  # seconds
TIMEOUT = 5.0
LONGEST_PAUSE = 30.0
REPEATED = 11  # every so many events come twice
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


@dataclass
class _Subscriber:
    """`place`: of the account's next event; `batch`: what is on its way; `again`: not before then."""

    account: Account
    url: str
    place: int
    chance: Random
    batch: list[dict[str, Any]] = field(default_factory=list)
    twice: list[dict[str, Any]] = field(default_factory=list)
    attempt: int = 0
    again: float = 0.0


class Webhooks:
    """Where the accounts' events go, from a thread of its own."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._subscribers: dict[str, _Subscriber] = {}
        self._stop = Event()
        self._thread: Thread | None = None
        self.delivered = 0

    def subscribe(self, account: Account, url: str, *, since: int | None = None) -> None:
        """Events from now on, or from the account's event of this number on. A second subscription replaces the
        first."""
        with self._lock:
            account.follow()
            place = len(account.sending.happened) if since is None else since
        self._subscribers[account.name] = _Subscriber(account, url, place, Random(account.name))  # noqa: S311
        if self._thread is None:
            self._thread = Thread(target=self._run, name="sendgrid-webhooks", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=TIMEOUT) as client:
            while not self._stop.wait(LOOK_EVERY):
                for subscriber in list(self._subscribers.values()):
                    while self._deliver(client, subscriber) and not self._stop.is_set():
                        pass

    def _deliver(self, client: httpx.Client, subscriber: _Subscriber) -> bool:
        """Sends one batch; False where there is none, or where it was not taken."""
        if time.monotonic() < subscriber.again:
            return False
        if not subscriber.batch:
            self._fill(subscriber)
        if not subscriber.batch:
            return False
        if _accepted(client, subscriber, orjson.dumps(subscriber.batch) + b"\r\n"):
            self.delivered += len(subscriber.batch)
            subscriber.batch, subscriber.attempt = [], 0
            return True
        subscriber.attempt += 1
        subscriber.again = time.monotonic() + min(0.2 * 2**subscriber.attempt, LONGEST_PAUSE)
        return False

    def _fill(self, subscriber: _Subscriber) -> None:
        account = subscriber.account
        with self._lock:
            account.follow()
            room = MOST - len(subscriber.twice)
            happened = account.sending.happened[subscriber.place : subscriber.place + room]
            fresh = [event_of(account, each, place) for place, each in enumerate(happened, subscriber.place)]
        subscriber.place += len(fresh)
        subscriber.batch = subscriber.twice + fresh
        subscriber.twice = fresh[::REPEATED]
        subscriber.chance.shuffle(subscriber.batch)


def signed(account: str, body: bytes, moment: str) -> str:
    return base64.b64encode(private_key(account).sign(moment.encode() + body, ECDSA(SHA256()))).decode()


def _accepted(client: httpx.Client, subscriber: _Subscriber, body: bytes) -> bool:
    moment = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "SendGrid Event API",
        "X-Twilio-Email-Event-Webhook-Timestamp": moment,
        "X-Twilio-Email-Event-Webhook-Signature": signed(subscriber.account.name, body, moment),
    }
    try:
        return client.post(subscriber.url, content=body, headers=headers).is_success
    except httpx.TransportError:
        return False
