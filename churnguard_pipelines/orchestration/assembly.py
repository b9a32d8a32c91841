"""Everything Dagster gets to know, assembled from the registry of connectors."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from churnguard_pipelines.connectors import connectors
from churnguard_pipelines.connectors.sdk import ApiConnector, Connector
from churnguard_pipelines.connectors.sdk.database import DatabaseConnector
from churnguard_pipelines.orchestration import alerts, changes, mrr, retention, webhooks
from churnguard_pipelines.orchestration.checks import cheap_checks, parity_checks
from churnguard_pipelines.orchestration.databases import database_checks, tables_asset
from churnguard_pipelines.orchestration.dead_runs import MAX_RUNTIME, dead_runs
from churnguard_pipelines.orchestration.mrr_checks import mrr_health
from churnguard_pipelines.orchestration.partitions import partition_keeper
from churnguard_pipelines.orchestration.schedules import due_schedule
from churnguard_pipelines.orchestration.syncs import history_job, sync_assets, sync_job


def assemble() -> dg.Definitions:
    return dg.Definitions.merge(*map(_of, connectors()), _common())


def _of(connector: type[Connector]) -> dg.Definitions:
    if issubclass(connector, ApiConnector):
        return _of_api(connector)
    assert issubclass(connector, DatabaseConnector)
    return _of_database(connector)


def _of_api(connector: type[ApiConnector]) -> dg.Definitions:
    assets, health, parity = sync_assets(connector), cheap_checks(connector), parity_checks(connector)
    job = sync_job(connector, assets)
    return dg.Definitions(
        assets=[assets],
        asset_checks=[health, parity],
        jobs=[job, history_job(connector)],
        schedules=[
            due_schedule(connector, job),
            _checking(f"{connector.provider}_health", "7 * * * *", health),
            _checking(f"{connector.provider}_parity", "41 4 * * *", parity),
        ],
    )


def _of_database(connector: type[DatabaseConnector]) -> dg.Definitions:
    asset, health = tables_asset(connector), database_checks(connector)
    job = sync_job(connector, asset)
    return dg.Definitions(
        assets=[asset],
        asset_checks=[health],
        jobs=[job],
        schedules=[due_schedule(connector, job), _checking(f"{connector.provider}_health", "7,37 * * * *", health)],
    )


def _checking(name: str, cron: str, checks: dg.AssetChecksDefinition) -> dg.ScheduleDefinition:
    job = dg.define_asset_job(
        f"{name}_checks",
        selection=dg.AssetSelection.checks(checks),
        executor_def=dg.in_process_executor,
        tags=MAX_RUNTIME,
    )
    return dg.ScheduleDefinition(
        name=f"{name}_checks_schedule", job=job, cron_schedule=cron, default_status=dg.DefaultScheduleStatus.RUNNING
    )


def _common() -> dg.Definitions:
    automation: Sequence[dg.SensorDefinition] = [
        dg.AutomationConditionSensorDefinition(
            "automation",
            target=dg.AssetSelection.assets(mrr.mrr_movements),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=15,
            run_tags=MAX_RUNTIME,
        )
    ]
    return dg.Definitions(
        assets=[mrr.mrr_movements],
        asset_checks=[mrr_health],
        jobs=[mrr.mrr_job, mrr.mrr_history, retention.retention, webhooks.webhook_session, changes.change_session],
        schedules=[retention.retention_daily, _checking("mrr", "17 * * * *", mrr_health)],
        sensors=[
            partition_keeper,
            webhooks.webhooks_waiting,
            changes.changes_waiting,
            dead_runs,
            alerts.failure_alert,
            *automation,
        ],
        executor=dg.in_process_executor,  # of what the web UI starts, too: half the start-up of Dagster's own choice
    )
