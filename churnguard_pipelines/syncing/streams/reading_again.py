"""A time range of a stream once more: its messages come to the same rows, and no checkpoint moves. A rejected one that
is stored now waits no longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from threading import Event

from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.interpreter import suit_records
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Counts, Lane, Position
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest import rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction
from churnguard_pipelines.streams.formats import decoder_of
from churnguard_pipelines.streams.sdk import Message, Seek, StreamSource
from churnguard_pipelines.syncing.streams.managing import opened_source
from churnguard_pipelines.syncing.streams.target import name_of
from churnguard_pipelines.syncing.streams.writer import MESSAGES, Writer

SILENT_FOR = 30.0
"""Seconds in which a source that says that it has more may give none of it."""


def read_again(
    store: Store,
    stream_id: str,
    since: datetime,
    until: datetime,
    *,
    stop: Event | None = None,
    on_stored: Callable[[Counts], None] = lambda counts: None,
) -> Counts:
    """Messages that were produced from ``since`` up to ``until``, and those that do not say when; as far as the source
    reached when it began. Newer rows that we have stay. Raises ``NotFound``, also once it is removed meanwhile,
    ``InvalidConfiguration`` where a source cannot, ``ProviderUnavailable`` if it stops giving what it has, and what it
    and the format do."""
    suit_records()
    if since >= until:
        raise InvalidConfiguration("the time range ends before it begins.", integration_id=stream_id)
    stream = STREAMS.get(store, stream_id).configuration
    total, stop = Counts(), stop or Event()
    with opened_source(stream, stop) as source:
        source.again = True
        positions = source.sought(Seek(since))
        ahead = source.watermarks(positions)
        for partition, position in positions.items():
            behind = ahead[partition].behind if partition in ahead else 0
            reader = _Again(Warehouse(store), stream, partition, (since, until), on_stored)
            total.add(reader.read(source, position, behind, stop))
    return total


class _Again:
    """One partition."""

    def __init__(
        self,
        warehouse: Warehouse,
        stream: StreamConfiguration,
        partition: str,
        span: tuple[datetime, datetime],
        on_stored: Callable[[Counts], None],
    ) -> None:
        self._warehouse = warehouse
        self._lane = Lane(stream.organization_id, stream.stream_id, partition)
        self._writer = Writer(warehouse, stream, self._lane, decoder_of(stream, guard_of(stream)))
        self._since, self._until = (int(moment.timestamp() * 1000) for moment in span)
        self._on_stored = on_stored
        warehouse.ensure(self._writer.target.table)

    def read(self, source: StreamSource, position: Position, behind: int | None, stop: Event) -> Counts:
        """``behind``: how many there are; None: its source does not count them."""
        total, left, heard = Counts(), behind, time.monotonic()
        if left == 0:
            return total
        with closing(source.batches(self._lane.name, position)) as batches:
            for batch in batches:
                if stop.is_set():
                    break
                if batch is None:  # what is left counts what is no message, too; or its source takes its time
                    if not self._has_more(source, position):
                        break
                    self._check_patience(heard)
                    continue
                heard, position = time.monotonic(), batch.position
                counts = self._store(self._within(batch.messages))
                total.add(counts)
                self._on_stored(counts)
                left = None if left is None else left - len(batch.messages)
                if self._is_beyond(batch.messages) or (left is not None and left <= 0):
                    break
        return total

    def _has_more(self, source: StreamSource, position: Position) -> bool:
        mark = source.watermarks({self._lane.name: position}).get(self._lane.name)
        return mark is not None and bool(mark.behind)

    def _check_patience(self, heard: float) -> None:
        if time.monotonic() - heard > SILENT_FOR:
            raise ProviderUnavailable(
                f"the source has more of {self._lane.name}, and has given nothing for {SILENT_FOR:.0f} s.",
                integration_id=self._lane.integration_id,
                remedy="Read the range again once it answers; what was stored stays.",
            )

    def _within(self, messages: Sequence[Message]) -> list[Message]:
        return [each for each in messages if each.produced_at is None or self._since <= each.produced_at < self._until]

    def _is_beyond(self, messages: Sequence[Message]) -> bool:
        """They are nearly in order: a producer's clock may be late."""
        times = [each.produced_at for each in messages if each.produced_at is not None]
        return bool(times) and min(times) >= self._until

    def _store(self, messages: Sequence[Message]) -> Counts:
        prepared = self._writer.prepare(messages)

        def settle(transaction: WarehouseTransaction) -> None:
            STREAMS.keep(transaction.connection, self._lane.organization_id, self._lane.integration_id)
            again = {each.key for each in prepared.rejected}
            stored = (name for name in map(name_of, messages) if name not in again)
            rejected.mark_stored(transaction.connection, self._lane, MESSAGES, stored)

        counts, _ = self._writer.commit(prepared, messages, settle)
        counts.read = len(messages)
        return counts
