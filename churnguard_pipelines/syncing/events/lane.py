"""Stores what an API's feed of events tells, each batch with its position in one transaction.

Beside the syncs, whose reads say the same later: the newest version wins, whichever way it came. So an object whose
records cannot be asked for now is left to its next sync, and the others go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from threading import Event
from types import TracebackType
from typing import Any

from churnguard_pipelines.connectors.sdk import Object
from churnguard_pipelines.connectors.sdk.event_feed import EventBatch, EventFeed
from churnguard_pipelines.errors import PermissionMissing, ProviderError, ProviderMisbehaved, RequestRefused
from churnguard_pipelines.mirrors import Lag
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Batch, Counts, Position
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.deadlocks import past_deadlocks
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction
from churnguard_pipelines.syncing.change_lane import KEEP_IDLE_EVERY, Stored, lane_of, load_checkpoint
from churnguard_pipelines.syncing.events.writer import Changes, EventWriter
from churnguard_pipelines.syncing.sync import opened, refuse_another_source

OF_THE_OBJECT = (PermissionMissing, ProviderMisbehaved, RequestRefused)

_log = logging.getLogger(__name__)


class EventLane:
    """The lane of one integration's feed. Reads on from the lane's checkpoint, which a sync has begun. One thread at a
    time. ``cancelled``: once it is set, whatever waits for the provider or wants to ask it raises ``Stopped``.

    Raises ``LaneTakenOver`` when another reader moved it, ``SourceChanged``, and what the connector raises.
    """

    stays_warm = True

    def __init__(
        self,
        store: Store,
        warehouse: Warehouse,
        integration: IntegrationConfiguration,
        cancelled: Event | None = None,
    ) -> None:
        self._warehouse = warehouse
        self._integration = integration
        self._lane = lane_of(integration)
        self._resources = ExitStack()
        self._connector = self._resources.enter_context(opened(store, integration, cancelled=cancelled)).connector
        self._writer = EventWriter(store, warehouse, integration, self._connector, self._lane)
        self._feed: EventFeed | None = None
        self._checkpoint = load_checkpoint(store, self._lane)
        self._empty_until: Position | None = None  # read, and nothing of it is ours, but not kept yet
        self._kept = time.monotonic()

    def __enter__(self) -> EventLane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._feed is not None:
            self._feed.close()
        self._resources.close()

    def step(self, timeout: float) -> Stored | None:
        """Store the next batch; None if nothing came for ``timeout`` seconds."""
        batch = self._opened().read(timeout)
        if batch is not None and not batch.empty:
            return self._store_batch(batch)
        if batch is not None:
            self._empty_until = batch.position
        self._keep_position()
        return None

    def lag(self, stored: Stored | None) -> Lag:
        """A quiet feed is not behind."""
        at = stored.committed_at if stored else None
        seconds = (datetime.now(UTC) - at).total_seconds() if at is not None else 0.0
        return Lag(None, max(seconds, 0.0), None, {})

    def _opened(self) -> EventFeed:
        if self._feed is None:
            assert self._checkpoint is not None, "a sync begins the lane"
            refuse_another_source(self._integration, self._checkpoint, self._connector.identity())
            self._feed = self._connector.follow(self._checkpoint.position)
        return self._feed

    def _store_batch(self, batch: EventBatch) -> Stored:
        counts: dict[str, Counts] = {}
        for item, since in self._lost(batch):
            self._read_again(item, since, counts)
        changes = self._changes(batch)

        def store() -> dict[str, Counts]:
            with self._warehouse.transaction(self._lane.organization_id) as transaction:
                stored = self._writer.store(transaction, changes)
                self._advance(transaction, batch.position)
            return stored

        for name, stored in past_deadlocks(store).items():
            counts.setdefault(name, Counts()).add(stored)
        return Stored(counts, batch.committed_at)

    def _changes(self, batch: EventBatch) -> dict[str, Changes]:
        by_object: dict[str, list[Mapping[str, Any]]] = {}
        for event in batch.events:
            told = self._connector.object_of(event)
            item = self._writer.find(told) if told is not None else None
            if item is not None:
                by_object.setdefault(item.name, []).append(event)
        changes: dict[str, Changes] = {}
        for name, events in by_object.items():
            try:
                changes[name] = self._writer.changes(name, events)
            except OF_THE_OBJECT as error:
                self._leave_to_sync(name, error)
        return changes

    def _lost(self, batch: EventBatch) -> Iterator[tuple[Object, datetime]]:
        if batch.all_lost is not None:
            yield from ((item, batch.all_lost) for item in self._writer.wanted())
            return
        for told, since in batch.lost.items():
            if (item := self._writer.find(told)) is not None:
                yield item, since

    def _read_again(self, item: Object, since: datetime, counts: dict[str, Counts]) -> None:
        """In transactions of their own, however much it is. The position stays, so that a kill repeats it."""
        _log.info("%s: what changed in %s since %s is read again", self._integration.integration_id, item.name, since)
        try:
            for part in self._connector.changed_since(item, since):
                stored = past_deadlocks(partial(self._store_part, item, part))
                counts.setdefault(item.name, Counts()).add(stored)
        except OF_THE_OBJECT as error:
            self._leave_to_sync(item.name, error)

    def _store_part(self, item: Object, part: Batch) -> Counts:
        with self._warehouse.transaction(self._lane.organization_id) as transaction:
            return self._writer.store(transaction, {item.name: (part.records, part.deletions)})[item.name]

    def _leave_to_sync(self, name: str, error: ProviderError) -> None:
        _log.warning("%s: changes of %s are left to its next sync: %s", self._integration.integration_id, name, error)

    def _keep_position(self) -> None:
        """Now and then, so that an idle source's position does not grow old."""
        if self._empty_until is None or time.monotonic() - self._kept < KEEP_IDLE_EVERY:
            return
        with self._warehouse.transaction(self._lane.organization_id) as transaction:
            self._advance(transaction, self._empty_until)

    def _advance(self, transaction: WarehouseTransaction, position: Position) -> None:
        """Call it last: the checkpoint holds once the transaction has ended."""
        assert self._checkpoint is not None
        self._checkpoint = transaction.advance(self._lane, self._checkpoint, position, self._checkpoint.source)
        self._empty_until = None
        self._kept = time.monotonic()
