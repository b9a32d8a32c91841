"""Sessions of due syncs: a lane is an integration of one provider whose time to sync has come."""

from __future__ import annotations

import logging
import queue
import uuid
from collections.abc import Callable, Sequence

from churnguard_pipelines.connectors import databases
from churnguard_pipelines.errors import ChurnGuardError, CircuitOpen, NotFound
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest import due, ledger
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.report import failure_of
from churnguard_pipelines.syncing.session import LaneKind, Turn
from churnguard_pipelines.syncing.sync import sync_integration

SCHEDULE = "schedule"
"""The trigger of syncs that somebody's ``sync_frequency`` asks for."""
_log = logging.getLogger(__name__)


def name_of(provider: str) -> str:
    """Of the kind of session that works the provider's due syncs."""
    return f"{provider}_syncs"


class DueSyncs(LaneKind):
    """``on_synced``: called in the session's own thread with the report of each sync that has ended."""

    at_once_each = 8
    lanes_each = 250
    linger = 6.0  # one more look
    finish_within = 600.0

    def __init__(
        self,
        store: Store,
        session_id: str,
        provider: str,
        on_synced: Callable[[SyncReport], None] = lambda report: None,
    ) -> None:
        self.name = name_of(provider)
        self.at_once = 16 if provider in databases() else 64  # reading a table holds a connection to the warehouse
        self._store = store
        self._session_id = session_id
        self._provider = provider
        self._warehouse = Warehouse(store)
        self._on_synced = on_synced
        self._ended: queue.SimpleQueue[SyncReport] = queue.SimpleQueue()

    def waiting(self) -> Sequence[Lane]:
        found = due.due_integrations(self._store, self._provider)
        return [Lane(each.organization_id, each.integration_id, due.SYNC) for each in found if not each.is_long]

    def work(self, turn: Turn) -> bool:
        lane = turn.lane
        if not due.is_due(self._store, lane.organization_id, lane.integration_id, self._session_id):
            return False
        sync_id = str(uuid.uuid4())
        try:
            report = sync_integration(
                self._store,
                lane.integration_id,
                sync_id=sync_id,
                trigger=SCHEDULE,
                cancelled=turn.stop,
                warehouse=self._warehouse,
            )
        except (CircuitOpen, NotFound):  # it opened, or was removed, since we looked
            return False
        except Exception as error:
            level = logging.WARNING if isinstance(error, ChurnGuardError) else logging.ERROR
            _log.log(level, "%s: its sync failed: %s", lane.integration_id, error, exc_info=level == logging.ERROR)
            turn.failed = True
            ledger.note_failure(self._store, lane, sync_id, SCHEDULE, failure_of(error).explanation)
            return False
        turn.failed = report.status == "failed"
        self._ended.put(report)
        turn.note({name: item.counts for name, item in report.objects.items()})
        return False

    def tell(self) -> None:
        while not self._ended.empty():
            self._on_synced(self._ended.get())
