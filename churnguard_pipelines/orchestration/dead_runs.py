"""Finds runs whose process is gone, because it was killed or its machine went down, and ends them.

Dagster's default launcher cannot tell, and would count such a run as running for ever: its integration, limited to
one run at a time, would never sync again. The ledger's signs of life can tell.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg

from churnguard_pipelines.connectors import providers
from churnguard_pipelines.orchestration.changes import JOB as CHANGE_SESSION
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.streams import history_job_of, session_job_of
from churnguard_pipelines.orchestration.webhooks import JOB as WEBHOOK_SESSION
from churnguard_pipelines.store.ingest import sessions
from churnguard_pipelines.store.ingest.ledger import find_sync
from churnguard_pipelines.syncing.database import CHANGES
from churnguard_pipelines.syncing.due import name_of
from churnguard_pipelines.syncing.streams.kind import KINDS
from churnguard_pipelines.syncing.webhooks import WEBHOOKS

_SESSIONS = {
    WEBHOOK_SESSION: WEBHOOKS,
    CHANGE_SESSION: CHANGES,
    **{session_job_of(kind): lanes.name for kind, lanes in KINDS.items()},
    **{history_job_of(kind): history_job_of(kind) for kind in KINDS},
}
MAX_RUNTIME = {"dagster/max_runtime": "3600"}
"""Tags of runs that are no syncs and give no signs of life: Dagster ends them after so many seconds."""

WINDING_UP = timedelta(minutes=2)
"""A run may still say something when its sync has ended."""
BEGINNING = timedelta(minutes=10)
"""In which a sync's run must have made its report in the ledger."""


@dg.sensor(
    name="dead_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends the runs of syncs and sessions whose process was killed, so that others can take their place.",
)
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    buried = list(_buried(context.instance))
    return dg.SkipReason("; ".join(buried) or "Every run that is running lives.")


def _buried(instance: dg.DagsterInstance) -> Iterator[str]:
    now = current_store().now()
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        run = record.dagster_run
        if (cause := _cause_of_death(record, now)) is not None:
            instance.report_run_failed(run, cause)
            yield f"{run.job_name} {run.run_id}: {cause}"


def _cause_of_death(record: dg.RunRecord, now: datetime) -> str | None:
    run = record.dagster_run
    began = record.start_time
    late = began is not None and began < (now - BEGINNING).timestamp()
    if (kind := _session_kind(run.job_name)) is not None:
        if sessions.known(current_store(), run.run_id):
            return None if run.run_id in sessions.ages(current_store(), kind) else "its process ended."
        return "its process ended before the session began." if late else None
    report = find_sync(current_store(), run.run_id)
    if report is not None:
        ended = report.finished_at is not None and report.finished_at < now - WINDING_UP
        return (report.error or "its process ended after the sync.") if ended else None
    if run.job_name not in {f"{name}_{what}" for name in providers() for what in ("sync", "history")}:
        return None
    return "its process ended before the sync began." if late else None


def _session_kind(job: str) -> str | None:
    """What the sessions of this job are called; None if it is none of sessions."""
    return _SESSIONS.get(job) or {f"{name}_sync_session": name_of(name) for name in providers()}.get(job)
