"""A failed run is one clear log line, and a report in the ledger, which health and alerts go by, if it was a sync's."""

import logging
from contextlib import suppress

import dagster as dg

from churnguard_pipelines.connectors import providers
from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.orchestration.partitions import INTEGRATION_TAG, PARTITION_TAG
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.syncs import TRIGGER_TAG
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.integrations import organization_of
from churnguard_pipelines.store.ingest.due import SYNC
from churnguard_pipelines.store.ingest.ledger import find_sync, note_failure

_log = logging.getLogger("churnguard.alerts")


@dg.run_failure_sensor(
    name="failure_alert",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Notes of every run that failed why it did: in the log, and, if its sync never began, for health.",
)
def failure_alert(context: dg.RunFailureSensorContext) -> None:
    run = context.dagster_run
    partition = run.tags.get(PARTITION_TAG, "no partition")
    cause = " ".join(_cause(context).split())
    _log.error("run %s of %s (%s) failed: %s", run.run_id, run.job_name, partition, cause)
    note_never_begun(run, cause)


def note_never_begun(run: dg.DagsterRun, cause: str) -> None:
    """The sync of a run that failed before it opened its report, if it is one's."""
    integration_id = run.tags.get(INTEGRATION_TAG)
    if integration_id is None or run.job_name not in {f"{provider}_sync" for provider in providers()}:
        return
    with suppress(NotFound):  # removed meanwhile
        lane = Lane(organization_of(current_store(), integration_id), integration_id, SYNC)
        trigger = run.tags.get(TRIGGER_TAG, "manual")
        if find_sync(current_store(), run.run_id) is None:
            note_failure(current_store(), lane, run.run_id, trigger, f"its run ended before the sync began: {cause}")


def _cause(context: dg.RunFailureSensorContext) -> str:
    """What the failing step says of itself; Dagster's word on the run where no step failed."""
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return data.user_failure_data.description
        if data.error is not None:
            return data.error.message
    return context.failure_event.message or "for an unknown reason"
