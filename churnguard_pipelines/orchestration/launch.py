"""`python -m churnguard_pipelines.orchestration.launch sync SYNC_ID`, `mrr INTEGRATION_ID …`: one Dagster run in this
process. What to sync is read from the standard input, as JSON.

The run is on record like any other, its id is the sync's. Everything it prints goes to whoever started the process.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import dagster as dg

from churnguard_pipelines.orchestration.assembly import assemble
from churnguard_pipelines.orchestration.mrr import BILLING
from churnguard_pipelines.orchestration.partitions import reconcile, tags_of
from churnguard_pipelines.orchestration.processes.environment import LOCATION
from churnguard_pipelines.orchestration.processes.supervision import leave
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.running import STOPPED
from churnguard_pipelines.orchestration.sync_requests import configured
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest.ledger import find_sync, finish_sync

_OF_LOCATION = {".dagster/repository": f"__repository__@{LOCATION}"}
"""By which Dagster's pages of a job, and of what it makes, find its runs: one in this process has no other origin."""


def run_sync(sync_id: str, integration_id: str, mode: str | None, objects: Sequence[str] | None) -> bool:
    """Returns whether the run succeeded; the ledger's report of ``sync_id`` says what happened."""
    provider = get_integration(current_store(), integration_id).provider_name
    run_config, selection = configured(provider, mode, objects)
    succeeded = _run(
        provider,
        f"{provider}_sync",
        integration_id,
        run_id=sync_id,
        run_config=run_config,
        asset_selection=selection,
    )
    report = find_sync(current_store(), sync_id)
    if report is not None and report.status == "running":  # we were told to end
        finish_sync(current_store(), sync_id, "cancelled", STOPPED)
    return succeeded


def run_mrr(integration_ids: Sequence[str]) -> bool:
    outcomes = [_run(BILLING, "mrr", integration_id) for integration_id in integration_ids]
    return all(outcomes)


def _run(provider: str, job: str, integration_id: str, **arguments: Any) -> bool:
    with dg.DagsterInstance.get() as instance:
        reconcile(instance, provider)
        result = (
            assemble()
            .resolve_job_def(job)
            .execute_in_process(
                instance=instance,
                partition_key=integration_id,
                tags=tags_of(integration_id) | _OF_LOCATION,
                raise_on_error=False,
                **arguments,
            )
        )
        return result.success


def main(arguments: Sequence[str]) -> int:
    what, *rest = arguments
    succeeded = run_sync(**json.load(sys.stdin)) if what == "sync" else run_mrr(rest)
    return 0 if succeeded else 1


if __name__ == "__main__":
    code = 1
    try:
        code = main(sys.argv[1:])
    except Exception:
        traceback.print_exc()
    leave(code)
