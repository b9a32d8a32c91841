"""Everything Dagster gets to know, assembled from the registry of connectors and the kinds of streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from churnguard_pipelines.connectors import connector, connectors
from churnguard_pipelines.connectors.sdk import ApiConnector, Connector
from churnguard_pipelines.connectors.sdk.database import DatabaseConnector
from churnguard_pipelines.orchestration import alerts, changes, mrr, retention, streams, webhooks
from churnguard_pipelines.orchestration.checks import cheap_checks, parity_checks
from churnguard_pipelines.orchestration.databases import database_checks, tables_asset
from churnguard_pipelines.orchestration.dead_runs import MAX_RUNTIME, dead_runs
from churnguard_pipelines.orchestration.mrr_checks import mrr_health
from churnguard_pipelines.orchestration.partitions import partition_keeper
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.schedules import due_schedule, long_syncs, sync_session_job
from churnguard_pipelines.orchestration.syncs import history_job, sync_assets, sync_job
from churnguard_pipelines.store.control.integrations import list_integration_ids
from churnguard_pipelines.syncing.streams.kind import KINDS

if TYPE_CHECKING:  # Dagster gives the type no public name
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def assemble() -> dg.Definitions:
    jobs = {}
    parts = [_common()]
    for kind in connectors():
        assets = _assets(kind)
        jobs[kind.provider] = sync_job(kind, assets)
        parts.append(_of(kind, assets, jobs[kind.provider]))
    parts += map(streams.definitions_of, KINDS)
    return dg.Definitions.merge(*parts, dg.Definitions(sensors=[long_syncs(jobs)]))


def _assets(connector: type[Connector]) -> dg.AssetsDefinition:
    if issubclass(connector, ApiConnector):
        return sync_assets(connector)
    assert issubclass(connector, DatabaseConnector)
    return tables_asset(connector)


def _of(connector: type[Connector], assets: dg.AssetsDefinition, job: UnresolvedAssetJobDefinition) -> dg.Definitions:
    session = sync_session_job(connector)
    periodic = dg.Definitions(assets=[assets], jobs=[job, session], schedules=[due_schedule(connector, session)])
    if issubclass(connector, ApiConnector):
        return dg.Definitions.merge(periodic, _of_api(connector))
    assert issubclass(connector, DatabaseConnector)
    return dg.Definitions.merge(periodic, _of_database(connector))


def _of_api(connector: type[ApiConnector]) -> dg.Definitions:
    health, parity = cheap_checks(connector), parity_checks(connector)
    # The first of a provider's comparisons every day; where that are counts, keys once a week.
    comparing = [
        _checking(
            connector, checks, "41 3 * * 0" if weekly else "41 4 * * *",
            f"Compares what {connector.title} has with what we have, and reads again what is missing.",
        )
        for weekly, checks in enumerate(parity)
    ]  # fmt: skip
    looking = _checking(
        connector, health, "7 * * * *",
        f"Looks whether every object of every integration of {connector.title} is fresh and fits its columns.",
    )  # fmt: skip
    return dg.Definitions(
        asset_checks=[health, *parity],
        jobs=[history_job(connector)],
        schedules=[looking, *comparing],
    )


def _of_database(connector: type[DatabaseConnector]) -> dg.Definitions:
    health = database_checks(connector)
    what = f"Looks whether every {connector.title} database is fresh, can be mirrored, and how much of its log waits."
    return dg.Definitions(asset_checks=[health], schedules=[_checking(connector, health, "7,37 * * * *", what)])


def _checking(
    connector: type[Connector], checks: dg.AssetChecksDefinition, cron: str, what: str
) -> dg.ScheduleDefinition:
    """Only while there is an integration of the provider to look at."""
    name, provider, title = f"{checks.node_def.name}_checks", connector.provider, connector.title
    job = dg.define_asset_job(
        name,
        selection=dg.AssetSelection.checks(checks),
        executor_def=dg.in_process_executor,
        tags=MAX_RUNTIME,
        description=what,
    )

    @dg.schedule(
        name=f"{name}_schedule",
        job=job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=what,
    )
    def looks() -> dg.RunRequest | dg.SkipReason:
        if list_integration_ids(current_store(), provider):
            return dg.RunRequest()
        return dg.SkipReason(f"There is no integration of {title}.")

    return looks


def _common() -> dg.Definitions:
    automation: Sequence[dg.SensorDefinition] = [
        dg.AutomationConditionSensorDefinition(
            "mrr_follows_syncs",
            target=dg.AssetSelection.assets(mrr.mrr_movements),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=15,
            run_tags=MAX_RUNTIME,
            description="Computes an organization's MRR again when a sync has changed what it is computed from.",
        )
    ]
    return dg.Definitions(
        assets=[mrr.mrr_movements],
        asset_checks=[mrr_health],
        jobs=[mrr.mrr_job, mrr.mrr_history, retention.retention, webhooks.webhook_session, changes.change_session],
        schedules=[
            retention.retention_daily,
            _checking(
                connector(mrr.BILLING), mrr_health, "17 * * * *", "Looks whether all of the MRR could be valued."
            ),
        ],
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
