"""A sync, or a session, in a process of its own: its memory is its alone, and so is the interpreter's lock."""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple, TypeVar

from churnguard_pipelines.model import StreamType
from churnguard_pipelines.records import Counts, Lane
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.session import LaneKind, Session, Turn
from churnguard_pipelines.syncing.streams.kind import KINDS
from churnguard_pipelines.syncing.sync import sync_integration
from tests.bench.harness import peak_mib, without_the_tests_own_cost

T = TypeVar("T")
PATIENCE_SECONDS = 1800


class Synced(NamedTuple):
    """``seconds``: without the process's start."""

    seconds: float
    peak_mib: float
    report: SyncReport


def synced(store: Store, integration_id: str, *objects: str) -> Synced:
    """In this process."""
    started = time.perf_counter()
    report = sync_integration(store, integration_id, sync_id=str(uuid.uuid4()), objects=objects or None)
    seconds = time.perf_counter() - started
    assert report.status == "succeeded", report
    return Synced(seconds, peak_mib(), report)


def synced_in_child(integration_id: str, *objects: str) -> Synced:
    return _in_child(partial(_sync, integration_id, objects))


class Streamed(NamedTuple):
    """``seconds``: from the session's start to the last commit; ``cpu_seconds``: of its process until then."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def streamed_in_child(kind: StreamType, messages: int) -> Streamed:
    """One session that reads the streams of this kind until it has stored or rejected so many messages."""
    return _in_child(partial(_stream, kind, messages))


def _in_child(work: Callable[[Store], T]) -> T:
    """Raises ``EOFError`` where the child ends without an answer."""
    context = multiprocessing.get_context("spawn")
    answers, answering = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(work, answering))
    child.start()
    answering.close()
    if not answers.poll(PATIENCE_SECONDS):
        raise TimeoutError(f"no answer for {PATIENCE_SECONDS} s")
    answer: T = answers.recv()
    child.join()
    return answer


def _answer(work: Callable[[Store], T], answering: Connection) -> None:
    without_the_tests_own_cost()
    store = Store.open(load_settings().model_copy(update={"database_url": None}))
    try:
        answering.send(work(store))
    finally:
        store.close()


def _sync(integration_id: str, objects: tuple[str, ...], store: Store) -> Synced:
    return synced(store, integration_id, *objects)


def _stream(kind: StreamType, messages: int, store: Store) -> Streamed:
    lanes = KINDS[kind](store)
    all_there = _noticed(lanes, messages)
    session = Session(store, "bench", lanes, linger=PATIENCE_SECONDS, max_age=PATIENCE_SECONDS)
    thread = threading.Thread(target=session.run)
    begun, cpu = time.perf_counter(), time.process_time()
    thread.start()
    assert all_there.wait(PATIENCE_SECONDS)
    took = Streamed(time.perf_counter() - begun, time.process_time() - cpu, peak_mib())
    session.stop()
    thread.join()
    return took


def _noticed(lanes: LaneKind, messages: int) -> threading.Event:
    """Is set by the commit of the last of so many messages."""
    all_there, lock, work = threading.Event(), threading.Lock(), lanes.work
    missing = messages

    def noticed(turn: Turn) -> bool:
        tell = turn.on_note

        def note(lane: Lane, counts: Mapping[str, Counts]) -> None:
            nonlocal missing
            tell(lane, counts)
            with lock:
                missing -= sum(each.read for each in counts.values())
                if missing <= 0:
                    all_there.set()

        turn.on_note = note
        return work(turn)

    lanes.work = noticed  # type: ignore[method-assign]
    return all_there
