"""Delivers events as HubSpot does: signed by v3, a hundred at most, in no order, some of them twice, and again until
somebody answers 2xx or ten attempts were made. https://developers.hubspot.com/docs/api-reference/webhooks-webhooks-v3
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from random import Random
from threading import Event, Thread
from typing import Any

import httpx
import orjson

from churnguard_pipelines.sandbox.hubspot.portal import Portal

MOST = 100
ATTEMPTS = 10
LOOK_EVERY = 0.1  # seconds
TIMEOUT = 5.0
LONGEST_PAUSE = 30.0
REPEATED = 9  # every so many events comes twice
APP_ID = 1160452
# Decoded in the address before it is signed, and no others
_DECODED = {"%3A": ":", "%2F": "/", "%3F": "?", "%40": "@", "%21": "!", "%24": "$", "%27": "'", "%28": "(", "%29": ")",
            "%2A": "*", "%2C": ",", "%3B": ";"}  # fmt: skip


@dataclass
class _Subscriber:
    """`place`: of the portal's next event; `batch`: what is on its way; `again`: not before then."""

    portal: Portal
    url: str
    secret: str
    place: int
    chance: Random
    batch: list[dict[str, Any]] = field(default_factory=list)
    twice: list[dict[str, Any]] = field(default_factory=list)
    attempt: int = 0
    again: float = 0.0


class Webhooks:
    """Where the portals' events go, from a thread of its own."""

    def __init__(self, lock: AbstractContextManager[object], follow: Callable[[Portal], None]) -> None:
        self._lock, self._follow = lock, follow
        self._subscribers: dict[int, _Subscriber] = {}
        self._stop = Event()
        self._thread: Thread | None = None
        self.delivered = 0

    def subscribe(self, portal: Portal, url: str, secret: str) -> None:
        """Events from now on. A portal's second subscription replaces its first."""
        with self._lock:
            place = len(portal.events)
        self._subscribers[portal.id] = _Subscriber(portal, url, secret, place, Random(portal.id))  # noqa: S311
        if self._thread is None:
            self._thread = Thread(target=self._run, name="hubspot-webhooks", daemon=True)
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
        body = orjson.dumps([{**event, "attemptNumber": subscriber.attempt} for event in subscriber.batch])
        if _accepted(client, subscriber, body):
            self.delivered += len(subscriber.batch)
        else:
            subscriber.attempt += 1
            if subscriber.attempt < ATTEMPTS:
                subscriber.again = time.monotonic() + min(0.2 * 2**subscriber.attempt, LONGEST_PAUSE)
                return False
        subscriber.batch, subscriber.attempt = [], 0
        return True

    def _fill(self, subscriber: _Subscriber) -> None:
        portal = subscriber.portal
        with self._lock:
            self._follow(portal)
            room = MOST - len(subscriber.twice)
            fresh = list(enumerate(portal.events[subscriber.place : subscriber.place + room], subscriber.place))
        events = [
            {**event, "eventId": 3_000_000_000 + place, "subscriptionId": _subscription(event), "portalId": portal.id,
             "appId": APP_ID}
            for place, event in fresh
        ]  # fmt: skip
        subscriber.place += len(fresh)
        subscriber.batch = subscriber.twice + events
        subscriber.twice = [event for event in events if event["eventId"] % REPEATED == 0]
        subscriber.chance.shuffle(subscriber.batch)


def _subscription(event: dict[str, Any]) -> int:
    """One for every type of event, and for every property whose changes are told."""
    name = f"{event['subscriptionType']}/{event.get('propertyName', '')}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:3])


def signed(secret: str, method: str, url: str, body: bytes, moment: int) -> str:
    """X-HubSpot-Signature-v3 of a request at a moment in milliseconds."""
    for code, character in _DECODED.items():
        url = url.replace(code, character).replace(code.lower(), character)
    message = f"{method}{url}".encode() + body + str(moment).encode()
    return base64.b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode()


def _accepted(client: httpx.Client, subscriber: _Subscriber, body: bytes) -> bool:
    moment = int(time.time() * 1000)
    headers = {
        "Content-Type": "application/json;charset=utf-8",
        "User-Agent": "HubSpot Connect 2.0 (http://dev.hubspot.com/) - WebhooksExecutorDaemon-executor",
        "X-HubSpot-Request-Timestamp": str(moment),
        "X-HubSpot-Signature-v3": signed(subscriber.secret, "POST", subscriber.url, body, moment),
        # The older one comes along
        "X-HubSpot-Signature": hashlib.sha256(subscriber.secret.encode() + body).hexdigest(),
        "X-HubSpot-Signature-Version": "v1",
    }
    try:
        return client.post(subscriber.url, content=body, headers=headers).is_success
    except httpx.TransportError:
        return False
