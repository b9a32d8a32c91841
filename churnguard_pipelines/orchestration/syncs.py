"""Syncs as Dagster sees them: per connector one multi-asset, its sync job, and the job that re-reads a month."""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from churnguard_pipelines.connectors.sdk import Connector
from churnguard_pipelines.connectors.sync import sync_integration
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.orchestration.metadata import object_metadata
from churnguard_pipelines.orchestration.partitions import integrations_of, months_of, split_month, tags_of
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.ledger import SyncReport, get_sync

if TYPE_CHECKING:  # Dagster gives the type no public name
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

TRIGGER_TAG = "churnguard/trigger"


class SyncConfig(dg.Config):
    """``mode``: ``incremental`` reads what changed, ``full`` re-reads everything and finds deletions; the integration's
    own ``sync_mode`` if empty."""

    mode: str = ""


class HistoryConfig(dg.Config):
    """``objects``: which to re-read; empty for all of the connector's."""

    objects: list[str] = []  # noqa: RUF012 - a pydantic default, copied for each instance


def key_of(connector: type[Connector], name: str) -> dg.AssetKey:
    return dg.AssetKey([connector.provider, name])


def sync_assets(connector: type[Connector]) -> dg.AssetsDefinition:
    """One asset per object, one partition per integration; a run materializes what it selects of one integration."""

    @dg.multi_asset(
        name=f"{connector.provider}_objects",
        specs=[
            dg.AssetSpec(
                key_of(connector, item.name),
                group_name=connector.provider,
                kinds={connector.provider, "postgres"},
                description=f"{connector.title} {item.name.replace('_', ' ')}: raw.{connector.table(item.name).name}",
                skippable=True,
            )
            for item in connector.objects
        ],
        partitions_def=integrations_of(connector.provider),
        can_subset=True,
    )
    def objects(context: dg.AssetExecutionContext, config: SyncConfig) -> Iterator[dg.MaterializeResult[None]]:
        selected = {key.path[-1] for key in context.selected_asset_keys}
        names = [item.name for item in connector.objects if item.name in selected]
        every = len(names) == len(connector.objects)  # then the integration's own choice of objects holds
        run = _Sync(
            context.run_id,
            context.partition_key,
            DataSyncMode(config.mode) if config.mode else None,
            None if every else names,
            trigger=context.run.tags.get(TRIGGER_TAG, "manual"),
        )
        for name in run.finished_objects():
            report = get_sync(current_store(), context.run_id)
            if report.objects[name].status == "succeeded":
                yield dg.MaterializeResult(
                    asset_key=key_of(connector, name),
                    metadata=object_metadata(current_store(), connector, report, name),
                )
        run.raise_failures()

    return objects


def sync_job(connector: type[Connector], assets: dg.AssetsDefinition) -> "UnresolvedAssetJobDefinition":
    return dg.define_asset_job(
        f"{connector.provider}_sync",
        selection=dg.AssetSelection.assets(assets),
        executor_def=dg.in_process_executor,
        config=dg.PartitionedConfig(
            integrations_of(connector.provider),
            run_config_for_partition_key_fn=lambda key: {},
            tags_for_partition_key_fn=tags_of,
        ),
        description=f"Sync one integration of {connector.title}: what changed, or everything with mode `full`.",
    )


def history_job(connector: type[Connector]) -> dg.JobDefinition:
    """Re-reads what was created in one month and upserts it; the incremental checkpoint does not move."""

    @dg.op(name=f"{connector.provider}_month")
    def month(context: dg.OpExecutionContext, config: HistoryConfig) -> None:
        integration_id, window = split_month(context.partition_key)
        run = _Sync(context.run_id, integration_id, None, config.objects or None, window=window)
        for name in run.finished_objects():
            report = get_sync(current_store(), context.run_id)
            if report.objects[name].status == "succeeded":
                context.log_event(
                    dg.AssetMaterialization(
                        key_of(connector, name),
                        partition=integration_id,
                        description=f"Re-read what was created in {window.start:%Y-%m}",
                        metadata=object_metadata(current_store(), connector, report, name),
                    )
                )
        run.raise_failures()

    @dg.job(
        name=f"{connector.provider}_history",
        partitions_def=months_of(connector.provider),
        config=dg.PartitionedConfig(
            months_of(connector.provider),
            run_config_for_partition_key_fn=lambda key: {},
            tags_for_partition_key_fn=tags_of,
        ),
        executor_def=dg.in_process_executor,
        description=f"Re-read one month of one integration of {connector.title}.",
    )
    def history() -> None:
        month()

    return history


class _Sync:
    """A sync in a thread, so that each object's result can be handed to Dagster as it comes."""

    def __init__(
        self,
        sync_id: str,
        integration_id: str,
        mode: DataSyncMode | None,
        objects: Sequence[str] | None,
        *,
        window: Window | None = None,
        trigger: str = "manual",
    ) -> None:
        self._sync_id = sync_id
        self._arguments = {"mode": mode, "objects": objects, "window": window, "trigger": trigger}
        self._integration_id = integration_id
        self._finished: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._report: SyncReport | None = None
        self._error: BaseException | None = None

    def finished_objects(self) -> Iterator[str]:
        thread = threading.Thread(target=self._run, name=f"sync-{self._integration_id}", daemon=True)
        thread.start()
        while (name := self._finished.get()) is not None:
            yield name
        thread.join()

    def raise_failures(self) -> None:
        """One clear message instead of a traceback; retrying at once would not help."""
        if isinstance(self._error, ChurnGuardError):
            raise dg.Failure(description=str(self._error), allow_retries=False) from None
        if self._error is not None:
            raise self._error
        assert self._report is not None
        lines = [f"{name}: {item.error}" for name, item in self._report.objects.items() if item.status == "failed"]
        if self._report.error and not lines:
            lines = [self._report.error]
        if lines:
            raise dg.Failure(description=f"{self._integration_id}: " + "\n".join(lines), allow_retries=False)

    def _run(self) -> None:
        try:
            self._report = sync_integration(
                current_store(),
                self._integration_id,
                sync_id=self._sync_id,
                on_object=self._finished.put,
                **self._arguments,  # type: ignore[arg-type]
            )
        except BaseException as error:
            self._error = error
        finally:
            self._finished.put(None)
