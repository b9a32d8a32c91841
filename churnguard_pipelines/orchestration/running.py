"""One sync inside a Dagster run: it works in a thread, so that each object's result is shown as it comes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import dagster as dg

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.ingest import materializations
from churnguard_pipelines.store.ingest.ledger import SyncReport, finish_sync, get_sync
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from churnguard_pipelines.telemetry import logs

STOPPED = "it was stopped; what was committed stays, the next sync reads on from there."


class FinishedObject(NamedTuple):
    """An object whose sync has ended. ``seconds``: spent on this object alone."""

    name: str
    report: SyncReport
    seconds: float


class RunningSync:
    """A sync at work in a thread of its own. Take :meth:`succeeded_objects` to the end, then :meth:`raise_failures`."""

    def __init__(
        self,
        store: Store,
        sync_id: str,
        integration_id: str,
        objects: Sequence[str] | None,
        *,
        mode: DataSyncMode | None = None,
        window: Window | None = None,
        trigger: str = "manual",
    ) -> None:
        self._store = store
        self._sync_id = sync_id
        self._integration_id = integration_id
        self._objects = objects
        self._mode, self._window, self._trigger = mode, window, trigger
        self._ended: queue.SimpleQueue[tuple[str, float] | None] = queue.SimpleQueue()
        self._report: SyncReport | None = None
        self._error: BaseException | None = None

    def succeeded_objects(self) -> Iterator[FinishedObject]:
        """Each object that was read to its end, with the ledger's report as of now."""
        thread = threading.Thread(target=self._run, name=f"sync-{self._integration_id}", daemon=True)
        thread.start()
        try:
            while (ended := self._ended.get()) is not None:
                name, seconds = ended
                report = get_sync(self._store, self._sync_id)
                if report.objects[name].status == "succeeded":
                    yield FinishedObject(name, report, seconds)
        except BaseException:  # the run is being terminated; the thread ends with its process
            finish_sync(self._store, self._sync_id, "cancelled", STOPPED)
            raise
        thread.join()
        if self._report is not None and self._window is None:
            materializations.note_sync(self._store, self._report)  # whoever tells of the next sync knows what is told

    def raise_failures(self) -> None:
        """One clear message; trying again at once would not help, the next sync is soon enough."""
        if isinstance(self._error, ChurnGuardError):
            raise dg.Failure(description=str(self._error), allow_retries=False) from None
        if self._error is not None:
            raise self._error
        assert self._report is not None
        if message := failure_message(self._report):
            raise dg.Failure(description=message, allow_retries=False)

    def _run(self) -> None:
        try:
            with logs.about(run_id=self._sync_id):
                self._report = sync_integration(
                    self._store,
                    self._integration_id,
                    sync_id=self._sync_id,
                    mode=self._mode,
                    objects=self._objects,
                    window=self._window,
                    trigger=self._trigger,
                    on_object=lambda name, seconds: self._ended.put((name, seconds)),
                )
        except BaseException as error:
            self._error = error
        finally:
            self._ended.put(None)


def failure_message(report: SyncReport) -> str | None:
    """Which objects failed, why and what to do; None if none did."""
    failed = {name: item.error for name, item in report.objects.items() if item.status == "failed"}
    waiting = [name for name, item in report.objects.items() if item.status in ("pending", "running")]
    if not failed:
        return f"{report.integration_id}: {report.error}" if report.error else None
    lines = [f"{report.integration_id}: {len(failed)} of {len(report.objects)} objects failed."]
    lines += [f"{name}: {error}" for name, error in failed.items()]
    if waiting:
        lines.append(f"Not tried after that: {', '.join(waiting)}.")
    return "\n".join(lines)
