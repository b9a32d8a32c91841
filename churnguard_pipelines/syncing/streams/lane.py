"""One partition of a stream: its messages become rows, each batch with its position in one transaction.

    read      the source's batches, from the stored position on
    prepare   decoded, filtered, keyed: rows, deletions, rejected records (``target``)
    store     them and the position, which moves by compare-and-set; only then is the source resumed
    find      if PostgreSQL refuses a batch for what is in it, halves find the messages, and those are rejected
    judge     if too many of the last messages were rejected, the stream pauses itself
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Event

import psycopg
import sqlalchemy as sa

from churnguard_pipelines.engine.mapping import Row
from churnguard_pipelines.errors import ChurnGuardError, SourceChanged
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Checkpoint, Counts, Lane, Position, Rejected
from churnguard_pipelines.store.ingest import checkpoints, stream_progress
from churnguard_pipelines.store.ingest.drift import record_drift
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction
from churnguard_pipelines.stream_options import ProcessingMode, StreamTarget
from churnguard_pipelines.streams.formats.decoder import Decoder
from churnguard_pipelines.streams.sdk import Message, MessageBatch, Seek, StreamSource
from churnguard_pipelines.syncing.streams.target import Prepared, Target, rejected_of

MESSAGES = "messages"
"""The object of rejected messages."""
LOOKED_AT = 1000
LEAST_LOOKED_AT = 100
"""Messages over which the share of rejected ones is taken: the last ones, and as if there were so many at least."""
_FOR_ITS_DATA = ("22", "23", "54")
"""Classes of PostgreSQL's errors: the data, a constraint, a limit of the program."""


class TooManyRejected(ChurnGuardError):
    """The stream is to pause."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was committed together. ``bytes``: of the messages' values; ``seconds``: from read to stored; ``lost``: how
    many stretches of messages the source no longer had."""

    counts: Counts
    bytes: int
    seconds: float
    buffered: float
    lost: int


class Writer:
    """Stores messages of one partition, without a position. One thread at a time."""

    def __init__(self, warehouse: Warehouse, stream: StreamConfiguration, lane: Lane, decoder: Decoder) -> None:
        self._warehouse = warehouse
        self._lane = lane
        self._decoder = decoder
        self._appends = stream.target is StreamTarget.APPEND
        self.target = Target(stream)

    def prepare(self, messages: Sequence[Message]) -> Prepared:
        return self.target.prepare(messages, self._decoder)

    def write(self, transaction: WarehouseTransaction, prepared: Prepared, messages: Sequence[Message] | None) -> Counts:
        """``messages``: those that were prepared, if what PostgreSQL refuses is to be found among them; else its error
        leaves the transaction."""
        rejected = list(prepared.rejected)
        if messages is None:
            counts = self._rows(transaction, prepared.rows)
        else:
            counts = self._halved(transaction, prepared.rows, messages, rejected)
        table, stream_id = self.target.table, self._lane.integration_id
        if prepared.deletions:
            counts.deleted = transaction.delete(table, stream_id, prepared.deletions)
        transaction.reject(self._lane, MESSAGES, rejected, None)
        record_drift(transaction.connection, self._lane, table.object, prepared.drift)
        counts.rejected = len(rejected)
        counts.filtered = prepared.filtered
        counts.stale += prepared.superseded
        return counts

    def _rows(self, transaction: WarehouseTransaction, rows: Sequence[Row]) -> Counts:
        if not rows:
            return Counts()
        store = transaction.append if self._appends else transaction.upsert
        return store(self.target.table, self._lane.integration_id, rows)

    def _halved(
        self,
        transaction: WarehouseTransaction,
        rows: Sequence[Row],
        messages: Sequence[Message],
        rejected: list[Rejected],
    ) -> Counts:
        try:
            with transaction.attempt():
                return self._rows(transaction, rows)
        except Exception as error:
            if not is_refused(error):
                raise
            if len(rows) == 1:
                message = self.target.message_of(rows[0], messages)
                rejected.append(rejected_of(message, f"PostgreSQL does not take it: {_said(error)}"))
                return Counts()
        counts, middle = Counts(), len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            counts.add(self._halved(transaction, half, messages, rejected))
        return counts


