"""Syncs one integration: every object through the pump on its own lane; one that fails does not stop the rest."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from types import MappingProxyType

from churnguard_pipelines.connectors import api_connector, connector
from churnguard_pipelines.connectors.sdk import ApiConnector, ConnectionReport, Object, Reading
from churnguard_pipelines.connectors.sdk.database import DatabaseConnector
from churnguard_pipelines.connectors.sdk.selection import is_chosen, matches, unknown_patterns
from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.engine.breaker import Breaker
from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.engine.fair_threads import FairThreads
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.engine.pump import Pump
from churnguard_pipelines.engine.quota import Quota, QuotaGate, quota_account
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.engine.server_messages import quoted
from churnguard_pipelines.engine.tokens import StoredTokens, tokens_of
from churnguard_pipelines.errors import (
    ChurnGuardError,
    CircuitOpen,
    InvalidConfiguration,
    ProviderMisbehaved,
    SourceChanged,
)
from churnguard_pipelines.interpreter import suit_answers, suit_records
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.records import Checkpoint, Counts, Lane, Record, Table, Window
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest import arrivals, checkpoints, inbox, ledger, rejected
from churnguard_pipelines.store.ingest.drift import record_drift
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.ingest.objects import KnownObject, known_objects, reading_alike
from churnguard_pipelines.store.ingest.sync_states import HISTORY
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.child_views import child_name, show_children
from churnguard_pipelines.syncing.database import sync_database
from churnguard_pipelines.syncing.events.following import keep_following
from churnguard_pipelines.syncing.report import Helpers, ObjectEnd, Told, each_object, run_reported
from churnguard_pipelines.syncing.source import check_database
from churnguard_pipelines.syncing.typed_views import bring_up_to_date, merged, shown, tidy_up

_log = logging.getLogger(__name__)

_HELPERS = FairThreads("object", most=48, most_each=16)
"""For all syncs of this process: they read objects beside each other."""
OBJECTS_A_CONNECTION = 2
"""At work at once: the quota keeps to the connections, and while one object's call is under way, another is stored."""
NOTE_EVERY = 1.0
"""Seconds, of the quota that is left."""
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

    def gate(quota: Quota, budget: str | None = None) -> QuotaGate:
        account = quota_account(integration)
        return QuotaGate(
            store,
            integration.organization_id,
            integration.provider_name,
            account if budget is None else f"{account}/{budget}",
            quota,
            requests_per_minute=sync.most_per_minute,
            concurrent_requests=sync.concurrent_requests,
            integration_id=name,
            read_limits=kind.read_limits,
            clock=clock,
        )

    budgets = {each: gate(quota, each) for each, quota in kind.budgets(integration).items()} if guarded else {}
    tokens = StoredTokens(store, name) if guarded else tokens_of(store, integration)
    with HttpClient(
        guard_of(integration),
        provider_title=kind.title,
        own_hosts=kind.own_hosts,
        auth=kind.credential(integration, tokens),
        quota=gate(kind.quota(integration)) if guarded else None,
        budgets=budgets,
        breaker=Breaker(store, integration.organization_id, name, clock=clock) if guarded else None,
        retry=RetryPolicy(attempts=sync.retry_attempts, cap=sync.retry_backoff),
        describe=kind.describe,
        should_retry=kind.should_retry,
        quota_used_up=kind.quota_used_up,
        retry_after=kind.retry_after,
        refused_credentials=kind.refused_credentials,
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
    on_object: Told = lambda name, seconds: None,
    cancelled: Event | None = None,
    warehouse: Warehouse | None = None,
) -> SyncReport:
    """Sync the chosen objects and return the ledger's report of it. ``mode``, ``objects``: the configuration's if None.

    ``window``: re-read only what was created in it; the lanes' own checkpoints do not move. ``on_object`` is told each
    object's name, and the seconds it took, when the ledger knows how it ended; objects are read beside each other, and
    it may be called in several threads. ``cancelled``: set it to end soon; what was committed stays.
    ``warehouse``: one that knows the tables already. An object that fails is in the report, and the others go on.
    Raises ``NotFound``, ``InvalidConfiguration`` (unknown object), ``CircuitOpen`` before anything is read.
    """
    suit_records()
    suit_answers()
    integration = get_integration(store, integration_id)
    mode = mode or integration.sync_config.sync_mode
    if issubclass(connector(integration.provider_name), DatabaseConnector):
        return sync_database(store, integration, sync_id, mode, objects, trigger, on_object, Clock(cancelled))
    known = known_objects(store, integration_id)
    with opened(store, integration, cancelled=cancelled) as use:
        identity, custom, failure = _looked_at(use, known)
        items = {item.name: item for item in chosen_objects(integration, objects, custom, known)}

        def work() -> ChurnGuardError | None:
            if failure is None and window is None:
                keep_following(store, use.connector, sync_id, list(items.values()), identity or UNKNOWN)
            tables = warehouse or Warehouse(store)
            run = _Run(store, use, sync_id, mode, window, identity, known, tables, list(items))
            at_once = OBJECTS_A_CONNECTION * integration.sync_config.concurrent_requests
            helpers = Helpers(_HELPERS, integration.organization_id, at_once - 1)
            ended = failure or each_object(
                store, sync_id, items, lambda name: run.one(items[name]), run.calls_of, on_object, helpers
            )
            run.note_quota()
            if ended is None and objects is None:
                tidy_up(store, integration, known, {*items, *_children_of(use.connector, items.values())})
            return ended

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
    warehouse, total = Warehouse(store), Counts()
    waiting = rejected.list_rejected(store, integration_id, ids=ids)
    events = sorted(str(item.key) for item in waiting if item.object == inbox.REJECTED)
    if events:  # whole webhook events, which are worked off once more
        inbox.replay(store, integration, actor="replay", event_ids=events)
        waiting = [item for item in waiting if item.object != inbox.REJECTED]
    for name, table in _tables_of(store, integration, {item.object for item in waiting}).items():
        mapper = mapper_of(store, integration, table)
        warehouse.ensure(table)
        for item in (item for item in waiting if item.object == name):
            # Its version is not known any more: the moment it came is the closest that is not too new.
            mapped = mapper.rows([Record(item.payload, int(item.seen_at.timestamp() * 1000))])
            total.add(Counts(read=1, rejected=len(mapped.rejected), filtered=mapped.filtered))
            if mapped.rejected:
                continue
            with warehouse.transaction(integration.organization_id) as transaction:
                total.add(transaction.upsert(table, integration_id, mapped.rows))
                rejected.mark_resolved(transaction.connection, [item])
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
        known: Mapping[str, KnownObject],
        warehouse: Warehouse,
        names: Sequence[str],
    ) -> None:
        self._store = store
        self._use = use
        self._sync_id = sync_id
        self._mode = mode
        self._window = window
        self._identity = identity
        self._known = known
        self._warehouse = warehouse
        self._first = names[0] if names else None
        self._reading_alike = reading_alike(names)
        self._clients: dict[str, HttpClient] = {}
        self._noted = time.monotonic()
        self._left: float | None = None

    def one(self, item: Object) -> ObjectEnd:
        """By a connector of its own, which need not mind what others read at the same time."""
        integration, identity = self._use.integration, self._identity
        http = self._clients[item.name] = self._use.http.counted_apart()
        connector = type(self._use.connector)(integration, http)
        table, known = connector.table_of(item), self._known.get(item.name)
        fields, drift = merged(known.fields if known else (), connector.discover_fields(item))
        view = shown(integration, table, fields)
        drift += self._warehouse.ensure(table)
        drift += bring_up_to_date(
            self._store, integration, table, known, fields, view.columns,
            label=item.label, custom=item.custom, told_apart=item.name in self._reading_alike,
        )  # fmt: skip
        children = connector.child_views(integration, item)
        drift += show_children(self._store, integration, table, children, self._known)
        lane = Lane(integration.organization_id, integration.integration_id, self._lane_name(item))
        with self._store.organization(integration.organization_id) as connection:
            checkpoint = checkpoints.load(connection, lane)
            record_drift(connection, lane, item.name, drift)
            started: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
            watched = arrivals.watched(connection, lane, item.name) if checkpoint is not None else {}
        refuse_another_source(integration, checkpoint, identity)
        before = checkpoint.position if checkpoint else None
        if self._mode == DataSyncMode.FULL and self._window is None and known is not None and known.rows:
            ledger.set_object(self._store, self._sync_id, item.name, expected_records=known.rows)
        reading = Reading(self._mode, before, started, self._window, fields)
        mapper = Mapper(table, filters=integration.sync_config.data_filters, viewed=view.viewed)
        pump = Pump(self._warehouse, mapper, self._sync_id, integration.sync_config.batch_size, watched)
        counts, checkpoint = pump.run(
            lane,
            identity or UNKNOWN,
            checkpoint,
            connector.read(item, reading),
            lambda counts: self._note_quota(http),
        )
        self._note_quota(http)
        if self._window is not None:
            with self._store.organization(integration.organization_id) as connection:
                checkpoints.forget(connection, lane)
        changed = counts.written or counts.deleted or before is None
        return ObjectEnd(before, checkpoint.position if checkpoint else None, self._rows(item) if changed else None)

    def _rows(self, item: Object) -> int:
        integration = self._use.integration
        table = self._use.connector.table_of(item)
        return self._warehouse.count(table.name, integration.organization_id, integration.integration_id)

    def _lane_name(self, item: Object) -> str:
        if self._window is None:
            return item.name
        return f"{item.name}@{self._window.start.isoformat()}/{self._window.end.isoformat()}"

    def calls_of(self, name: str) -> int:
        """What was asked before any object was read counts for the first one, whichever is read first."""
        client = self._clients.get(name)
        calls = client.metrics.calls if client is not None else 0
        return calls + (self._use.http.metrics.calls if name == self._first else 0)

    def _note_quota(self, http: HttpClient) -> None:
        self._left = http.metrics.quota_left if http.metrics.quota_left is not None else self._left
        if time.monotonic() - self._noted >= NOTE_EVERY:
            self._noted = time.monotonic()
            self.note_quota()

    def note_quota(self) -> None:
        """What is left of it, by the latest answer."""
        if (left := self._left) is not None:
            ledger.set_quota_left(self._store, self._sync_id, left)


