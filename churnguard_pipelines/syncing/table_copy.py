"""Copies one table from a snapshot into its mirror: in resumable pieces, several at once; by a cursor; or its keys
only.

The lane's position: ``version`` of the rows, ``next`` (the mark before which every piece is stored), ``complete``,
``fingerprint`` (the table's, which the mark was taken on), ``origins`` (of the mirror's columns, as they were filled),
``cursor`` (the greatest value read of the cursor column), ``swept_at`` (when keys were last compared).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, wait
from contextlib import ExitStack
from datetime import datetime
from functools import partial

from churnguard_pipelines.connectors.sdk.database import Snapshot
from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.mirrors import Mirror, Piece, SourceTable
from churnguard_pipelines.records import Checkpoint, Counts, Lane, Position
from churnguard_pipelines.store.ingest import checkpoints
from churnguard_pipelines.store.postgres.deadlocks import past_deadlocks
from churnguard_pipelines.store.raw.mirror_writer import MirrorWriter
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction

AT_ONCE = 2


class TableCopy:
    """Copies one table on its lane. ``checkpoint``: where the lane stands now. ``workers``: ``AT_ONCE`` threads, the
    same for all tables: a snapshot may keep a connection to the source for each that it meets. ``clock``: a cancelled
    one ends a copy between two pieces, from where the next one goes on."""

    def __init__(
        self,
        warehouse: Warehouse,
        lane: Lane,
        mirror: Mirror,
        table: SourceTable,
        source: str,
        checkpoint: Checkpoint | None,
        sync_id: str,
        workers: Executor,
        clock: Clock,
    ) -> None:
        self._warehouse = warehouse
        self._lane = lane
        self._mirror = mirror
        self._table = table
        self._read_as = {"fingerprint": table.fingerprint, "origins": mirror.origins}
        self._source = source
        self.checkpoint = checkpoint
        self._sync_id = sync_id
        self._workers = workers
        self._clock = clock
        self._commits = threading.Lock()

    def read_whole(self, snapshot: Snapshot, *, binary: bool) -> None:
        """Every row; at the end, what was not there any more is deleted. Goes on where an earlier one was cut off.

        A table without a key begins anew instead: its rows' numbers mean nothing in another snapshot. So does one that
        has another fingerprint now: its rows lie elsewhere. So does one whose mirror is filled from elsewhere.
        """
        position = self.checkpoint.position if self.checkpoint else None
        if position is None or position["complete"] or self._table.keyless or position != {**position, **self._read_as}:
            position = {"version": snapshot.version, "next": None, "complete": False, **self._read_as}
        pieces = _Pieces(snapshot.pieces(self._table, position["next"]), position)

        def work() -> None:
            while (piece := pieces.take()) is not None:
                try:
                    self._clock.wait(0.0)  # notices a cancelled run
                    past_deadlocks(partial(self._store_piece, snapshot, piece, pieces, binary=binary))
                except BaseException:
                    pieces.stop()
                    raise

        copying = [self._workers.submit(work) for _ in range(AT_ONCE)]
        wait(copying)
        for each in copying:
            each.result()

        def end(transaction: WarehouseTransaction) -> tuple[Position, Counts]:
            deleted = self._writer(transaction).delete_older(position["version"], "inferred", inclusive=False)
            complete = {
                "version": position["version"], "complete": True, "swept_at": self._now(transaction), **self._read_as,
            }  # fmt: skip
            return complete, Counts(deleted=deleted)

        self._commit(end)

    def keep_fingerprint(self) -> None:
        """The stored rows are the table's as it is now."""
        position = self.checkpoint.position if self.checkpoint else None
        if position is not None and position != {**position, **self._read_as}:
            self._commit(lambda transaction: ({**position, **self._read_as}, Counts()))

    def read_increment(self, snapshot: Snapshot, column: str, after: str | None, *, binary: bool) -> None:
        assert self.checkpoint is not None
        before, cursor = self.checkpoint.position, after

        def parts() -> Iterator[bytes]:
            nonlocal cursor
            for part, greatest in snapshot.increment(self._table, column, after):
                cursor = greatest or cursor
                yield part

        def store(transaction: WarehouseTransaction) -> tuple[Position, Counts]:
            read, written = self._writer(transaction).copy(parts(), binary=binary)
            return {**before, "cursor": cursor}, Counts(read=read, written=written, stale=read - written)

        self._commit(store)

    def sweep(self, snapshot: Snapshot, now: datetime, *, binary: bool) -> None:
        """What the source does not have any more is deleted."""
        assert self.checkpoint is not None
        position = {**self.checkpoint.position, "swept_at": now.isoformat()}

        def delete(transaction: WarehouseTransaction) -> tuple[Position, Counts]:
            writer = self._writer(transaction)
            deleted = writer.delete_missing(snapshot.keys(self._table), snapshot.version, binary=binary)
            return position, Counts(deleted=deleted)

        self._commit(delete)

    def _store_piece(self, snapshot: Snapshot, piece: Piece, pieces: _Pieces, *, binary: bool) -> None:
        with ExitStack() as until_committed:
            with self._warehouse.transaction(self._lane.organization_id) as transaction:
                read, written = self._writer(transaction).copy(snapshot.copy(self._table, piece), binary=binary)
                # One at a time: each moves the one checkpoint. Whoever waits for what PostgreSQL does not know of waits
                # for nobody who waits for another writer: that circle would never be broken.
                checkpoints.load(transaction.connection, self._lane, lock=True)
                until_committed.enter_context(self._commits)
                position = pieces.position_with(piece)
                moved = self._moved(transaction, position, Counts(read=read, written=written, stale=read - written))
            self.checkpoint = moved
            pieces.done(piece, position)

    def _commit(self, work: Callable[[WarehouseTransaction], tuple[Position, Counts]]) -> None:
        """``work`` and the position after it, with what it did."""

        def store() -> Checkpoint:
            with self._warehouse.transaction(self._lane.organization_id) as transaction:
                return self._moved(transaction, *work(transaction))

        self.checkpoint = past_deadlocks(store)

    def _moved(self, transaction: WarehouseTransaction, position: Position, counts: Counts) -> Checkpoint:
        moved = transaction.advance(self._lane, self.checkpoint, position, self._source)
        transaction.progress(self._sync_id, self._table.object, counts)
        return moved

    def _writer(self, transaction: WarehouseTransaction) -> MirrorWriter:
        return MirrorWriter(transaction.connection, self._mirror, self._lane.organization_id, self._lane.integration_id)

    @staticmethod
    def _now(transaction: WarehouseTransaction) -> str:
        moment: datetime = transaction.connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        return moment.isoformat()


class _Pieces:
    """Hands out pieces in order, and knows before which mark all of them are stored. Thread safe."""

    def __init__(self, pieces: Iterator[Piece], position: Position) -> None:
        self._pieces = pieces
        self._position = position
        self._open: list[Piece] = []  # handed out, and not all before them are stored
        self._stored: set[int] = set()  # their ids
        self._lock = threading.Lock()
        self._stopped = False

    def take(self) -> Piece | None:
        with self._lock:
            piece = None if self._stopped else next(self._pieces, None)
            if piece is not None:
                self._open.append(piece)
            return piece

    def stop(self) -> None:
        with self._lock:
            self._stopped = True

    def position_with(self, piece: Piece) -> Position:
        """What will hold once this piece is stored too."""
        with self._lock:
            mark = self._position["next"]
            for each in self._open:
                if each is not piece and id(each) not in self._stored:
                    break
                mark = mark if each.end is None else each.end  # of the very last one the begin stays
            return {**self._position, "next": mark}

    def done(self, piece: Piece, position: Position) -> None:
        with self._lock:
            self._position = position
            self._stored.add(id(piece))
            while self._open and id(self._open[0]) in self._stored:
                self._stored.discard(id(self._open.pop(0)))
