"""What a session measures of its streams, and tells every few seconds in one statement."""

from __future__ import annotations

import threading
import time
from uuid import uuid4

from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest import stream_metrics
from churnguard_pipelines.store.ingest.stream_metrics import Measured
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.streams.lane import Stored

TELL_EVERY = 5.0
ROLL_EVERY = 600.0


class Meter:
    """Thread safe. What was measured and not told yet is lost with the process: it is no record of what is stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = uuid4().hex
        self._lock = threading.Lock()
        self._measured: dict[str, Measured] = {}
        self._told = self._rolled = time.monotonic()

    def add(self, lane: Lane, stored: Stored) -> None:
        with self._lock:
            measured = self._measured.get(lane.integration_id)
            if measured is None:
                measured = self._measured[lane.integration_id] = Measured(lane.organization_id, lane.integration_id)
            counts = stored.counts
            measured.add(counts.read, stored.bytes, counts.rejected, stored.seconds, stored.buffered)

    def tell(self, *, last: bool = False) -> None:
        """Now and then; ``last``: what there is now, as nothing more comes."""
        now = time.monotonic()
        if now - self._told < TELL_EVERY and not last:
            return
        with self._lock:
            measured, self._measured = self._measured, {}
        for each in measured.values():
            each.seconds = now - self._told
        self._told = now
        stream_metrics.record(self._store, self._name, list(measured.values()))
        if now - self._rolled >= ROLL_EVERY:
            self._rolled = now
            stream_metrics.roll(self._store)
