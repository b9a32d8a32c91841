"""Rejected messages of a stream once more: what fits now is stored and resolved in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Counts, Lane
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest import rejected
from churnguard_pipelines.store.ingest.rejected import StoredRejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction
from churnguard_pipelines.streams.formats import decoder_of
from churnguard_pipelines.syncing.streams.target import message_of
from churnguard_pipelines.syncing.streams.writer import MESSAGES, Writer

TOGETHER = 500


def replay_messages(store: Store, stream_id: str, ids: Sequence[int] | None = None) -> Counts:
    """By the stream's present configuration. ``ids``: only these. What still does not fit stays, with its new reason.
    Raises ``NotFound``, and what the format does."""
    stream = STREAMS.get(store, stream_id).configuration
    warehouse, total = Warehouse(store), Counts()
    for waiting in _waiting(store, stream_id, ids):
        for partition, items in groupby(sorted(waiting, key=lambda each: each.lane), lambda each: each.lane):
            lane = Lane(stream.organization_id, stream_id, partition)
            total.add(_replay(warehouse, stream, lane, list(items)))
    return total


def _waiting(store: Store, stream_id: str, ids: Sequence[int] | None) -> Iterator[list[StoredRejected]]:
    before = None
    while found := rejected.list_rejected(store, stream_id, MESSAGES, TOGETHER, ids=ids, before=before):
        yield found
        before = found[-1].id


def _replay(warehouse: Warehouse, stream: StreamConfiguration, lane: Lane, items: Sequence[StoredRejected]) -> Counts:
    writer = Writer(warehouse, stream, lane, decoder_of(stream, guard_of(stream)))
    warehouse.ensure(writer.target.table)
    found = {item.id: message for item in items if (message := message_of(item.payload)) is not None}
    messages = sorted(found.values(), key=lambda each: each.version)
    prepared = writer.prepare(messages)

    def resolve(transaction: WarehouseTransaction) -> list[StoredRejected]:
        STREAMS.keep(transaction.connection, lane.organization_id, lane.integration_id)
        again = {each.key for each in prepared.rejected}
        fits = [item for item in items if item.id in found and item.key not in again]
        rejected.mark_resolved(transaction.connection, fits)
        return fits

    counts, fits = writer.commit(prepared, messages, resolve)
    counts.read = len(items)
    counts.rejected = len(items) - len(fits)
    return counts
