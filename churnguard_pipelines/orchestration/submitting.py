"""`python -m churnguard_pipelines.orchestration.submitting SYNC_ID`: puts a sync into Dagster's queue, as a run whose
id is the sync's. What to sync is read from the standard input, as JSON.

For installations whose runs work elsewhere, e.g. each in a pod of its own. The code server says what a run consists of.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.orchestration.partitions import PARTITION_TAG, reconcile, tags_of
from churnguard_pipelines.orchestration.processes.environment import LOCATION, workspace
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.sync_requests import configured
from churnguard_pipelines.store.control.integrations import get_integration


def submit(sync_id: str, integration_id: str, mode: str | None, objects: Sequence[str] | None) -> None:
    """Raises ``ChurnGuardError`` while the code server cannot be reached."""
    settings = current_store().settings
    provider = get_integration(current_store(), integration_id).provider_name
    run_config, selection = configured(provider, mode, objects)
    places = workspace(settings, settings.code_server_host, settings.code_server_port)
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([str(places)])) as process,
    ):
        reconcile(instance, provider)
        request = process.create_request_context()
        if not request.has_code_location(LOCATION):
            raise ChurnGuardError("the code server cannot be reached.", remedy="See its log, and try again.")
        location = request.get_code_location(LOCATION)
        (repository,) = location.get_repositories().values()
        job = location.get_job(
            JobSubsetSelector(LOCATION, repository.name, f"{provider}_sync", None, asset_selection=selection)
        )
        plan = location.get_execution_plan(
            job, run_config, step_keys_to_execute=None, known_state=None, instance=instance
        ).execution_plan_snapshot
        instance.create_run(
            job_name=job.name,
            run_id=sync_id,
            run_config=run_config,
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags={**job.tags, **tags_of(integration_id), PARTITION_TAG: integration_id},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan,
            job_snapshot=job.job_snapshot,
            parent_job_snapshot=job.parent_job_snapshot,
            asset_selection=frozenset(selection) if selection else None,
            asset_check_selection=None,
            resolved_op_selection=job.resolved_op_selection,
            op_selection=None,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            asset_graph=repository.asset_graph,
        )
        instance.submit_run(sync_id, request)


if __name__ == "__main__":
    try:
        submit(sys.argv[1], **{name: value for name, value in json.load(sys.stdin).items() if name != "sync_id"})
    except ChurnGuardError as error:
        sys.exit(str(error))
