"""`python -m churnguard_pipelines.orchestration.roles.worker`: what sessions do, in a process that goes on.

A run for each session costs seconds of a processor and its events; where there are many tenants, workers do the same in
the same frame (``syncing.session``), all kinds of lanes at once. They share lanes out by leases, among themselves and
with Dagster's own sessions, of which its sensors ask for fewer while workers are there. Dagster is told what changed by
events without a run. A sync that takes long, or is somebody's wish, is a run as ever.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg

from churnguard_pipelines.connectors import providers
from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.orchestration.processes.supervision import leave
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.sessions import Materializer
from churnguard_pipelines.orchestration.streams import numbers_of
from churnguard_pipelines.store.ingest.materializations import ObjectNews
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.changes import ChangeLogs
from churnguard_pipelines.syncing.due import DueSyncs
from churnguard_pipelines.syncing.session import END_WITHIN, HAND_OVER, LaneKind, Session, Worked
from churnguard_pipelines.syncing.streams.kind import KINDS, StreamLanes
from churnguard_pipelines.syncing.webhooks import Inboxes

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
_log = logging.getLogger("churnguard_pipelines.worker")  # the module itself is `__main__`


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of session. ``lanes``: what it works, given its id and what tells Dagster; ``described``: the changes
    that it makes."""

    lanes: Callable[[Store, str, Materializer], LaneKind]
    described: str
    more: Callable[[ObjectNews], Mapping[str, Any]] = lambda news: {}


def works() -> Iterator[Work]:
    yield Work(lambda store, session_id, told: Inboxes(store), "Changed by webhooks")
    yield Work(lambda store, session_id, told: ChangeLogs(store), "Changed in the source")
    for kind in KINDS.values():
        yield Work(partial(_streams, kind), "Streamed", numbers_of)
    for provider in providers():
        yield Work(partial(_due_syncs, provider), "Synced")


def _streams(kind: type[StreamLanes], store: Store, session_id: str, told: Materializer) -> LaneKind:
    return kind(store)


def _due_syncs(provider: str, store: Store, session_id: str, told: Materializer) -> LaneKind:
    return DueSyncs(store, session_id, provider, told.synced)


def _reported(told: Materializer, worked: Worked) -> None:
    """What syncs did is told by their reports, in time."""
    told.worked({})


class Worker:
    """``instance``: is told what changed; ``threads``: lanes at once of each kind; ``stop``: set to end it."""

    def __init__(self, store: Store, instance: dg.DagsterInstance, threads: int, stop: threading.Event) -> None:
        self._store, self._instance, self._threads = store, instance, threads
        self._stop = stop
        self._sessions: set[Session] = set()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Returns after it was told to stop, when what was at work has committed its batch, or within ten seconds."""
        ended = [in_thread(f"work-{number}", partial(self._go_on, each)) for number, each in enumerate(works())]
        while not self._stop.wait(1.0):
            pass  # Python acts on a signal that comes just as a wait begins when that wait is over
        deadline = time.monotonic() + END_WITHIN
        while (left := self._living()) and time.monotonic() < deadline:
            for session in left:
                session.stop()
            time.sleep(0.05)
        wait(ended, timeout=max(deadline - time.monotonic(), 0.1))

    def _go_on(self, work: Work) -> None:
        """One session after the other: each ends before the sensors would not count on it any more; what it has at work
        then comes to its end beside the next one."""
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            session_id = str(uuid.uuid4())
            told = Materializer(self._instance.report_runless_asset_event, session_id, work.described, work.more)
            kind = work.lanes(self._store, session_id, told)
            kind.at_once = min(kind.at_once, self._threads)
            age = kind.max_age - HAND_OVER
            worked = partial(_reported, told) if isinstance(kind, DueSyncs) else told.worked
            session = Session(self._store, session_id, kind, linger=math.inf, max_age=age, on_worked=worked)
            ended = in_thread(f"{kind.name}-session", partial(self._work, session, told, kind.name))
            done, _ = wait([ended], timeout=age)
            if done and not ended.result():
                self._stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE

    def _work(self, session: Session, told: Materializer, name: str) -> bool:
        """Whether it came to its end by itself."""
        with self._lock:
            self._sessions.add(session)
        if self._stop.is_set():
            session.stop()
        try:
            session.run()
            told.tell()
        except ChurnGuardError as error:
            _log.warning("%s wait: %s", name, error)
            return False
        except Exception:
            _log.exception("%s wait", name)
            return False
        finally:
            with self._lock:
                self._sessions.discard(session)
        return True

    def _living(self) -> list[Session]:
        with self._lock:
            return list(self._sessions)


def main() -> None:
    stop = threading.Event()  # heard before anything is open that has to be closed
    for sign in (signal.SIGTERM, signal.SIGINT):
        # In a thread: the main one may be just about to wait, with the lock that stopping takes.
        signal.signal(sign, lambda *_: in_thread("stop", stop.set))
    store = current_store()
    with dg.DagsterInstance.get() as instance:
        Worker(store, instance, store.settings.worker_threads, stop).run()


if __name__ == "__main__":
    main()
    leave(0)
