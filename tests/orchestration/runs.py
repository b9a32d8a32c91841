"""Running the product's jobs in the test's own process, and asking Dagster what came of it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.orchestration.partitions import reconcile, tags_of
from churnguard_pipelines.sandbox.serve import Sandbox, serve

ANCHOR = datetime(2026, 9, 17, 10, 30, tzinfo=UTC)


def sandbox_of_one_s_own(folder: Path) -> AbstractContextManager[Sandbox]:
    """Small businesses to change and to break; their clocks stand still but for what a test lets pass."""
    return serve(folder, seed=7, anchor=int(ANCHOR.timestamp()), scale=0.02)


def run(instance: dg.DagsterInstance, job: str, partition_key: str, **arguments: Any) -> dg.ExecuteInProcessResult:
    """The job on one partition."""
    reconcile(instance, "stripe")
    return definitions.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=partition_key,
        tags=tags_of(partition_key),
        raise_on_error=False,
        **arguments,
    )


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
