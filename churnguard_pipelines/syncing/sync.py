"""Syncs one integration: every object through the pump on its own lane; one that fails does not stop the rest."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import Event

import sqlalchemy as sa

from churnguard_pipelines.connectors import api_connector, connector
from churnguard_pipelines.connectors.sdk import ApiConnector, ConnectionReport, Object, Reading
from churnguard_pipelines.connectors.sdk.database import DatabaseConnector
from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.engine.breaker import Breaker
from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.engine.pump import Pump
from churnguard_pipelines.engine.quota import QuotaGate
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.engine.server_messages import quoted
from churnguard_pipelines.errors import (
    ChurnGuardError,
    CircuitOpen,
    InvalidConfiguration,
    SourceChanged,
)
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.records import Checkpoint, Counts, Lane, Record, Table, Window
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest import checkpoints, inbox, ledger, rejected
from churnguard_pipelines.store.ingest.drift import record_drift
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.ingest.sync_states import HISTORY
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.database import sync_database
from churnguard_pipelines.syncing.report import ObjectEnd, each_object, run_reported
from churnguard_pipelines.syncing.source import check_database

_log = logging.getLogger(__name__)

REJECTED_EVENTS = "webhooks"
"""The object under which whole webhook events are rejected."""
UNKNOWN = "unknown"
"""The source of a checkpoint made with credentials that may not know whose they are."""


@dataclass(frozen=True, slots=True)
class OpenedIntegration:
    integration: IntegrationConfiguration
    connector: ApiConnector
    http: HttpClient


@contextmanager
def opened(
    store: Store, integration: IntegrationConfiguration, *, guarded: bool = True, cancelled: Event | None = None
) -> Iterator[OpenedIntegration]:
    """The integration's connector with its HTTP client, closed again at the end.

    ``guarded``: behind its circuit breaker and the account's shared quota, which need the integration to be stored.
    ``cancelled``: once it is set, whatever waits or wants to call raises ``Stopped``.
    """
    kind = api_connector(integration.provider_name)
    kind.check_fields(integration)
    sync, name = integration.sync_config, integration.integration_id
    clock = Clock(cancelled)
    gate = QuotaGate(
        store,
        integration.organization_id,
        integration.provider_name,
        quota_account(integration),
        kind.quota(integration),
        requests_per_minute=sync.requests_per_minute,
        concurrent_requests=sync.concurrent_requests,
        integration_id=name,
        clock=clock,
    )
    with HttpClient(
        guard_of(integration),
        provider_title=kind.title,
        own_hosts=kind.own_hosts,
        auth=kind.credential(integration),
        quota=gate if guarded else None,
        breaker=Breaker(store, integration.organization_id, name, clock=clock) if guarded else None,
        retry=RetryPolicy(attempts=sync.retry_attempts, cap=sync.retry_backoff),
        should_retry=kind.should_retry,
        clock=clock,
    ) as http:
        yield OpenedIntegration(integration, kind(integration, http), http)


def sync_integration(
    store: Store,
    integration_id: str,
    *,
    sync_id: str,
    mode: DataSyncMode | None = None,
    objects: Sequence[str] | None = None,
    window: Window | None = None,
    trigger: str = "manual",
    on_object: Callable[[str], None] = lambda name: None,
    cancelled: Event | None = None,
    warehouse: Warehouse | None = None,
) -> SyncReport:
    """Sync the chosen objects and return the ledger's report of it. ``mode``, ``objects``: the configuration's if None.

    ``window``: re-read only what was created in it; the lanes' own checkpoints do not move. ``on_object`` is told each
    object's name when the ledger knows how it ended. ``cancelled``: set it to end soon; what was committed stays.
    ``warehouse``: one that knows the tables already. An object that fails is in the report, and the others go on.
    Raises ``NotFound``, ``InvalidConfiguration`` (unknown object), ``CircuitOpen`` before anything is read.
    """
    integration = get_integration(store, integration_id)
    mode = mode or integration.sync_config.sync_mode
    if issubclass(connector(integration.provider_name), DatabaseConnector):
        return sync_database(store, integration, sync_id, mode, objects, trigger, on_object)
    items = {item.name: item for item in chosen_objects(integration, objects)}
    with opened(store, integration, cancelled=cancelled) as use:
        identity, failure = _identified(use)

        def work() -> ChurnGuardError | None:
            run = _Run(store, use, sync_id, mode, window, identity, warehouse or Warehouse(store))
            return failure or each_object(
                store, sync_id, items, lambda name: run.one(items[name]), run.new_calls, on_object
            )

        return run_reported(store, integration, sync_id, mode, list(items), HISTORY if window else trigger, work)


def check_connection(store: Store, integration_id: str) -> ConnectionReport:
    """Who the credentials belong to and what they may read, object by object. Raises ``AuthenticationFailed``, …"""
    return check_configuration(store, get_integration(store, integration_id))


def check_configuration(store: Store, integration: IntegrationConfiguration) -> ConnectionReport:
    """The same for a configuration that is not stored (yet); neither quota nor breaker take notice."""
    if issubclass(connector(integration.provider_name), DatabaseConnector):
        return check_database(store, integration)
    with opened(store, integration, guarded=False) as use:
        return use.connector.check()


def replay_rejected(store: Store, integration_id: str, ids: Sequence[int] | None = None) -> Counts:
    """Map and store rejected records again; what fits now is resolved, the rest stays with its new reason."""
    integration = get_integration(store, integration_id)
    kind, warehouse, total = api_connector(integration.provider_name), Warehouse(store), Counts()
    waiting = rejected.list_rejected(store, integration_id, ids=ids)
    events = {item.id: str(item.key) for item in waiting if item.object == REJECTED_EVENTS}
    if events:  # whole webhook events, which are worked off once more
        inbox.replay(store, integration, actor="replay", event_ids=sorted(events.values()))
        with store.organization(integration.organization_id) as connection:
            rejected.mark_resolved(connection, events)
        waiting = [item for item in waiting if item.id not in events]
    for name in sorted({item.object for item in waiting}):
        mapper = mapper_of(integration, kind.table(name))
        warehouse.ensure(mapper.table)
        for item in (item for item in waiting if item.object == name):
            # Its version is not known any more: the moment it came is the closest that is not too new.
            mapped = mapper.rows([Record(item.payload, int(item.created_at.timestamp() * 1000))])
            total.add(Counts(read=1, rejected=len(mapped.rejected), filtered=mapped.filtered))
            if mapped.rejected:
                continue
            with warehouse.transaction(integration.organization_id) as transaction:
                total.add(transaction.upsert(mapper.table, integration_id, mapped.rows))
                rejected.mark_resolved(transaction.connection, [item.id])
    return total


class _Run:
    """One sync under way."""

    def __init__(
        self,
        store: Store,
        use: OpenedIntegration,
        sync_id: str,
        mode: DataSyncMode,
        window: Window | None,
        identity: str | None,
        warehouse: Warehouse,
    ) -> None:
        self._store = store
        self._use = use
        self._sync_id = sync_id
        self._mode = mode
        self._window = window
        self._identity = identity
        self._warehouse = warehouse
        self._calls = 0

    def one(self, item: Object) -> ObjectEnd:
        integration, identity = self._use.integration, self._identity
        mapper = mapper_of(integration, self._use.connector.table(item.name))
        drift = self._warehouse.ensure(mapper.table)
        lane = Lane(integration.organization_id, integration.integration_id, self._lane_name(item))
        with self._store.organization(integration.organization_id) as connection:
            checkpoint = checkpoints.load(connection, lane)
            record_drift(connection, lane, item.name, drift)
            started: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        _same_source(integration, checkpoint, identity)
        before = checkpoint.position if checkpoint else None
        if self._mode == DataSyncMode.FULL and self._window is None:
            ledger.set_object(self._store, self._sync_id, item.name, expected_records=self._rows(item))
        reading = Reading(self._mode, before, started, self._window)
        pump = Pump(self._warehouse, mapper, self._sync_id, integration.sync_config.batch_size)
        counts, checkpoint = pump.run(
            lane,
            identity or UNKNOWN,
            checkpoint,
            self._use.connector.read(item, reading),
            lambda counts: self._note_quota(),
        )
        if self._window is not None:
            with self._store.organization(integration.organization_id) as connection:
                checkpoints.forget(connection, lane)
        changed = counts.written or counts.deleted or before is None
        return ObjectEnd(before, checkpoint.position if checkpoint else None, self._rows(item) if changed else None)

    def _rows(self, item: Object) -> int:
        integration = self._use.integration
        return self._warehouse.count(
            integration.provider_name, item.name, integration.organization_id, integration.integration_id
        )

    def _lane_name(self, item: Object) -> str:
        if self._window is None:
            return item.name
        return f"{item.name}@{self._window.start.isoformat()}/{self._window.end.isoformat()}"

    def new_calls(self) -> int:
        before, self._calls = self._calls, self._use.http.metrics.calls
        return self._calls - before

    def _note_quota(self) -> None:
        left = self._use.http.metrics.quota_left
        if left is not None:
            ledger.set_quota_left(self._store, self._sync_id, left)


def chosen_objects(integration: IntegrationConfiguration, objects: Sequence[str] | None) -> list[Object]:
    """These objects, or those that the configuration chooses. Raises ``InvalidConfiguration`` for an unknown one."""
    known = {item.name: item for item in api_connector(integration.provider_name).objects}
    wanted = objects if objects is not None else integration.sync_config.objects
    if unknown := sorted(set(wanted or ()) - set(known)):
        raise InvalidConfiguration(
            f"{integration.provider_name} has no object {', '.join(name[:60] for name in unknown[:10])}.",
            integration_id=integration.integration_id,
            remedy=f"It has: {', '.join(known)}.",
        )
    return [item for name, item in known.items() if wanted is None or name in wanted]


def mapper_of(integration: IntegrationConfiguration, table: Table) -> Mapper:
    """With the integration's own field mappings and filters. Raises ``InvalidConfiguration``."""
    sync = integration.sync_config
    filters = [rule for rule in sync.data_filters if rule.objects is None or table.object in rule.objects]
    return Mapper(table, field_mappings=sync.field_mappings.get(table.object), filters=filters)


def quota_account(integration: IntegrationConfiguration) -> str:
    """Whose quota it is: everything that calls with the same credentials shares it."""
    secrets = integration.credentials.model_dump_json(exclude={"access_token", "refresh_token"})
    key = integration.credentials.api_key
    return hashlib.sha256((key.get_secret_value() if key else secrets).encode()).hexdigest()[:16]


def _same_source(integration: IntegrationConfiguration, checkpoint: Checkpoint | None, identity: str | None) -> None:
    if checkpoint is not None and identity is not None and checkpoint.source not in (identity, UNKNOWN):
        both = quoted(integration, f"{checkpoint.source} then, {identity} now")
        raise SourceChanged(
            f"its checkpoint belongs to another account than the credentials{both}.",
            integration_id=integration.integration_id,
            remedy="Register the other account as an integration of its own, or give the old account's credentials.",
        )


def _identified(use: OpenedIntegration) -> tuple[str | None, ChurnGuardError | None]:
    """Whose the credentials are, or why that is not to be known. Being the first call it also asks the breaker."""
    try:
        return use.connector.identity(), None
    except CircuitOpen:
        raise
    except ChurnGuardError as error:
        return None, error
