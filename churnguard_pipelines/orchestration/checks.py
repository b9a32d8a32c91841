"""Asset checks over all integrations of a provider: is it fresh, has its shape changed, does it match the source.

Checks are not partitioned, so each speaks for every integration and names those that are not well.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import sqlalchemy as sa
from psycopg.sql import Identifier

from churnguard_pipelines.connectors.sdk import Connector, Object
from churnguard_pipelines.connectors.sync import opened
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.syncs import key_of
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.database import Store
from churnguard_pipelines.store.drift import list_drift
from churnguard_pipelines.store.integrations import list_integrations
from churnguard_pipelines.store.ledger import last_success

LATE_AFTER = 2  # times the sync_frequency
PARITY_DAYS = 7
PARITY_SETTLED = timedelta(hours=1)  # younger records may not have been synced yet
PARITY_LIMIT = 1_000
_MAX_NAMED = 20

Finding = str | None
"""What is wrong with an integration's object; None if nothing is."""


def cheap_checks(connector: type[Connector]) -> dg.AssetChecksDefinition:
    """``fresh`` and ``schema_drift`` of every object, from our own tables."""

    @dg.multi_asset_check(
        name=f"{connector.provider}_health", specs=_specs(connector, "fresh", "schema_drift"), can_subset=True
    )
    def health(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        yield from _results(context, connector, {"fresh": _fresh, "schema_drift": _drift})

    return health


def parity_checks(connector: type[Connector]) -> dg.AssetChecksDefinition:
    """``rows_match_provider``: the keys created in the last days, as the provider lists them and as we have them."""

    @dg.multi_asset_check(
        name=f"{connector.provider}_parity", specs=_specs(connector, "rows_match_provider"), can_subset=True
    )
    def parity(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        yield from _results(context, connector, {"rows_match_provider": _parity})

    return parity


def _specs(connector: type[Connector], *names: str) -> list[dg.AssetCheckSpec]:
    return [dg.AssetCheckSpec(name, asset=key_of(connector, item.name)) for item in connector.objects for name in names]


Look = Callable[[Store, type[Connector], IntegrationConfiguration, Object], Finding]


def _results(
    context: dg.AssetCheckExecutionContext, connector: type[Connector], looks: dict[str, Look]
) -> Iterator[dg.AssetCheckResult]:
    store = current_store()
    integrations = list_integrations(store, provider=connector.provider)
    selected = context.selected_asset_check_keys
    for item in connector.objects:
        chosen = [each for each in integrations if (each.sync_config.objects or [item.name]).count(item.name)]
        for name, look in looks.items():
            if dg.AssetCheckKey(key_of(connector, item.name), name) not in selected:
                continue
            found = {each.integration_id: look(store, connector, each, item) for each in chosen}
            wrong = {key: finding for key, finding in found.items() if finding}
            yield dg.AssetCheckResult(
                asset_key=key_of(connector, item.name),
                check_name=name,
                passed=not wrong,
                severity=dg.AssetCheckSeverity.WARN,
                description="; ".join(f"{key}: {finding}" for key, finding in list(wrong.items())[:_MAX_NAMED]) or None,
                metadata={"integrations": len(chosen), "integrations_with_findings": len(wrong)},
            )


def _fresh(store: Store, connector: type[Connector], integration: IntegrationConfiguration, item: Object) -> Finding:
    latest = last_success(store, integration.integration_id, item.name)
    limit = timedelta(seconds=LATE_AFTER * integration.sync_config.sync_frequency)
    if latest is None:
        return "never synced"
    age = datetime.now(UTC) - latest
    return f"last synced {age.total_seconds() / 60:,.0f} minutes ago" if age > limit else None


def _drift(store: Store, connector: type[Connector], integration: IntegrationConfiguration, item: Object) -> Finding:
    found = list_drift(store, integration.integration_id, item.name).get(item.name, [])
    mismatched = [each.column for each in found if each.kind == "type_mismatch"]
    return f"values do not fit the columns {', '.join(mismatched)}" if mismatched else None


def _parity(store: Store, connector: type[Connector], integration: IntegrationConfiguration, item: Object) -> Finding:
    end = datetime.now(UTC) - PARITY_SETTLED
    window = Window(end - timedelta(days=PARITY_DAYS), end)
    try:
        with opened(store, integration) as use:
            theirs = use.connector.keys(item, window, PARITY_LIMIT)
    except ChurnGuardError as error:
        return error.message
    if theirs is None:
        return None  # too many to compare in a check
    ours = _keys(store, connector, integration, item, window)
    missing, extra = set(theirs) - ours, ours - set(theirs)
    return f"{len(missing)} missing here, {len(extra)} gone there" if missing or extra else None


def _keys(
    store: Store, connector: type[Connector], integration: IntegrationConfiguration, item: Object, window: Window
) -> set[str]:
    table, created = connector.table(item.name), item.created_column
    statement = sa.text(
        f"SELECT {Identifier(table.key).as_string(None)} FROM {Identifier('raw', table.name).as_string(None)} "
        f"WHERE integration_id = :id AND deleted_at IS NULL "
        f"AND {Identifier(created).as_string(None)} >= :start AND {Identifier(created).as_string(None)} < :end"
    )
    values = {"id": integration.integration_id, "start": window.start, "end": window.end}
    with store.organization(integration.organization_id) as connection:
        return set(connection.scalars(statement, values))
