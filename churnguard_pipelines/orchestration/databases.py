"""Databases as Dagster sees them: one asset per connector to sync an integration, and one per table that it finds.

Tables are the integrations' own, so they cannot be declared beforehand: a table's asset comes to be with its first
materialization, under ``[provider, table]``, with the integration as its partition.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from churnguard_pipelines.connectors.sdk.database import DatabaseConnector
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.mirror_types import Base
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationStatus
from churnguard_pipelines.monitoring.health import CHANGES_CRITICAL_AT, CHANGES_WARN_AT
from churnguard_pipelines.monitoring.vitals import late_after
from churnguard_pipelines.orchestration.metadata import Shown, data_version, described_table, object_metadata, percent
from churnguard_pipelines.orchestration.partitions import integrations_of
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.running import RunningSync
from churnguard_pipelines.orchestration.sessions import DATA_VERSION_TAG
from churnguard_pipelines.orchestration.syncs import TRIGGER_TAG, SyncConfig, key_of, mode_of
from churnguard_pipelines.store.control.integrations import get_integration, survey_integrations
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.ingest.ledger import SyncReport, latest_sync
from churnguard_pipelines.syncing.mirroring import mirror_of

_RESTING = (IntegrationStatus.PAUSED, IntegrationStatus.INACTIVE)
_log = logging.getLogger(__name__)
_DOCUMENTS = (Base.JSON, Base.JSONB, Base.BYTEA)


class TablesConfig(SyncConfig):
    """The run configuration of a database sync. ``objects``: names or patterns of tables to read; empty for all that
    the integration's configuration chooses."""

    objects: list[str] = []  # noqa: RUF012 - a pydantic default, copied for each instance


def tables_asset(connector: type[DatabaseConnector]) -> dg.AssetsDefinition:
    """Its run syncs one integration and materializes each of its tables."""

    @dg.multi_asset(
        name=f"{connector.provider}_objects",
        specs=[
            dg.AssetSpec(
                dg.AssetKey([connector.provider]),
                group_name=connector.provider,
                kinds={connector.provider},
                description=f"The tables of a {connector.title} database, each an asset under `{connector.provider}`.",
                skippable=True,
            )
        ],
        partitions_def=integrations_of(connector.provider),
    )
    def tables(context: dg.AssetExecutionContext, config: TablesConfig) -> Iterator[dg.MaterializeResult[None]]:
        sync = RunningSync(
            current_store(),
            context.run.run_id,
            context.partition_key,
            config.objects or None,
            mode=mode_of(config.mode),
            trigger=context.run.tags.get(TRIGGER_TAG, "manual"),
        )
        done = 0
        for name, report, seconds in sync.succeeded_objects():
            done += 1
            context.log_event(
                dg.AssetMaterialization(
                    key_of(connector, name),
                    partition=context.partition_key,
                    description=f"The table {name} of {report.integration_id}'s {connector.title} database",
                    metadata=_metadata(report, name, seconds),
                    tags={DATA_VERSION_TAG: data_version(current_store(), report, name).value},
                )
            )
        sync.raise_failures()
        yield dg.MaterializeResult(metadata={"tables": done, **_lag(context.partition_key)})

    return tables


def database_checks(connector: type[DatabaseConnector]) -> dg.AssetChecksDefinition:
    """Of every integration: was it synced lately, can each table be mirrored, does its change log still reach us."""
    asset = dg.AssetKey([connector.provider])
    looks = {"fresh": _stale, "schema": _stopped_tables, "change_log": _far_behind}
    sentences = {
        "fresh": "Every database was synced within twice its sync_frequency.",
        "schema": "Every table that is wanted can be mirrored.",
        "change_log": f"Less than {CHANGES_WARN_AT:.0%} of the changes that a database keeps waits to be read.",
    }

    @dg.multi_asset_check(
        name=f"{connector.provider}_health",
        specs=[dg.AssetCheckSpec(name, asset=asset, description=sentences[name]) for name in looks],
        can_subset=True,
        description=f"Is every {connector.title} database fresh, can it be mirrored, and does its change log reach us?",
    )
    def health(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        surveyed = survey_integrations(current_store(), connector.provider)
        unreadable = {name: each.message for name, each in surveyed.items() if isinstance(each, ChurnGuardError)}
        integrations = [
            name for name, each in surveyed.items()
            if isinstance(each, IntegrationConfiguration) and each.status not in _RESTING
        ]  # fmt: skip
        for key in sorted(context.selected_asset_check_keys, key=lambda each: each.name):
            found = unreadable | {
                name: problem for name in integrations if (problem := _careful(looks[key.name], name))
            }
            yield dg.AssetCheckResult(
                asset_key=asset,
                check_name=key.name,
                passed=not found,
                severity=dg.AssetCheckSeverity.WARN,
                description="; ".join(f"{name}: {problem}" for name, problem in found.items()) or None,
                metadata={
                    "integrations": len(integrations) + len(unreadable),
                    "integrations_with_findings": len(found),
                },
            )

    return health


def _careful(look: Callable[[str], str | None], integration_id: str) -> str | None:
    """What goes wrong with one integration hides nothing of the others."""
    try:
        return look(integration_id)
    except ChurnGuardError as error:
        return error.message
    except Exception as error:
        _log.exception("%s could not be checked", integration_id)
        return f"could not be checked ({type(error).__name__})"


def _stale(integration_id: str) -> str | None:
    store = current_store()
    latest = latest_sync(store, integration_id)
    if latest is None:
        return "never synced"
    age = store.now() - latest.started_at
    late = age > late_after(get_integration(store, integration_id).sync_config.sync_frequency)
    return f"last synced {age.total_seconds() / 60:,.0f} minutes ago" if late else None


def _stopped_tables(integration_id: str) -> str | None:
    stopped = {name: entry.problem for name, entry in catalogue.entries(current_store(), integration_id).items()}
    return "; ".join(f"{name}: {problem}" for name, problem in stopped.items() if problem) or None


def _far_behind(integration_id: str) -> str | None:
    lag = catalogue.get_lag(current_store(), integration_id)
    if lag is None or lag.horizon is None or lag.horizon < CHANGES_WARN_AT:
        return None
    urgency = "soon lost" if lag.horizon >= CHANGES_CRITICAL_AT else "behind"
    return f"{lag.horizon:.0%} of what the source keeps of its changes is waiting to be read: {urgency}"


def _metadata(report: SyncReport, name: str, seconds: float) -> dict[str, Any]:
    integration = get_integration(current_store(), report.integration_id)
    entry = catalogue.entries(current_store(), report.integration_id)[name]
    mirror = mirror_of(integration, entry.table, entry.raw_table)
    columns = [(column.name, str(column.type.base)) for column in mirror.columns]
    plain = [column.name for column in mirror.columns if column.type.base not in _DOCUMENTS]
    shown = Shown(mirror.table, mirror.key, plain)
    counted = object_metadata(current_store(), shown, report, name, seconds)
    return {
        **counted,
        "dagster/row_count": report.objects[name].rows,
        **described_table(f"raw.{mirror.table}", columns, mirror.key),
        **_lag(report.integration_id),
    }


def _lag(integration_id: str) -> dict[str, Any]:
    lag = catalogue.get_lag(current_store(), integration_id)
    if lag is None:
        return {}
    used = None if lag.horizon is None else percent(lag.horizon)
    known = {"lag_bytes": lag.bytes, "lag_seconds": lag.seconds, "change_log_used_percent": used}
    return {name: value for name, value in known.items() if value is not None}
