"""Sessions that work off webhook events: a lane is an integration's inbox, woken by the intake's notification."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import psycopg

from churnguard_pipelines.errors import ChurnGuardError, NotFound
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.integrations import organization_of
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.ingest.inbox_order import Settled
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.session import LaneKind, Turn
from churnguard_pipelines.syncing.webhook_lane import InboxLane

WEBHOOKS = "webhooks"
LANE_KEPT = 300.0  # seconds; an opened lane is opened anew after this: its credentials or settings may have changed


class Inboxes(LaneKind):
    name = WEBHOOKS
    busy_turn = 5.0

    def __init__(self, store: Store) -> None:
        self._store = store
        self._warehouse = Warehouse(store)
        self._settled = Settled(store)
        self._kept: dict[str, tuple[InboxLane, float]] = {}  # opened, not at work; until when
        self._organizations: dict[str, str] = {}
        self._events: Counter[tuple[str, str, str]] = Counter()  # by (organization, endpoint, outcome)
        self._lock = threading.Lock()

    @contextmanager
    def opened(self, stopped: threading.Event) -> Iterator[Callable[[float], Iterable[Lane]]]:
        with psycopg.connect(self._store.database_url, autocommit=True) as connection:
            connection.execute(f"LISTEN {inbox.CHANNEL}")

            def wake(seconds: float) -> Iterable[Lane]:
                notified = {each.payload for each in connection.notifies(timeout=seconds, stop_after=1)}
                return [lane for name in notified if (lane := self._lane(name)) is not None]

            try:
                yield wake
            finally:
                with self._lock:
                    kept, self._kept = self._kept, {}
                for lane, _ in kept.values():
                    _close(lane)

    def waiting(self) -> Sequence[Lane]:
        """Events of providers without a connector wait for one."""
        return [item.lane for item in inbox.waiting(self._store, limit=1)]

    def work(self, turn: Turn) -> bool:
        name = turn.lane.integration_id
        with self._lock:
            lane, until = self._kept.pop(name, (None, 0.0))
        if lane is not None and until < time.monotonic():
            _close(lane)
            lane = None
        if lane is None:
            lane = InboxLane(self._store, self._warehouse, self._settled, name)
            until = time.monotonic() + LANE_KEPT
        try:
            for drained in lane.drain(lambda: not turn.stop.is_set()):
                with self._lock:
                    for (endpoint_id, outcome), events in drained.outcomes.items():
                        self._events[turn.lane.organization_id, endpoint_id, outcome] += events
                turn.note(drained.counts)
        finally:
            with self._lock:
                self._kept[name] = lane, until
        return turn.stop.is_set()

    def tell(self) -> None:
        with self._lock:
            events, self._events = self._events, Counter()
        with suppress(ChurnGuardError):
            inbox.count(self._store, [(*key, number) for key, number in events.items()])

    def _lane(self, integration_id: str) -> Lane | None:
        if integration_id not in self._organizations:
            with suppress(NotFound):  # removed meanwhile, or events that no connector works off
                self._organizations[integration_id] = organization_of(self._store, integration_id)
        organization_id = self._organizations.get(integration_id)
        return None if organization_id is None else inbox.lane_of(organization_id, integration_id)


def _close(lane: InboxLane) -> None:
    with suppress(Exception):
        lane.__exit__(None, None, None)
