"""Says what a sync would take, before it runs: calls, rows, time, and its share of the provider's quota.

Numbers are the provider's own where it gives them, else of the latest sync, else of what we have; what is left is
said to be unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from churnguard_pipelines.connectors import connector
from churnguard_pipelines.connectors.sdk import Estimate, Object, Reading
from churnguard_pipelines.connectors.sdk.database import DatabaseConnector
from churnguard_pipelines.connectors.sdk.selection import wanted_tables
from churnguard_pipelines.engine.fair_threads import map_in_threads
from churnguard_pipelines.engine.quota import pace
from churnguard_pipelines.errors import AuthenticationFailed, ChurnGuardError, CircuitOpen
from churnguard_pipelines.mirrors import SourceTable
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest import checkpoints, plans
from churnguard_pipelines.store.ingest.objects import known_objects
from churnguard_pipelines.store.ingest.plans import Planned, latest_read, rows_per_second
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.source import opened_database
from churnguard_pipelines.syncing.sync import OpenedIntegration, chosen_objects, opened

Basis = Literal["provider", "latest sync", "our rows", "unknown"]


@dataclass(frozen=True, slots=True)
class ObjectPlan:
    """What one object would take; None for what is not known. ``whole``: it is read from the beginning. ``basis``:
    where the numbers come from. ``problem``: why the provider does not say."""

    object: str
    whole: bool
    rows: int | None
    calls: int | None
    basis: Basis
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sync would take. ``rows``, ``calls``: of the objects of which they are known; of the others nothing is in
    them. ``minutes``: at the pace that the quota allows, or at which rows came before, whichever is slower.
    ``quota_share``: calls as a share of the provider's quota in its current window of ``quota_window`` seconds;
    ``quota_left``: calls left in it."""

    integration_id: str
    mode: DataSyncMode
    objects: tuple[ObjectPlan, ...]
    rows: int | None
    calls: int | None
    minutes: float | None
    quota_share: float | None = None
    quota_left: float | None = None
    quota_window: float | None = None

    @property
    def unknown(self) -> list[str]:
        """The objects of which nothing is known."""
        return [each.object for each in self.objects if each.basis == "unknown"]


def plan_sync(
    store: Store,
    integration: IntegrationConfiguration,
    mode: DataSyncMode | None = None,
    objects: Sequence[str] | None = None,
) -> Plan:
    """What :func:`~churnguard_pipelines.syncing.sync.sync_integration` would take; the next sync in this mode says how
    far it was off. Costs a call or a few for each object that its provider counts.

    Raises ``InvalidConfiguration`` (unknown object), ``CircuitOpen``, ``AuthenticationFailed``. What is refused for one
    object is its ``problem``.
    """
    mode = mode or integration.sync_config.sync_mode
    of_database = issubclass(connector(integration.provider_name), DatabaseConnector)
    made = (_of_database if of_database else _of_api)(store, integration, mode, objects)
    plans.keep(store, integration, mode, {each.object: Planned(each.rows, each.calls) for each in made.objects})
    return made


def _of_api(
    store: Store, integration: IntegrationConfiguration, mode: DataSyncMode, objects: Sequence[str] | None
) -> Plan:
    known = known_objects(store, integration.integration_id)
    with opened(store, integration) as use:
        use.connector.identity()
        items = chosen_objects(integration, objects, use.connector.discover_objects(), known)
        made = map_in_threads(
            "plan", integration.sync_config.concurrent_requests, partial(_of_object, store, use, mode), items
        )
        limits = use.connector.limits()
        quota = type(use.connector).quota(integration)
    calls = _sum(each.calls for each in made)
    by_calls = None if calls is None else calls / pace(quota, integration.sync_config.most_per_minute).rate
    return Plan(
        integration.integration_id,
        mode,
        tuple(made),
        _sum(each.rows for each in made),
        calls,
        _minutes(by_calls, _seconds_of_rows(store, integration, made)),
        calls / limits.limit if limits and limits.limit and calls is not None else None,
        limits.remaining if limits else None,
        limits.window if limits else None,
    )


def _of_object(store: Store, use: OpenedIntegration, mode: DataSyncMode, item: Object) -> ObjectPlan:
    integration = use.integration
    lane = Lane(integration.organization_id, integration.integration_id, item.name)
    with store.organization(lane.organization_id) as connection:
        checkpoint = checkpoints.load(connection, lane)
    position = checkpoint.position if checkpoint else None
    whole = mode == DataSyncMode.FULL or position is None
    known = known_objects(store, integration.integration_id).get(item.name)
    problem: str | None = None
    try:
        told = use.connector.estimate(item, Reading(mode, position, store.now(), fields=known.fields if known else ()))
    except (AuthenticationFailed, CircuitOpen):
        raise
    except ChurnGuardError as error:
        told, problem = Estimate(), error.message
    if told.rows is not None or told.calls is not None:
        return ObjectPlan(item.name, whole, told.rows, told.calls, "provider", problem)
    if (before := latest_read(store, integration.integration_id, item.name, whole=whole)) is not None:
        return ObjectPlan(item.name, whole, before.rows, before.calls, "latest sync", problem)
    table = use.connector.table_of(item)
    ours = Warehouse(store).count(table.name, lane.organization_id, lane.integration_id)
    if whole and ours:
        return ObjectPlan(item.name, whole, ours, use.connector.pages(ours), "our rows", problem)
    return ObjectPlan(item.name, whole, None, None, "unknown", problem)


def _of_database(
    store: Store, integration: IntegrationConfiguration, mode: DataSyncMode, objects: Sequence[str] | None
) -> Plan:
    with opened_database(store, integration) as source:
        tables = wanted_tables(integration, source.discover(), objects)
    made = [_of_table(store, integration, mode, table) for table in tables]
    seconds = _seconds_of_rows(store, integration, made)
    rows = _sum(each.rows for each in made)
    return Plan(integration.integration_id, mode, tuple(made), rows, None, _minutes(seconds))


def _of_table(
    store: Store, integration: IntegrationConfiguration, mode: DataSyncMode, table: SourceTable
) -> ObjectPlan:
    """By the source's own estimate of its rows, where all of them are read and it has one."""
    lane = Lane(integration.organization_id, integration.integration_id, table.object)
    with store.organization(lane.organization_id) as connection:
        whole = mode == DataSyncMode.FULL or checkpoints.load(connection, lane) is None
    if whole and table.rows is not None:
        return ObjectPlan(table.object, whole, table.rows, None, "provider", table.problem)
    before = latest_read(store, integration.integration_id, table.object, whole=whole)
    return ObjectPlan(
        table.object,
        whole,
        before.rows if before else None,
        None,
        "latest sync" if before else "unknown",
        table.problem,
    )


def _seconds_of_rows(store: Store, integration: IntegrationConfiguration, made: Sequence[ObjectPlan]) -> float | None:
    rows, rate = _sum(each.rows for each in made), rows_per_second(store, integration.integration_id)
    return None if rows is None or rate is None else rows / rate


def _minutes(*seconds: float | None) -> float | None:
    known = [each for each in seconds if each is not None]
    return max(known) / 60 if known else None


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None
