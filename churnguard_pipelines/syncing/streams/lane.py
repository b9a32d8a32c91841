"""One partition of a stream: its messages become rows, each batch with its position in one transaction.

read      the source's batches, from the stored position on
prepare   decoded, filtered, keyed: rows, deletions, rejected records (``target``)
store     them and the position, which moves by compare-and-set; only then is the source resumed
find      if PostgreSQL refuses a batch for what is in it, halves find the messages, and those are rejected (``writer``)
judge     if too many of the last messages were rejected, also by sessions before, the stream pauses itself
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Event

from churnguard_pipelines.errors import ChurnGuardError, SourceChanged
from churnguard_pipelines.records import Checkpoint, Counts, Lane, Position
from churnguard_pipelines.store.control.streams import STREAMS, ActiveStream
from churnguard_pipelines.store.ingest import checkpoints, stream_metrics, stream_progress
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction
from churnguard_pipelines.stream_options import ProcessingMode
from churnguard_pipelines.streams.formats.decoder import Decoder
from churnguard_pipelines.streams.sdk import MessageBatch, Seek, StreamSource
from churnguard_pipelines.syncing.streams import views
from churnguard_pipelines.syncing.streams.rejections import LOOKED_AT, LastMessages
from churnguard_pipelines.syncing.streams.writer import Writer


class TooManyRejected(ChurnGuardError):
    """The stream is to pause."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was committed together. ``bytes``: of the messages' values; ``seconds``: from read to stored; ``buffered``:
    how full the source's buffer was, 0 to 1."""

    counts: Counts
    bytes: int
    seconds: float
    buffered: float


class StreamLane:
    """One partition. One thread at a time; two processes on one lane do no harm, the later one gives way.

    Raises ``LaneTakenOver``, ``SourceChanged`` if its checkpoint is another source's, :class:`TooManyRejected`, and
    what the source and the format do.
    """

    def __init__(
        self,
        store: Store,
        warehouse: Warehouse,
        active: ActiveStream,
        lane: Lane,
        source: StreamSource,
        decoder: Decoder,
    ) -> None:
        self._store = store
        self._warehouse = warehouse
        self._stream = stream = active.configuration
        self._revision = active.revision
        self._lane = lane
        self._source = source
        self._writer = Writer(warehouse, stream, lane, decoder)
        self._at_most_once = stream.processing_mode is ProcessingMode.AT_MOST_ONCE
        self._identity = ""
        self._checkpoint: Checkpoint | None = None
        self.object = self._writer.target.table.object
        self._lately = LastMessages()

    def pump(self, stop: Event) -> Generator[Stored | None]:
        """Store what comes until ``stop`` is set; tells of each commit, and None when nothing came for a moment."""
        table = self._writer.target.table
        self._warehouse.ensure(table)
        views.bring_up_to_date(self._store, self._stream, table)
        position = self._begun()
        with closing(self._source.batches(self._lane.name, position)) as batches:
            for batch in batches:
                if stop.is_set():  # what was not stored is read again
                    return
                if batch is None:
                    yield None
                    continue
                yield (stored := self._store_batch(batch))
                self._judge(stored.counts)

    def _begun(self) -> Position | None:
        """From where on it is read. A stream that begins at its end begins there once, all of it; what came to be a
        partition after that is read whole."""
        with self._store.organization(self._lane.organization_id) as connection:
            begun = checkpoints.of_integration(connection, self._lane.organization_id, self._lane.integration_id)
            lately = stream_metrics.latest(connection, self._lane.organization_id, self._lane.integration_id, LOOKED_AT)
        self._lately.add(*lately)
        self._identity = self._source.identity()
        self._checkpoint = begun.get(self._lane.name)
        if self._checkpoint is not None:
            refuse_another_source(self._lane, self._checkpoint, self._identity)
            return self._checkpoint.position
        if self._stream.start == "earliest" or self._source.pushes:
            return None
        positions = self._source.sought(Seek("earliest" if begun else "latest"))
        beginning = sorted(positions.keys() & {self._lane.name} if begun else positions)
        with self._warehouse.transaction(self._lane.organization_id) as transaction:
            self._hold(transaction)
            moved = {
                name: transaction.advance(replace(self._lane, name=name), None, positions[name], self._identity)
                for name in beginning
            }
        self._checkpoint = moved.get(self._lane.name)
        return positions.get(self._lane.name)

    def _store_batch(self, batch: MessageBatch) -> Stored:
        began = time.perf_counter()
        prepared = self._writer.prepare(batch.messages)
        if self._at_most_once:
            with self._warehouse.transaction(self._lane.organization_id) as transaction:
                moved = self._advance(transaction, batch)
            self._checkpoint = moved
            counts, _ = self._writer.commit(prepared, batch.messages, self._keep)
        else:
            counts, self._checkpoint = self._writer.commit(
                prepared, batch.messages, lambda transaction: self._advance(transaction, batch)
            )
        counts.read = len(batch.messages)
        size = sum(len(each.value) for each in batch.messages if each.value is not None)
        return Stored(counts, size, time.perf_counter() - began, batch.buffered)

    def _advance(self, transaction: WarehouseTransaction, batch: MessageBatch) -> Checkpoint:
        if self._checkpoint is None:
            self._hold(transaction)
        for loss in batch.lost:
            stream_progress.note_loss(transaction.connection, self._lane, *loss)
        return transaction.advance(self._lane, self._checkpoint, batch.position, self._identity)

    def _hold(self, transaction: WarehouseTransaction) -> None:
        own = self._lane.organization_id, self._lane.integration_id
        STREAMS.hold(transaction.connection, *own, self._revision)

    def _keep(self, transaction: WarehouseTransaction) -> None:
        STREAMS.keep(transaction.connection, self._lane.organization_id, self._lane.integration_id)

    def _judge(self, counts: Counts) -> None:
        lately = self._lately
        lately.add(counts.read, counts.rejected)
        if counts.rejected and lately.exceed(self._stream.most_rejected):
            raise TooManyRejected(
                f"{lately.rejected:,} of the last {lately.messages:,} messages were rejected.",
                integration_id=self._lane.integration_id,
                remedy=f"`churnguard rejected list {self._lane.integration_id}` shows why; mend it, replay them and "
                "resume the stream, or raise most_rejected.",
            )


def refuse_another_source(lane: Lane, checkpoint: Checkpoint, identity: str) -> None:
    """Raises ``SourceChanged`` if the checkpoint is another source's."""
    if checkpoint.source != identity:
        raise SourceChanged(
            f"the position of {lane.name} belongs to another source than the one that answers now.",
            integration_id=lane.integration_id,
            remedy=f"Correct its address, or read on here: `churnguard streams seek {lane.integration_id} "
            "--to earliest` (or latest, which leaves out what is there).",
        )
