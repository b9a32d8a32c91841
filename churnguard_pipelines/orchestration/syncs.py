"""Syncs as Dagster sees them: per connector one multi-asset, its sync job, and the job that re-reads a month."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from churnguard_pipelines.connectors.sdk import ApiConnector, Connector
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.orchestration.metadata import data_version, described_table, object_metadata, shown_of
from churnguard_pipelines.orchestration.partitions import integrations_of, months, of_history, tags_of, window_of
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.running import RunningSync
from churnguard_pipelines.orchestration.sessions import DATA_VERSION_TAG

if TYPE_CHECKING:  # Dagster gives the type no public name
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

TRIGGER_TAG = "churnguard/trigger"


class SyncConfig(dg.Config):
    """The run configuration of a sync. ``mode``: ``incremental`` reads what changed, ``full`` re-reads everything and
    finds deletions; the integration's own ``sync_mode`` if empty."""

    mode: str = ""


class HistoryConfig(dg.Config):
    """The run configuration of a history. ``integration``: whose history; the run's tag `churnguard/integration` if
    empty, which a back-fill of many months has. ``objects``: which to re-read; empty for all of the connector's."""

    integration: str = ""
    objects: list[str] = []  # noqa: RUF012 - a pydantic default, copied for each instance


def key_of(connector: type[Connector], name: str) -> dg.AssetKey:
    return dg.AssetKey([connector.provider, name])


def sync_assets(connector: type[ApiConnector]) -> dg.AssetsDefinition:
    """One asset per object, one partition per integration; a run materializes what it selects of one integration."""

    @dg.multi_asset(
        name=f"{connector.provider}_objects",
        specs=[
            dg.AssetSpec(
                key_of(connector, item.name),
                group_name=connector.provider,
                kinds={connector.provider, "postgres"},
                description=f"{connector.title} {item.name.replace('_', ' ')}: a row for each, of every integration; "
                "what its columns do not name is in `extra`.",
                metadata=_described(connector, item.name),
                skippable=True,
            )
            for item in connector.objects
        ],
        partitions_def=integrations_of(connector.provider),
        can_subset=True,
    )
    def objects(context: dg.AssetExecutionContext, config: SyncConfig) -> Iterator[dg.MaterializeResult[None]]:
        selected = {key.path[-1] for key in context.selected_asset_keys}
        every = len(selected) == len(connector.objects)  # then the integration's own choice of objects holds
        sync = RunningSync(
            current_store(),
            context.run.run_id,
            context.partition_key,
            None if every else [item.name for item in connector.objects if item.name in selected],
            mode=mode_of(config.mode),
            trigger=context.run.tags.get(TRIGGER_TAG, "manual"),
        )
        for name, report, seconds in sync.succeeded_objects():
            if name not in selected:  # the account's own objects are no assets
                continue
            yield dg.MaterializeResult(
                asset_key=key_of(connector, name),
                metadata=object_metadata(current_store(), shown_of(connector, name), report, name, seconds),
                data_version=data_version(current_store(), report, name),
            )
        sync.raise_failures()

    return objects


def _described(connector: type[ApiConnector], name: str) -> Mapping[str, Any]:
    table = connector.table(name)
    columns = [(table.key, "text"), *((column.name, str(column.type)) for column in table.columns), ("extra", "jsonb")]
    return described_table(f"raw.{table.name}", dict(columns).items(), [table.key])


def sync_job(connector: type[Connector], assets: dg.AssetsDefinition) -> "UnresolvedAssetJobDefinition":
    return dg.define_asset_job(
        f"{connector.provider}_sync",
        # The checks look at every integration, some of them at the provider: they have schedules of their own.
        selection=dg.AssetSelection.assets(assets).without_checks(),
        executor_def=dg.in_process_executor,
        config=dg.PartitionedConfig(
            integrations_of(connector.provider),
            run_config_for_partition_key_fn=lambda key: {},
            tags_for_partition_key_fn=tags_of,
        ),
        description=f"Sync one integration of {connector.title}: what changed, or everything with mode `full`.",
    )


def history_job(connector: type[ApiConnector]) -> dg.JobDefinition:
    """Re-reads what was created in one month and upserts it; the incremental checkpoint does not move."""

    @dg.op(name=f"{connector.provider}_month")
    def month(context: dg.OpExecutionContext, config: HistoryConfig) -> None:
        integration_id, window = of_history(context, config.integration), window_of(context.partition_key)
        sync = RunningSync(
            current_store(),
            context.run.run_id,
            integration_id,
            config.objects or None,
            window=window,
        )
        declared = {item.name for item in connector.objects}
        for name, report, seconds in sync.succeeded_objects():
            if name not in declared:
                continue
            context.log_event(
                dg.AssetMaterialization(
                    key_of(connector, name),
                    partition=integration_id,
                    description=f"Re-read what was created in {window.start:%Y-%m}",
                    metadata=object_metadata(current_store(), shown_of(connector, name), report, name, seconds),
                    tags={DATA_VERSION_TAG: data_version(current_store(), report, name).value},
                )
            )
        sync.raise_failures()

    @dg.job(
        name=f"{connector.provider}_history",
        config=dg.PartitionedConfig(months(), run_config_for_partition_key_fn=lambda key: {}),
        executor_def=dg.in_process_executor,
        description=f"Re-read a month of an integration of {connector.title}, which configuration or a tag names.",
    )
    def history() -> None:
        month()

    return history


def mode_of(given: str) -> DataSyncMode | None:
    try:
        return DataSyncMode(given) if given else None
    except ValueError:
        known = ", ".join(DataSyncMode)
        raise dg.Failure(
            description=f"there is no sync mode {given!r}; there are: {known}.", allow_retries=False
        ) from None
