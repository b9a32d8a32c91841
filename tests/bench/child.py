"""A sync in a process of its own: its memory is its alone, and so is the interpreter's lock."""

from __future__ import annotations

import multiprocessing
import time
import uuid
from typing import NamedTuple

from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.bench.harness import peak_mib

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
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[Synced] = context.Queue()
    child = context.Process(target=_sync, args=(integration_id, objects, answers))
    child.start()
    answer = answers.get(timeout=PATIENCE_SECONDS)
    child.join()
    return answer


def _sync(integration_id: str, objects: tuple[str, ...], answers: multiprocessing.Queue[Synced]) -> None:
    store = Store.open(load_settings().model_copy(update={"database_url": None}))
    try:
        answers.put(synced(store, integration_id, *objects))
    finally:
        store.close()