def chosen_objects(
    integration: IntegrationConfiguration,
    objects: Sequence[str] | None,
    custom: Sequence[Object] = (),
    known: Mapping[str, KnownObject] = MappingProxyType({}),
) -> list[Object]:
    """These objects, or those that the configuration chooses, by name or pattern, of the declared ones and the
    account's own. Raises ``InvalidConfiguration`` for one that neither is there nor is ``known`` to have been.
    """
    declared = {item.name: item for item in api_connector(integration.provider_name).objects}
    there = declared | {item.name: item for item in custom if item.name not in declared}
    wanted = objects if objects is not None else integration.sync_config.objects
    if unknown := unknown_patterns(wanted, there.keys() | known.keys()):
        raise InvalidConfiguration(
            f"{integration.provider_name} has no object {', '.join(sorted(name[:60] for name in unknown)[:10])}.",
            integration_id=integration.integration_id,
            remedy=f"It has: {', '.join(there)}.",
        )
    if objects is not None:
        return [item for name, item in there.items() if matches(name, objects)]
    return [item for name, item in there.items() if is_chosen(integration, name)]


def _children_of(connector: ApiConnector, items: Iterable[Object]) -> Iterator[str]:
    for item in items:
        for child in connector.child_views(connector.integration, item):
            yield child_name(connector.table_of(item), child)


