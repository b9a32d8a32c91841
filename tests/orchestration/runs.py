"""Running the product's jobs in the test's own process, and asking Dagster what came of it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.orchestration.partitions import reconcile, tags_of
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from churnguard_pipelines.store.postgres.database import Store

ANCHOR = datetime(2026, 9, 17, 10, 30, tzinfo=UTC)


def sandbox_of_one_s_own(folder: Path) -> AbstractContextManager[Sandbox]:
    """Small businesses to change and to break; their clocks stand still but for what a test lets pass."""
    return serve(folder, seed=7, anchor=int(ANCHOR.timestamp()), scale=0.02)


def run(
    instance: dg.DagsterInstance, job: str, partition_key: str, integration_id: str | None = None, **arguments: Any
) -> dg.ExecuteInProcessResult:
    """The job on one partition: an integration, or a month of ``integration_id``."""
    reconcile(instance, "stripe")
    return definitions.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=partition_key,
        tags=tags_of(integration_id or partition_key),
        raise_on_error=False,
        **arguments,
    )


def due(instance: dg.DagsterInstance, *, minutes: int = 0) -> tuple[list[dg.RunRequest], str | None]:
    """The schedule's tick of so many minutes from now: the sessions it asks for, or why for none."""
    repository = definitions.get_repository_def()
    at = datetime.now(UTC) + timedelta(minutes=minutes, seconds=1)  # not before what was registered just now
    context = dg.build_schedule_context(instance=instance, repository_def=repository, scheduled_execution_time=at)
    tick = repository.get_schedule_def("stripe_due").evaluate_tick(context)
    return list(tick.run_requests or []), tick.skip_message


def long_syncs(instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """A tick of the sensor: the runs that it asks for."""
    repository = definitions.get_repository_def()
    context = dg.build_sensor_context(instance=instance, repository_def=repository)
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        return list(repository.get_sensor_def("long_syncs").evaluate_tick(context).run_requests or [])


def pass_time(store: Store, time: timedelta) -> None:
    """As if it had passed since whatever was to be done later was said."""
    with store.operator() as connection:
        for table, column in (
            ("control.integrations", "next_due_at"),
            ("ingest.materializations", "told_at"),
            ("ingest.sessions", "heartbeat_at"),
        ):
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = {column} - %s", (time,))


def config(**values: object) -> dict[str, Any]:
    return {"ops": {"stripe_objects": {"config": values}}}


def objects(*names: str) -> list[dg.AssetKey]:
    return [dg.AssetKey(["stripe", name]) for name in names]


def materializations(instance: dg.DagsterInstance, run_id: str) -> dict[str, dg.AssetMaterialization]:
    """Object -> what the run said of it."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    found = [record.asset_materialization for record in records]
    return {each.asset_key.path[-1]: each for each in found if each is not None}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """What Dagster shows in the place where it shows why a step failed."""
    (event,) = (event for event in result.all_events if event.is_step_failure)
    data = event.step_failure_data.user_failure_data
    assert data is not None
    return data.description or ""
