"""Stores messages: all in one transaction; what PostgreSQL refuses for its data is found by halves and rejected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, cast

import psycopg
import sqlalchemy as sa

from churnguard_pipelines.engine.mapping import Row
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Counts, Deletion, Lane, Rejected
from churnguard_pipelines.store.ingest.drift import record_drift
from churnguard_pipelines.store.postgres.deadlocks import past_deadlocks
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction
from churnguard_pipelines.stream_options import StreamTarget
from churnguard_pipelines.streams.formats.decoder import Decoder
from churnguard_pipelines.streams.sdk import Message
from churnguard_pipelines.syncing.streams.target import Change, Prepared, Target, newest, rejected_of

MESSAGES = "messages"
"""The object of rejected messages."""
_FOR_ITS_DATA = ("22", "23", "54")
"""Classes of PostgreSQL's errors: the data, a constraint, a limit of the program."""

Also = TypeVar("Also")


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

    def commit(
        self, prepared: Prepared, messages: Sequence[Message], also: Callable[[WarehouseTransaction], Also]
    ) -> tuple[Counts, Also]:
        """All of it and what ``also`` does in one transaction. ``messages``: those that were prepared; what PostgreSQL
        refuses is found among them, and ``prepared`` has it as rejected then. What is there already is not looked for
        before it is known that something is."""
        rejected = len(prepared.rejected)

        def attempt(among: Sequence[Message] | None) -> tuple[Counts, Also]:
            del prepared.rejected[rejected:]
            return self._commit(prepared, among, also)

        try:
            return past_deadlocks(partial(attempt, None))
        except Exception as error:
            if not is_refused(error):
                raise
        return past_deadlocks(partial(attempt, messages))

    def _commit(
        self, prepared: Prepared, messages: Sequence[Message] | None, also: Callable[[WarehouseTransaction], Also]
    ) -> tuple[Counts, Also]:
        with self._warehouse.transaction(self._lane.organization_id) as transaction:
            return self._write(transaction, prepared, messages), also(transaction)

    def _write(
        self, transaction: WarehouseTransaction, prepared: Prepared, messages: Sequence[Message] | None
    ) -> Counts:
        if messages is None:
            counts = self._apply(transaction, prepared.changes, new=True)
        else:
            counts = self._halved(transaction, prepared.changes, messages, prepared.rejected)
        transaction.reject(self._lane, MESSAGES, prepared.rejected, None)
        record_drift(transaction.connection, self._lane, self.target.table.object, prepared.drift)
        counts.rejected = len(prepared.rejected)
        counts.filtered = prepared.filtered
        return counts

    def _apply(self, transaction: WarehouseTransaction, changes: Sequence[Change], *, new: bool = False) -> Counts:
        if not changes:
            return Counts()
        table, stream_id = self.target.table, self._lane.integration_id
        if self._appends:
            return transaction.append(table, stream_id, cast("Sequence[Row]", changes), new=new)
        rows, deletions = newest(changes)
        counts = transaction.upsert(table, stream_id, rows) if rows else Counts()
        counts.stale += len(changes) - len(rows) - len(deletions)
        if deletions:
            counts.deleted = transaction.delete(table, stream_id, deletions)
        return counts

    def _halved(
        self,
        transaction: WarehouseTransaction,
        changes: Sequence[Change],
        messages: Sequence[Message],
        rejected: list[Rejected],
    ) -> Counts:
        """In their order: what one of a key leaves when it is refused is the one before it."""
        try:
            with transaction.attempt():
                return self._apply(transaction, changes)
        except Exception as error:
            if not is_refused(error) or (isinstance(changes[0], Deletion) and len(changes) == 1):
                raise
            if len(changes) == 1:
                message = self.target.message_of(cast("Row", changes[0]), messages)
                rejected.append(rejected_of(message, f"PostgreSQL does not take it: {_said(error)}"))
                return Counts()
        counts, middle = Counts(), len(changes) // 2
        for half in (changes[:middle], changes[middle:]):
            counts.add(self._halved(transaction, half, messages, rejected))
        return counts


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
