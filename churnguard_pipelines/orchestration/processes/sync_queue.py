"""Syncs that people ask for: a few run at once, the others wait for their turn, fair among organizations.

They are processes of ours and no runs in Dagster's queue, so that a sync can be had where no daemon runs, too, and the
ledger alone says how it stands with one. Whoever starts services several times has as many of these queues.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from churnguard_pipelines.engine.fair_threads import FairThreads
from churnguard_pipelines.errors import AlreadyRunning, ChurnGuardError
from churnguard_pipelines.orchestration.processes.children import STOP_SECONDS, SyncProcess, SyncRequest, started
from churnguard_pipelines.store.ingest import ledger

if TYPE_CHECKING:
    from churnguard_pipelines.model import IntegrationConfiguration
    from churnguard_pipelines.store.postgres.database import Store

AT_ONCE, AT_ONCE_EACH = 4, 2  # processes, of all organizations and of each; as in dagster.yaml
NOT_BEGUN = "the service that it was waiting in ended before its turn came. Start it again."
ENDED_BEFORE = "the sync ended before it began; the log of whoever operates this installation says why."

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ActiveSync:
    """A sync of the queue. One that waits or runs. ``ends``: done when its process is."""

    request: SyncRequest
    ends: Future[None] = field(default_factory=Future)
    process: SyncProcess | None = None

    def waits(self, report: ledger.SyncReport | None) -> bool:
        """``report``: the ledger's; of one that runs elsewhere it says whether it has begun there."""
        if self.process is not None and self.process.outlives_us:
            return report is not None and report.status == "queued"
        return not (self.ends.running() or self.ends.done())


class SyncQueue:
    """The queue of syncs that people ask for. Of this process; one sync of an integration at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = FairThreads("sync", AT_ONCE, AT_ONCE_EACH)
        self._syncs: dict[str, ActiveSync] = {}  # by integration; those that have not ended
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        threading.Thread(target=self._live, name="sync-queue", daemon=True).start()

    def start(self, integration: IntegrationConfiguration, request: SyncRequest) -> str:
        """Returns its id, or that of the same sync if that one runs or waits already.

        Raises ``AlreadyRunning`` if another one does.
        """
        with self._lock:
            known = self._syncs.get(request.integration_id)
            if known is not None:
                if (known.request.mode, known.request.objects) == (request.mode, request.objects):
                    return known.request.sync_id
                raise AlreadyRunning(
                    "another sync is running or waiting already.",
                    integration_id=request.integration_id,
                    remedy="Wait until it has ended: "
                    f"`churnguard integrations show {request.integration_id}` says how it is doing.",
                )
            sync = self._syncs[request.integration_id] = ActiveSync(request)
        try:
            mode = request.mode or integration.sync_config.sync_mode
            ledger.queue_sync(self._store, request.sync_id, integration, mode)
        except BaseException:
            with self._lock:
                del self._syncs[request.integration_id]
            raise
        with self._lock:
            sync.ends = self._threads.submit(integration.organization_id, lambda: self._run(sync))
        return request.sync_id

    def find(self, integration_id: str) -> ActiveSync | None:
        """The one that waits or runs."""
        with self._lock:
            return self._syncs.get(integration_id)

    def stop(self) -> None:
        """What runs is stopped, what waits will not begin; the ledger says so."""
        self._stopped.set()
        with self._lock:
            syncs = list(self._syncs.values())
        for sync in syncs:
            if sync.ends.cancel():
                self._forget(sync, NOT_BEGUN)
        for sync in syncs:
            if sync.process is not None:
                sync.process.stop()
        wait((sync.ends for sync in syncs), STOP_SECONDS)

    def _run(self, sync: ActiveSync) -> None:
        words: str | None = NOT_BEGUN
        try:
            if not self._stopped.is_set():
                sync.process = started(self._store, sync.request)
                if self._stopped.is_set():  # meanwhile
                    sync.process.stop()
                sync.process.wait()
                goes_on = self._stopped.is_set() and sync.process.outlives_us
                words = None if goes_on else self._why_it_ended(sync)
        except Exception as error:
            _log.exception("%s: its sync could not be started", sync.request.integration_id)
            words = f"the sync could not be started ({type(error).__name__})."
        finally:
            self._forget(sync, words)

    def _why_it_ended(self, sync: ActiveSync) -> str:
        """For the ledger, which an organization reads; what the process said of our inside is for the log."""
        assert sync.process is not None
        report = ledger.find_sync(self._store, sync.request.sync_id)
        if report is None or report.status == "queued":
            _log.error("%s: %s", sync.request.integration_id, sync.process.last_output())
        return ENDED_BEFORE

    def _forget(self, sync: ActiveSync, words: str | None) -> None:
        """``words``: why it ended, if it never began; None if it goes on without us."""
        with suppress(ChurnGuardError):  # if the database is away, the ledger will know by the signs of life
            report = ledger.find_sync(self._store, sync.request.sync_id)
            if report is not None and report.status == "queued" and words is not None:
                status: ledger.SyncOutcome = "cancelled" if words == NOT_BEGUN else "failed"
                ledger.finish_sync(self._store, sync.request.sync_id, status, words)
        with self._lock:
            del self._syncs[sync.request.integration_id]

    def _live(self) -> None:
        while not self._stopped.wait(ledger.HEARTBEAT_SECONDS):
            with self._lock:
                waiting = [sync.request.sync_id for sync in self._syncs.values()]
            try:
                if waiting:
                    ledger.send_heartbeats(self._store, waiting)
            except Exception as error:
                _log.warning("no sign of life could be given of waiting syncs: %s", type(error).__name__)
