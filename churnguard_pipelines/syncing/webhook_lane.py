"""Stores an integration's webhook events in order, each batch with its checkpoint in one transaction."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import sqlalchemy as sa

from churnguard_pipelines.connectors.sdk import Object
from churnguard_pipelines.connectors.sdk.selection import is_chosen
from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.engine.pump import store_changes
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    CircuitOpen,
    DatabaseUnavailable,
    LaneTakenOver,
    ProviderUnavailable,
    RateLimited,
)
from churnguard_pipelines.records import Checkpoint, Counts, Deletion, Lane, Record, Rejected
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest import checkpoints, inbox
from churnguard_pipelines.store.ingest.inbox import InboxEvent
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.sync import REJECTED_EVENTS, mapper_of, opened

BATCH = 500
ATTEMPTS = 3  # of an event alone, before it is rejected
SOURCE = "inbox"
NOT_ITS_FAULT = (
    AuthenticationFailed,
    CircuitOpen,
    DatabaseUnavailable,
    ProviderUnavailable,
    RateLimited,
    sa.exc.OperationalError,
)
"""What passes, or needs a person; the events wait for it in their order."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Drained:
    """What was worked off together. ``outcomes``: events by (endpoint, outcome): ``stored``, ``ignored``, ``unknown``,
    ``rejected``; ``counts``: of records, by object."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    counts: dict[str, Counts] = field(default_factory=dict)

    @property
    def events(self) -> int:
        return self.outcomes.total()


class InboxLane:
    """One integration's events. One thread at a time; two processes on one lane do no harm, the later one gives way.

    Raises ``NotFound`` for an unknown integration, ``SecretsUnreadable``.
    """

    def __init__(self, store: Store, warehouse: Warehouse, integration_id: str) -> None:
        self._store = store
        self._warehouse = warehouse
        self._resources = ExitStack()
        self.integration = get_integration(store, integration_id)
        self.lane: Lane = inbox.lane_of(self.integration.organization_id, integration_id)
        self._connector = self._resources.enter_context(opened(store, self.integration)).connector
        self._objects = {item.name: item for item in self._connector.objects}
        self._by_path: dict[str, Object] = {}
        self._account_asked = False
        self._mappers: dict[str, Mapper] = {}
        self._checkpoint: Checkpoint | None = None

    def __enter__(self) -> InboxLane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resources.close()

    def drain(self, more: Callable[[], bool]) -> Iterator[Drained]:
        """Work off what waits, as long as ``more()``; tells of each commit.

        Raises one of ``NOT_ITS_FAULT`` or ``LaneTakenOver``.
        """
        with self._store.organization(self.lane.organization_id) as connection:
            self._checkpoint = checkpoints.load(connection, self.lane)
        while more():
            with self._store.organization(self.lane.organization_id) as connection:
                events = inbox.read(connection, self.lane, self._position, BATCH)
            if not events:
                break
            yield from self._work_off(events)

    @property
    def _position(self) -> int:
        return int(self._checkpoint.position["sequence"]) if self._checkpoint else 0

    def _work_off(self, events: Sequence[InboxEvent], attempt: int = 1) -> Iterator[Drained]:
        """One transaction; if it fails by an event's fault, halves find that event, and it is rejected alone."""
        try:
            drained = self._store_all(events)
        except (*NOT_ITS_FAULT, LaneTakenOver):
            raise
        except Exception as error:
            if len(events) > 1:
                middle = len(events) // 2
                yield from self._work_off(events[:middle])
                yield from self._work_off(events[middle:])
            elif attempt < ATTEMPTS:
                yield from self._work_off(events, attempt + 1)
            else:
                yield self._reject(events[0], error)
        else:
            yield drained

    def _store_all(self, events: Sequence[InboxEvent]) -> Drained:
        by_object: dict[str, list[Mapping[str, Any]]] = {}
        outcomes: Counter[tuple[str, str]] = Counter()
        for event in events:
            payload = exact_json.loads(event.payload.encode())
            told = self._connector.object_of(payload)
            item = self._object(told) if told is not None else None
            if item is not None and is_chosen(self.integration, item.name):
                by_object.setdefault(item.name, []).append(payload)
                outcomes[event.endpoint_id, "stored"] += 1
            else:
                known = item is not None or event.event_type in self._connector.ignored_events
                outcomes[event.endpoint_id, "ignored" if known else "unknown"] += 1
        # Read before the transaction: providers are asked here, and no lock is held meanwhile.
        changes = {name: self._changes(self._objects[name], told) for name, told in by_object.items()}
        counts: dict[str, Counts] = {}
        with self._warehouse.transaction(self.lane.organization_id) as transaction:
            for name, (records, deletions) in changes.items():
                mapper = self._mapper(name)
                mapped = mapper.rows(records)
                counts[name] = store_changes(transaction, self.lane, mapper.table, mapped, deletions, None)
            position = {"sequence": events[-1].sequence}
            moved = transaction.advance(self.lane, self._checkpoint, position, SOURCE)
        self._checkpoint = moved
        return Drained(outcomes, counts)

    def _changes(self, item: Object, told: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Record], Sequence[Deletion]]:
        table = self._mapper(item.name).table

        def stored(keys: Collection[str]) -> Mapping[str, int]:
            with self._warehouse.transaction(self.lane.organization_id) as transaction:
                return transaction.versions(table, self.lane.integration_id, keys)

        return self._connector.changes(item, told, stored)

    def _reject(self, event: InboxEvent, error: Exception) -> Drained:
        reason = str(error) if isinstance(error, ChurnGuardError) else f"{type(error).__name__}: {error}"
        _log.warning("%s: webhook event %s is rejected: %s", self.lane.integration_id, event.event_id, reason)
        rejected = Rejected(event.event_id, reason, exact_json.loads(event.payload.encode()))
        with self._warehouse.transaction(self.lane.organization_id) as transaction:
            transaction.reject(self.lane, REJECTED_EVENTS, [rejected], None)
            moved = transaction.advance(self.lane, self._checkpoint, {"sequence": event.sequence}, SOURCE)
        self._checkpoint = moved
        return Drained(Counter({(event.endpoint_id, "rejected"): 1}))

    def _object(self, told: str) -> Object | None:
        """The account is asked for its own objects once, when one is first told of."""
        if told not in self._objects and not self._account_asked:
            own = self._connector.discover_objects()
            self._objects = {item.name: item for item in own} | self._objects
            self._by_path = {item.path: item for item in own}
            self._account_asked = True
        return self._objects.get(told) or self._by_path.get(told)

    def _mapper(self, name: str) -> Mapper:
        if (mapper := self._mappers.get(name)) is None:
            mapper = mapper_of(self._store, self.integration, self._connector.table_of(self._objects[name]))
            self._warehouse.ensure(mapper.table)
            self._mappers[name] = mapper
        return mapper
