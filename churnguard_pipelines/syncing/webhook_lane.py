"""Stores an integration's webhook events in order, each batch with its checkpoint in one transaction."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import psycopg
import sqlalchemy as sa

from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    CircuitOpen,
    DatabaseUnavailable,
    LaneTakenOver,
    ProviderUnavailable,
    RateLimited,
)
from churnguard_pipelines.records import Checkpoint, Counts, Lane, Rejected
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest import checkpoints, inbox
from churnguard_pipelines.store.ingest.inbox import InboxEvent
from churnguard_pipelines.store.ingest.inbox_order import Progress, Settled, follow_in_the_version_before
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.deadlocks import past_deadlocks
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction
from churnguard_pipelines.syncing.events.writer import EventWriter
from churnguard_pipelines.syncing.sync import opened
from churnguard_pipelines.telemetry import traces

BATCH = 500
ATTEMPTS = 3  # of an event alone, before it is rejected
SOURCE = "inbox"
NOT_ITS_FAULT = (
    AuthenticationFailed,
    CircuitOpen,
    DatabaseUnavailable,
    ProviderUnavailable,
    RateLimited,
)
"""What passes, or needs a person; the events wait for it in their order. So they do for what PostgreSQL cannot do now:
:func:`_is_of_the_moment`."""

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

    def __init__(self, store: Store, warehouse: Warehouse, settled: Settled, integration_id: str) -> None:
        self._store = store
        self._warehouse = warehouse
        self._settled = settled
        self._settled_at = 0  # before the events at work were read
        self._resources = ExitStack()
        self.integration = get_integration(store, integration_id)
        self.lane: Lane = inbox.lane_of(self.integration.organization_id, integration_id)
        self._connector = self._resources.enter_context(opened(store, self.integration)).connector
        self._writer = EventWriter(store, warehouse, self.integration, self._connector, self.lane)
        self._checkpoint: Checkpoint | None = None

    def __enter__(self) -> InboxLane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resources.close()

    def drain(self, more: Callable[[], bool]) -> Iterator[Drained]:
        """Work off what waits, as long as ``more()``; tells of each commit.

        Raises one of ``NOT_ITS_FAULT``, ``LaneTakenOver``, or what PostgreSQL cannot do now.
        """
        with self._store.organization(self.lane.organization_id) as connection:
            self._checkpoint = checkpoints.load(connection, self.lane)
        while more():
            self._settled_at = self._settled.sequence() if self._progress.slots else 0
            with self._store.organization(self.lane.organization_id) as connection:
                events = inbox.read(connection, self.lane, self._progress, BATCH)
            if not events:
                break
            yield from self._work_off(events)

    @property
    def _progress(self) -> Progress:
        return Progress.of(self._checkpoint.position if self._checkpoint else {})

    def _work_off(self, events: Sequence[InboxEvent], attempt: int = 1) -> Iterator[Drained]:
        """One transaction; if it fails by an event's fault, halves find that event, and it is rejected alone."""
        lane = self.lane
        about: dict[str, str | int] = {
            "organization": lane.organization_id,
            "integration": lane.integration_id,
            "events": len(events),
        }
        messages = ((lane.organization_id, lane.integration_id, event.event_id) for event in events)  # as received
        try:
            with traces.working(f"store {self.integration.provider_name}", about, messages):
                drained = self._store_all(events)
        except (*NOT_ITS_FAULT, LaneTakenOver):
            raise
        except Exception as error:
            if _is_of_the_moment(error):
                raise
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
            item = self._writer.find(told) if told is not None else None
            if item is not None:
                by_object.setdefault(item.name, []).append(payload)
                outcomes[event.endpoint_id, "stored"] += 1
            else:
                known = told is not None and self._writer.known(told) is not None
                known = known or event.event_type in self._connector.ignored_events
                outcomes[event.endpoint_id, "ignored" if known else "unknown"] += 1
        changes = {name: self._writer.changes(name, told) for name, told in by_object.items()}

        def store() -> tuple[dict[str, Counts], Checkpoint]:
            with self._warehouse.transaction(self.lane.organization_id) as transaction:
                return self._writer.store(transaction, changes), self._advance(transaction, events)

        counts, self._checkpoint = past_deadlocks(store)
        return Drained(outcomes, counts)

    def _reject(self, event: InboxEvent, error: Exception) -> Drained:
        reason = str(error) if isinstance(error, ChurnGuardError) else f"{type(error).__name__}: {error}"
        _log.warning("%s: webhook event %s is rejected: %s", self.lane.integration_id, event.event_id, reason)
        rejected = Rejected(event.event_id, reason, exact_json.loads(event.payload.encode()))
        with self._warehouse.transaction(self.lane.organization_id) as transaction:
            transaction.reject(self.lane, inbox.REJECTED, [rejected], None)
            moved = self._advance(transaction, [event])
        self._checkpoint = moved
        return Drained(Counter({(event.endpoint_id, "rejected"): 1}))

    def _advance(self, transaction: WarehouseTransaction, events: Sequence[InboxEvent]) -> Checkpoint:
        before, after = self._progress, self._progress.after(events, self._settled_at)
        if after.sequence > before.sequence:
            follow_in_the_version_before(transaction.connection, self.lane, after.sequence, SOURCE)
        return transaction.advance(self.lane, self._checkpoint, after.position, SOURCE)


def _is_of_the_moment(error: Exception) -> bool:
    """Whether PostgreSQL could not: a lock that somebody keeps, a full disk. That it refuses what is too large or too
    much for it, is another thing, though the driver gives both the same class."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return isinstance(cause, psycopg.OperationalError) and not (cause.sqlstate or "").startswith("54")