def mapper_of(store: Store, integration: IntegrationConfiguration, table: Table) -> Mapper:
    """With the integration's filters, and what its view shows as of the last sync. Raises ``InvalidConfiguration``."""
    known = known_objects(store, integration.integration_id).get(table.object)
    viewed = shown(integration, table, known.fields if known else ()).viewed
    return Mapper(table, filters=integration.sync_config.data_filters, viewed=viewed)


def _tables_of(store: Store, integration: IntegrationConfiguration, names: Set[str]) -> dict[str, Table]:
    """The account is asked only if one of the objects may be its own."""
    kind = api_connector(integration.provider_name)
    tables = {item.name: kind.table_of(item) for item in kind.objects}
    if names - tables.keys():
        with opened(store, integration) as use:
            tables = {item.name: kind.table_of(item) for item in use.connector.discover_objects()} | tables
    return {name: tables[name] for name in sorted(names & tables.keys())}


def refuse_another_source(
    integration: IntegrationConfiguration, checkpoint: Checkpoint | None, identity: str | None
) -> None:
    """Raises ``SourceChanged`` if the checkpoint is another account's than the credentials, as far as they may know."""
    if checkpoint is not None and identity is not None and checkpoint.source not in (identity, UNKNOWN):
        both = quoted(integration, f"{checkpoint.source} then, {identity} now")
        raise SourceChanged(
            f"its checkpoint belongs to another account than the credentials{both}.",
            integration_id=integration.integration_id,
            remedy="Register the other account as an integration of its own, or give the old account's credentials.",
        )


def _looked_at(
    use: OpenedIntegration, known: Mapping[str, KnownObject]
) -> tuple[str | None, Sequence[Object], ChurnGuardError | None]:
    """Whose the credentials are and which objects the account added, or why that is not to be known, with those that
    it had. Being the first call it also asks the breaker."""
    had = [Object(name, "", (), custom=True) for name, each in known.items() if each.custom]
    try:
        return use.connector.identity(), use.connector.discover_objects(), None
    except CircuitOpen:
        raise
    except ChurnGuardError as error:
        return None, had, error
    except Exception as error:
        _log.exception("%s: what its account holds", use.integration.integration_id)
        what = f"what the account holds cannot be understood ({type(error).__name__})."
        return None, had, ProviderMisbehaved(what, remedy="The log has the details.")
