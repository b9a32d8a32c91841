"""Delivers events as HubSpot and SendGrid do: a hundred at most, in no order, some of them twice, and again until
somebody answers 2xx or the provider gives up."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from math import inf
from random import Random
from threading import Event, Thread
from typing import Any, ClassVar

import httpx

MOST = 100  # of one delivery; SendGrid's real one goes by bytes
LOOK_EVERY = 0.1  # seconds
TIMEOUT = 5.0
LONGEST_PAUSE = 30.0
REPEATED = 9  # every so many events comes twice


class Subscriber(ABC):
    """Where an account's events go. `place`: of the account's next event; `batch`: what is on its way; `again`: not
    before then."""

    attempts: ClassVar[float] = inf

    def __init__(self, url: str, place: int, seed: str | int) -> None:
        self.url, self.place = url, place
        self.batch: list[dict[str, Any]] = []
        self.attempt = 0
        self.again = 0.0
        self._twice: list[dict[str, Any]] = []
        self._chance = Random(seed)  # noqa: S311

    @abstractmethod
    def events(self, most: int) -> list[dict[str, Any]]:
        """Those from `place` on. Under the world's lock."""

    @abstractmethod
    def request(self) -> tuple[bytes, dict[str, str]]:
        """Body and headers of the batch that is on its way, signed now."""

    def fill(self) -> None:
        fresh = self.events(MOST - len(self._twice))
        self.batch = self._twice + fresh
        self._twice = [event for place, event in enumerate(fresh, self.place) if (place + 1) % REPEATED == 0]
        self.place += len(fresh)
        self._chance.shuffle(self.batch)

    def taken(self) -> None:
        self.batch, self.attempt = [], 0

    def refused(self) -> None:
        self.attempt += 1
        self.again = time.monotonic() + min(0.2 * 2**self.attempt, LONGEST_PAUSE)
        if self.attempt >= self.attempts:
            self.taken()


class BatchWebhooks:
    """From a thread of its own."""

    def __init__(self, provider: str, lock: AbstractContextManager[object]) -> None:
        self._provider, self._lock = provider, lock
        self._subscribers: dict[str | int, Subscriber] = {}
        self._stop = Event()
        self._thread: Thread | None = None
        self.delivered = 0

    def subscribe(self, account: str | int, subscriber: Subscriber) -> None:
        """An account's second subscription replaces its first."""
        self._subscribers[account] = subscriber
        if self._thread is None:
            self._thread = Thread(target=self._run, name=f"{self._provider}-webhooks", daemon=True)
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

    def _deliver(self, client: httpx.Client, subscriber: Subscriber) -> bool:
        """Sends one batch; False where there is none, or where it was not taken."""
        if time.monotonic() < subscriber.again:
            return False
        if not subscriber.batch:
            with self._lock:
                subscriber.fill()
        if not subscriber.batch:
            return False
        body, headers = subscriber.request()
        try:
            accepted = client.post(subscriber.url, content=body, headers=headers).is_success
        except httpx.TransportError:
            accepted = False
        if not accepted:
            subscriber.refused()
            return False
        self.delivered += len(subscriber.batch)
        subscriber.taken()
        return True
