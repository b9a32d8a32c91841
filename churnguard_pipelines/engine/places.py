"""Places that all processes share: a provider's connections, where it counts how many are open with one key.

A place is an advisory lock on a connection to our own database, so that a process that is killed leaves none taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.locks import PlaceLocks

LOOK_EVERY = 0.02
"""Seconds until somebody who found none looks again."""


class Places:
    """``most`` of a ``name`` for all processes together. Thread safe; opens its connection when it is first used."""

    def __init__(self, store: Store, name: str, most: int) -> None:
        self._store, self._name, self._most = store, name, most
        self._locks: PlaceLocks | None = None
        self._lock = Lock()

    @contextmanager
    def held(self, clock: Clock) -> Iterator[None]:
        """Waits for a place and holds it. Raises ``Stopped`` when the run is cancelled."""
        while (place := self._take()) is None:
            clock.wait(LOOK_EVERY)
        try:
            yield
        finally:
            self._leave(place)

    def close(self) -> None:
        with self._lock:
            if self._locks is not None:
                self._locks.close()
                self._locks = None

    def _take(self) -> int | None:
        with self._lock:
            if self._locks is None or self._locks.broken:  # a lost connection has lost its places
                self._locks = PlaceLocks(self._store.database_url, self._name, self._most)
            return self._locks.take()

    def _leave(self, place: int) -> None:
        with self._lock:
            if self._locks is not None:
                self._locks.leave(place)
