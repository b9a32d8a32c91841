"""Delivers events as Stripe does: signed, one by one, again until somebody answers 2xx. docs.stripe.com/webhooks"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from dataclasses import dataclass

import httpx

from churnguard_pipelines.sandbox.world import World

LOOK_EVERY = 0.2  # seconds
TIMEOUT = 10.0
LONGEST_PAUSE = 30.0


@dataclass(slots=True)
class Subscriber:
    """Where an account's events go. `place`: of the next one; `again`: not before then."""

    account: str
    url: str
    secret: str
    place: int
    again: float = 0.0
    pause: float = 0.5


class Deliveries:
    def __init__(self, world: World) -> None:
        self._world = world
        self._subscribers: dict[str, Subscriber] = {}
        self.delivered = 0

    def subscribe(self, account: str, url: str, secret: str) -> None:
        """Events from now on. A second subscription of an account replaces the first. KeyError: no such account."""
        with self._world.lock:
            _, end = self._world.businesses[account].events.places(None, None)
            self._subscribers[account] = Subscriber(account, url, secret, end)

    async def run(self) -> None:
        """Until it is cancelled."""
        async with httpx.AsyncClient(timeout=TIMEOUT) as client:
            while True:
                for subscriber in list(self._subscribers.values()):
                    await self._deliver(client, subscriber)
                await asyncio.sleep(LOOK_EVERY)

    async def _deliver(self, client: httpx.AsyncClient, subscriber: Subscriber) -> None:
        events = self._world.businesses[subscriber.account].events
        while time.monotonic() >= subscriber.again:
            with self._world.lock:
                _, end = events.places(None, None)
                if subscriber.place >= end:
                    return
                body = events.record(subscriber.place).body
            if await _accepted(client, subscriber, body):
                subscriber.place += 1
                subscriber.pause = 0.5
                self.delivered += 1
            else:
                subscriber.again = time.monotonic() + subscriber.pause
                subscriber.pause = min(subscriber.pause * 2, LONGEST_PAUSE)


async def _accepted(client: httpx.AsyncClient, subscriber: Subscriber, body: bytes) -> bool:
    moment = str(int(time.time()))
    digest = hmac.new(subscriber.secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": f"t={moment},v1={digest}"}
    try:
        return (await client.post(subscriber.url, content=body, headers=headers)).is_success
    except httpx.TransportError:
        return False