class StreamLane:
    """One partition. One thread at a time; two processes on one lane do no harm, the later one gives way.

    Raises ``LaneTakenOver``, ``SourceChanged`` if its checkpoint is another source's, :class:`TooManyRejected`, and what
    the source and the format do.
    """

    def __init__(
        self,
        store: Store,
        warehouse: Warehouse,
        stream: StreamConfiguration,
        lane: Lane,
        source: StreamSource,
        decoder: Decoder,
    ) -> None:
        self._store = store
        self._warehouse = warehouse
        self._stream = stream
        self._lane = lane
        self._source = source
        self._writer = Writer(warehouse, stream, lane, decoder)
        self._at_most_once = stream.processing_mode is ProcessingMode.AT_MOST_ONCE
        self._identity = ""
        self._checkpoint: Checkpoint | None = None
        self._lately: deque[tuple[int, int]] = deque()  # messages and rejected ones of the last batches

    def pump(self, stop: Event) -> Iterator[Stored | None]:
        """Store what comes until ``stop`` is set; tells of each commit, and None when nothing came for a moment."""
        self._warehouse.ensure(self._writer.target.table)
        position = self._begun()
        with closing(self._source.batches(self._lane.name, position)) as batches:
            for batch in batches:
                if stop.is_set():  # what was not stored is read again
                    return
                yield None if batch is None else self._store_batch(batch)

    def _begun(self) -> Position | None:
        """From where on it is read. A stream that begins at its end begins there once; what came to be a partition
        after that is read whole."""
        with self._store.organization(self._lane.organization_id) as connection:
            begun = checkpoints.of_integration(connection, self._lane.organization_id, self._lane.integration_id)
        self._identity = self._source.identity()
        self._checkpoint = begun.get(self._lane.name)
        if self._checkpoint is not None:
            refuse_another_source(self._lane, self._checkpoint, self._identity)
            return self._checkpoint.position
        if self._stream.start == "earliest" or self._source.pushes:
            return None
        position = self._source.sought(Seek("earliest" if begun else "latest")).get(self._lane.name)
        if position is not None:
            with self._warehouse.transaction(self._lane.organization_id) as transaction:
                moved = transaction.advance(self._lane, None, position, self._identity)
            self._checkpoint = moved
        return position

    def _store_batch(self, batch: MessageBatch) -> Stored:
        began = time.perf_counter()
        prepared = self._writer.prepare(batch.messages)
        if self._at_most_once:
            self._move_on(batch)
        try:
            counts = self._commit(batch, prepared, find=False)
        except Exception as error:
            if not is_refused(error):
                raise
            counts = self._commit(batch, prepared, find=True)
        counts.read = len(batch.messages)
        size = sum(len(each.value) for each in batch.messages if each.value is not None)
        self._judge(counts)
        return Stored(counts, size, time.perf_counter() - began, batch.buffered, len(batch.lost))

    def _commit(self, batch: MessageBatch, prepared: Prepared, *, find: bool) -> Counts:
        with self._warehouse.transaction(self._lane.organization_id) as transaction:
            counts = self._writer.write(transaction, prepared, batch.messages if find else None)
            if self._at_most_once:
                return counts
            moved = self._advance(transaction, batch)
        self._checkpoint = moved
        return counts

    def _move_on(self, batch: MessageBatch) -> None:
        with self._warehouse.transaction(self._lane.organization_id) as transaction:
            moved = self._advance(transaction, batch)
        self._checkpoint = moved

    def _advance(self, transaction: WarehouseTransaction, batch: MessageBatch) -> Checkpoint:
        for loss in batch.lost:
            stream_progress.note_loss(transaction.connection, self._lane, *loss)
        return transaction.advance(self._lane, self._checkpoint, batch.position, self._identity)

    def _judge(self, counts: Counts) -> None:
        self._lately.append((counts.read, counts.rejected))
        messages, rejected = map(sum, zip(*self._lately, strict=True))
        while messages - self._lately[0][0] >= LOOKED_AT:
            gone = self._lately.popleft()
            messages, rejected = messages - gone[0], rejected - gone[1]
        if rejected > self._stream.most_rejected * max(messages, LEAST_LOOKED_AT):
            self._lately.clear()
            raise TooManyRejected(
                f"{rejected} of the last {messages} messages of {self._lane.name} were rejected.",
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
            remedy=f"Correct its address, or read on here: `churnguard streams seek {lane.integration_id} --to earliest` "
            "(or latest, which leaves out what is there).",
        )


def is_refused(error: Exception) -> bool:
    """Whether PostgreSQL, or what writes for it, refused rows for what is in them: without them the rest is taken."""
    if isinstance(error, ValueError):
        return True
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return isinstance(cause, psycopg.Error) and (cause.sqlstate or "")[:2] in _FOR_ITS_DATA


def _said(error: Exception) -> str:
    """Without the value: PostgreSQL's own sentence may hold a part of it, which the payload has as well."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(cause, psycopg.Error):
        return cause.diag.message_primary or type(cause).__name__
    return str(cause)
