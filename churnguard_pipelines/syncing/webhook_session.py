"""A warm session: works off every integration's webhook events as they come, until all was quiet for a while."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import psycopg

from churnguard_pipelines.engine.fair_threads import FairThreads
from churnguard_pipelines.errors import ChurnGuardError, LaneTakenOver, NotFound
from churnguard_pipelines.records import Counts
from churnguard_pipelines.store.control.integrations import organization_of
from churnguard_pipelines.store.ingest import inbox, sessions
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.webhook_lane import NOT_ITS_FAULT, Drained, InboxLane

KIND = "webhooks"
LINGER = 60.0
MAX_AGE = 900.0
LANES_AT_ONCE, LANES_AT_ONCE_EACH = 8, 4  # of all organizations and of each
END_WITHIN = 10.0  # seconds; a provider that does not let go of its thread by then keeps it, and nothing else
LOOK_EVERY = 5.0  # at the whole inbox: what a notification did not say, e.g. of a lane that had to wait
IDLE_LOOK, BUSY_LOOK = 0.5, 0.05  # at what threads have done; a notification wakes at once
TELL_EVERY = 1.0
AT_ONCE = 10_000  # events of one integration, before others have their turn
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # of a lane whose provider or database cannot be reached
LANE_KEPT = 300.0  # an opened lane is opened anew after this: its credentials or settings may have changed

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Worked:
    """What a session did since it last told. ``events``: by (organization, endpoint, outcome); ``counts``: of records,
    by (integration, object)."""

    events: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    counts: dict[tuple[str, str], Counts] = field(default_factory=dict)


@dataclass(slots=True)
class _Open:
    lane: InboxLane
    until: float


class WebhookSession:
    """``linger``: seconds of quiet after which it ends; ``max_age``: after which it ends anyway."""

    def __init__(
        self,
        store: Store,
        session_id: str,
        *,
        linger: float = LINGER,
        max_age: float = MAX_AGE,
        on_worked: Callable[[Worked], None] = lambda worked: None,
    ) -> None:
        self._store = store
        self._session_id = session_id
        self._linger, self._max_age = linger, max_age
        self._on_worked = on_worked
        self._warehouse = Warehouse(store)
        self._lanes: dict[str, _Open] = {}
        self._waiting: set[str] = set()
        self._busy: dict[str, Future[None]] = {}
        self._organizations: dict[str, str] = {}
        self._threads = FairThreads("lane", LANES_AT_ONCE, LANES_AT_ONCE_EACH)
        self._again: dict[str, tuple[float, float]] = {}  # integration: when to try again, and the pause before that
        self._worked = Worked()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._active = time.monotonic()

    def stop(self) -> None:
        """End soon; what was worked off stays."""
        self._stop.set()

    def run(self) -> None:
        """Returns when it was quiet for ``linger``, when it is too old, or after :meth:`stop`."""
        begun = self._active = time.monotonic()
        with sessions.alive(self._store, self._session_id, KIND):
            try:
                self._loop(begun)
            finally:
                self._stop.set()
                hung = self._end()
        self._tell()
        for name, opened in self._lanes.items():
            if name not in hung:
                with suppress(Exception):
                    opened.lane.__exit__(None, None, None)

    def _end(self) -> set[str]:
        """Waits for lanes that are worked off, but not for ever; returns those that are left."""
        with self._lock:
            busy = dict(self._busy)
        begun = {name: future for name, future in busy.items() if not future.cancel()}
        wait(begun.values(), END_WITHIN)
        hung = {name for name, future in begun.items() if not future.done()}
        for name in hung:
            _log.warning("%s: its provider does not let go; the session ends without it.", name)
        return hung

    def _loop(self, begun: float) -> None:
        looked = told = -math.inf
        with _notifications(self._store) as listening:
            while not self._stop.is_set():
                now = time.monotonic()
                if now - looked >= LOOK_EVERY:
                    looked = now
                    self._wait_for(item.lane.integration_id for item in inbox.waiting(self._store, limit=1))
                self._start()
                if now - told >= TELL_EVERY:
                    told = now
                    self._tell()
                with self._lock:
                    working = bool(self._busy or self._waiting)
                if now - begun > self._max_age or (not working and now - self._active > self._linger):
                    return
                soon = BUSY_LOOK if working else IDLE_LOOK
                self._wait_for(each.payload for each in listening.notifies(timeout=soon, stop_after=1))

    def _wait_for(self, integration_ids: Iterable[str]) -> None:
        names = set(integration_ids) - {""}  # events of providers without a connector wait for one
        with self._lock:
            self._waiting.update(names)

    def _start(self) -> None:
        now = time.monotonic()
        with self._lock:
            ready = [name for name in self._waiting - self._busy.keys() if self._again.get(name, (now, 0.0))[0] <= now]
            self._waiting.difference_update(ready)
        for name in ready:
            with suppress(NotFound):  # it was removed meanwhile
                organization_id = self._organization(name)
                with self._lock:
                    self._busy[name] = self._threads.submit(organization_id, partial(self._drain, name))

    def _organization(self, integration_id: str) -> str:
        if integration_id not in self._organizations:
            self._organizations[integration_id] = organization_of(self._store, integration_id)
        return self._organizations[integration_id]

    def _drain(self, integration_id: str) -> None:
        """In a thread of its own; one lane is never in two of them."""
        try:
            worked_off = 0
            for drained in self._lane(integration_id).drain(lambda: not self._stop.is_set(), AT_ONCE):
                worked_off += drained.events
                with self._lock:
                    self._note(integration_id, drained)
        except LaneTakenOver:
            with self._lock:
                self._waiting.add(integration_id)  # another session overlaps: read its checkpoint, go on from there
        except Exception as error:
            self._pause(integration_id, error)
        else:
            with self._lock:
                self._again.pop(integration_id, None)
                if worked_off >= AT_ONCE:
                    self._waiting.add(integration_id)  # there is more; others come first
        finally:
            with self._lock:
                self._busy.pop(integration_id, None)

    def _note(self, integration_id: str, drained: Drained) -> None:
        self._active = time.monotonic()
        organization_id = self._lanes[integration_id].lane.lane.organization_id
        for (endpoint_id, outcome), events in drained.outcomes.items():
            self._worked.events[organization_id, endpoint_id, outcome] += events
        for name, counts in drained.counts.items():
            self._worked.counts.setdefault((integration_id, name), Counts()).add(counts)

    def _lane(self, integration_id: str) -> InboxLane:
        opened = self._lanes.get(integration_id)
        if opened is not None and opened.until > time.monotonic():
            return opened.lane
        if opened is not None:
            opened.lane.__exit__(None, None, None)
        lane = InboxLane(self._store, self._warehouse, integration_id)
        self._lanes[integration_id] = _Open(lane, time.monotonic() + LANE_KEPT)
        return lane

    def _pause(self, integration_id: str, error: Exception) -> None:
        with self._lock:
            _, before = self._again.get(integration_id, (0.0, FIRST_PAUSE / 2))
            pause = min(before * 2, LONGEST_PAUSE)
            self._again[integration_id] = time.monotonic() + pause, pause
        level = logging.WARNING if isinstance(error, (ChurnGuardError, *NOT_ITS_FAULT)) else logging.ERROR
        _log.log(level, "%s: its webhook events wait %.0f s: %s", integration_id, pause, error)

    def _tell(self) -> None:
        with self._lock:
            worked, self._worked = self._worked, Worked()
        if worked.events:
            with suppress(ChurnGuardError):
                inbox.count(self._store, [(*key, events) for key, events in worked.events.items()])
            self._on_worked(worked)


@contextmanager
def _notifications(store: Store) -> Iterator[psycopg.Connection[object]]:
    with psycopg.connect(store.database_url, autocommit=True) as connection:
        connection.execute(f"LISTEN {inbox.CHANNEL}")
        yield connection
