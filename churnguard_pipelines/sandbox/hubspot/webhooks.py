"""Events as HubSpot posts them: signed by v3, and ten attempts at most.
https://developers.hubspot.com/docs/api-reference/webhooks-webhooks-v3
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import orjson

from churnguard_pipelines.sandbox.batch_webhooks import Subscriber
from churnguard_pipelines.sandbox.hubspot.portal import Portal

ATTEMPTS = 10
APP_ID = 1160452
# Decoded in the address before it is signed, and no others
_DECODED = {"%3A": ":", "%2F": "/", "%3F": "?", "%40": "@", "%21": "!", "%24": "$", "%27": "'", "%28": "(", "%29": ")",
            "%2A": "*", "%2C": ",", "%3B": ";"}  # fmt: skip


class PortalSubscriber(Subscriber):
    """`follow`: brings a portal's events up to what has happened. From the portal's next event on."""

    attempts = ATTEMPTS

    def __init__(self, portal: Portal, follow: Callable[[Portal], None], url: str, secret: str) -> None:
        super().__init__(url, len(portal.events), portal.id)
        self._portal, self._follow, self._secret = portal, follow, secret

    def events(self, most: int) -> list[dict[str, Any]]:
        portal = self._portal
        self._follow(portal)
        return [
            {**event, "eventId": 3_000_000_000 + place, "subscriptionId": _subscription(event), "portalId": portal.id,
             "appId": APP_ID}
            for place, event in enumerate(portal.events[self.place : self.place + most], self.place)
        ]  # fmt: skip

    def request(self) -> tuple[bytes, dict[str, str]]:
        body = orjson.dumps([{**event, "attemptNumber": self.attempt} for event in self.batch])
        moment = int(time.time() * 1000)
        return body, {
            "Content-Type": "application/json;charset=utf-8",
            "User-Agent": "HubSpot Connect 2.0 (http://dev.hubspot.com/) - WebhooksExecutorDaemon-executor",
            "X-HubSpot-Request-Timestamp": str(moment),
            "X-HubSpot-Signature-v3": signed(self._secret, "POST", self.url, body, moment),
            # The older one comes along
            "X-HubSpot-Signature": hashlib.sha256(self._secret.encode() + body).hexdigest(),
            "X-HubSpot-Signature-Version": "v1",
        }


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
