"""The one loop that moves batches from a source into the warehouse.

Rows, rejected records, deletions, counts and the checkpoint of a batch commit in one transaction; the checkpoint moves
by compare-and-set. The source is read ahead and mapped in a thread of its own while the previous batch is written.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial

from churnguard_pipelines.engine.filters import look
from churnguard_pipelines.engine.mapping import Mapped, Mapper
from churnguard_pipelines.records import Batch, Checkpoint, Counts, Deletion, Lane, Table
from churnguard_pipelines.store.ingest import arrivals
from churnguard_pipelines.store.ingest.drift import record_drift
from churnguard_pipelines.store.postgres.deadlocks import past_deadlocks
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction
from churnguard_pipelines.telemetry import traces

READ_AHEAD = 8  # batches between the source and the writer; bounds memory whatever the source's size
RECORDS_AHEAD = 2_500  # fewer batches, where they are large: many objects are read beside each other
GATHERING_SECONDS = 0.2
"""That records wait for more of them: a transaction of a few costs as much as one of hundreds, and what a position
holds is written by each."""


@dataclass(frozen=True, slots=True)
class Pump:
    """Moves the batches of a lane into the warehouse. Where a lane's batches go. ``batch_size``: records that are
    gathered into one transaction if they come within ``GATHERING_SECONDS``. ``watched``: since when events of the
    object come by which path (``arrivals.watched``): what they have missed is counted."""

    warehouse: Warehouse
    mapper: Mapper
    sync_id: str
    batch_size: int = 1000
    watched: Mapping[str, int] = field(default_factory=dict)

    def run(
        self,
        lane: Lane,
        source: str,
        checkpoint: Checkpoint | None,
        batches: Generator[Batch],
        on_commit: Callable[[Counts], None] = lambda counts: None,
    ) -> tuple[Counts, Checkpoint | None]:
        """Drain ``batches`` into the warehouse; returns the counts and the checkpoint that holds now.

        ``source``: the identity the new checkpoints belong to. Raises ``LaneTakenOver`` when another run moved the
        lane, and whatever the source raises, after everything it gave before is stored.
        """
        total = Counts()
        with closing(_ReadAhead(self._ready(batches))) as ahead:
            for gathered in ahead.gathered(self.batch_size):
                counts, checkpoint = past_deadlocks(partial(self._commit, lane, source, checkpoint, gathered))
                total.add(counts)
                on_commit(counts)
        return total, checkpoint

    def _ready(self, batches: Generator[Batch]) -> Generator[_Ready]:
        with closing(batches):  # ends the requests under way
            for batch in batches:
                yield _Ready(batch, self.mapper.rows(batch.records))

    def _commit(
        self, lane: Lane, source: str, checkpoint: Checkpoint | None, ready: Sequence[_Ready]
    ) -> tuple[Counts, Checkpoint]:
        table = self.mapper.table
        gathered = [each.batch for each in ready]
        deletions: list[Deletion] = [deletion for batch in gathered for deletion in batch.deletions]
        mapped = Mapped.together([each.mapped for each in ready])
        found = self._incremental(gathered, mapped) if self.watched else {}
        about: dict[str, str | int] = {
            "organization": lane.organization_id,
            "integration": lane.integration_id,
            "records": len(mapped.rows),
        }
        with (
            traces.working(f"store {table.object}", about),
            self.warehouse.transaction(lane.organization_id) as transaction,
        ):
            stored = transaction.versions(table, lane.integration_id, found) if found else {}
            counts = store_changes(transaction, lane, table, mapped, deletions, self.sync_id)
            for batch in gathered:
                if batch.delete_absent_since is not None:
                    absent = transaction.delete_absent(table, lane.integration_id, batch.delete_absent_since)
                    counts.deleted += absent
            if found:  # after the rows, in the order in which those who store events lock both
                now = round(time.time() * 1000)
                arrivals.note_missed(transaction.connection, lane, table.object, self.watched, found, stored, now)
            moved = transaction.advance(lane, checkpoint, gathered[-1].position, source)
            transaction.progress(self.sync_id, table.object, counts)
        return counts, moved

    def _incremental(self, gathered: Sequence[Batch], mapped: Mapped) -> dict[str, int]:
        """Versions, by key, of what goes into the table."""
        path = self.mapper.table.key.split(".")
        keys = {str(look(record.payload, path)) for batch in gathered if batch.incremental for record in batch.records}
        return {row[0]: row[1] for row in mapped.rows if row[0] in keys} if keys else {}


def store_changes(
    transaction: WarehouseTransaction,
    lane: Lane,
    table: Table,
    mapped: Mapped,
    deletions: Sequence[Deletion],
    sync_id: str | None,
) -> Counts:
    """One table's part of a batch: its rows, deletions, rejected records and drift."""
    read = len(mapped.rows) + len(mapped.rejected) + mapped.filtered
    counts = Counts(read=read, filtered=mapped.filtered, rejected=len(mapped.rejected))
    if mapped.rows:
        counts.add(transaction.upsert(table, lane.integration_id, mapped.rows))
    if deletions:
        counts.deleted += transaction.delete(table, lane.integration_id, deletions)
    if mapped.rejected:
        transaction.reject(lane, table.object, mapped.rejected, sync_id)
    if mapped.drift:
        record_drift(transaction.connection, lane, table.object, mapped.drift)
    return counts


@dataclass(frozen=True, slots=True)
class _Ready:
    """A batch that can be written."""

    batch: Batch
    mapped: Mapped


class _Waiting(queue.Queue["_Ready | BaseException | None"]):
    """Is as full as what waits in it has records, a batch counting for an eighth at the least."""

    def _qsize(self) -> int:
        least = RECORDS_AHEAD // READ_AHEAD
        return sum(max(least, len(item.batch.records)) if isinstance(item, _Ready) else least for item in self.queue)


class _ReadAhead:
    """Iterates a source in a thread, at most ``READ_AHEAD`` batches ahead; an error waits its turn behind them."""

    def __init__(self, batches: Generator[_Ready]) -> None:
        self._queue = _Waiting(RECORDS_AHEAD)
        self._stopped = threading.Event()
        self._batches = batches
        self._thread = threading.Thread(target=copy_context().run, args=[self._read], name="read-ahead", daemon=True)
        self._thread.start()

    def gathered(self, size: int) -> Iterator[list[_Ready]]:
        """Batches in order, as many at once as come soon and until they hold ``size`` records together."""
        waiting: list[_Ready] = []
        until = 0.0
        while True:
            try:
                item = self._queue.get(timeout=max(0.0, until - time.monotonic()) if waiting else None)
            except queue.Empty:
                yield waiting
                waiting = []
                continue
            if isinstance(item, _Ready):
                if not waiting:
                    until = time.monotonic() + GATHERING_SECONDS
                waiting.append(item)
                if sum(len(each.batch.records) for each in waiting) >= size:
                    yield waiting
                    waiting = []
                continue
            if waiting:
                yield waiting
            if item is not None:
                raise item
            return

    def close(self) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            while not self._queue.empty():
                self._queue.get_nowait()
            self._thread.join(0.05)

    def _read(self) -> None:
        try:
            with closing(self._batches):
                for batch in self._batches:
                    if not self._put(batch):
                        return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: _Ready | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False
