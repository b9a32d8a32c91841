"""Compares the warehouse with the provider by the keys of a recent span of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from psycopg.sql import Identifier

from churnguard_pipelines.connectors.sdk import ApiConnector, Object
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.ingest.ledger import last_success
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.sync import opened

LIMIT = 1_000
"""Keys that one comparison reads at most: at 100 a page about ten calls."""
SPANS = (timedelta(days=7), timedelta(days=1), timedelta(hours=1))
"""Tried in turn until one holds no more than ``LIMIT`` records."""
GRACE_PERIOD = timedelta(minutes=5)
"""What is younger than this at the begin of a sync may be read by the next one only."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison. ``skipped``: why nothing was compared; else what the provider has and we do not, and
    the other way around."""

    missing: int = 0
    extra: int = 0
    skipped: str | None = None


def compare(
    store: Store, connector: type[ApiConnector], integration: IntegrationConfiguration, item: Object
) -> Comparison:
    """Records created before the last sync of the object began, so that ours can be complete.

    Costs calls to the provider. Raises what the provider's refusal is, e.g. ``PermissionMissing``, ``CircuitOpen``.
    """
    if any(rule.objects is None or item.name in rule.objects for rule in integration.sync_config.data_filters):
        return Comparison(skipped="data_filters leave records out on purpose")
    latest = last_success(store, integration.integration_id, item.name)
    if latest is None:
        return Comparison(skipped="never synced")
    end = latest - GRACE_PERIOD
    with opened(store, integration) as use:
        for span in SPANS:
            window = Window(end - span, end)
            theirs = use.connector.keys(item, window, LIMIT)
            if theirs is not None:
                ours = _keys(store, connector, integration, item, window)
                return Comparison(len(set(theirs) - ours), len(ours - set(theirs)))
    return Comparison(skipped=f"more than {LIMIT} records in an hour")


def _keys(
    store: Store, connector: type[ApiConnector], integration: IntegrationConfiguration, item: Object, window: Window
) -> set[str]:
    table, created = connector.table(item.name), Identifier(item.created_column).as_string(None)
    Warehouse(store).ensure(table)
    statement = sa.text(
        f"SELECT {Identifier(table.key).as_string(None)} FROM {Identifier('raw', table.name).as_string(None)} "
        "WHERE organization_id = :organization_id AND integration_id = :id "
        f"AND deleted_at IS NULL AND {created} >= :start AND {created} < :end"
    )
    own = {"organization_id": integration.organization_id, "id": integration.integration_id}
    values = own | {"start": window.start, "end": window.end}
    with store.organization(integration.organization_id) as connection:
        return set(connection.scalars(statement, values))
