"""Who syncs when: each provider's schedule asks for sessions of what is due, a sensor for runs of what takes long."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from churnguard_pipelines.connectors.sdk import Connector
from churnguard_pipelines.engine.sharing import fair_share
from churnguard_pipelines.orchestration.partitions import INTEGRATION_TAG, ORGANIZATION_TAG
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.sessions import SESSION_TAG, Backlog, Materializer, session_requests
from churnguard_pipelines.orchestration.syncs import TRIGGER_TAG
from churnguard_pipelines.store.ingest.breakers import open_breakers
from churnguard_pipelines.store.ingest.due import DueIntegration, due_integrations
from churnguard_pipelines.syncing.due import SCHEDULE, DueSyncs, name_of
from churnguard_pipelines.syncing.session import Session

if TYPE_CHECKING:  # Dagster gives the type no public name
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
ASK_AGAIN_SECONDS = 900
"""A sensor's run key is good for one run for ever; one whose run was lost must not strand the integration."""
QUEUED_AT_MOST, QUEUED_AT_MOST_EACH = 500, 100
"""Runs of long syncs that wait in Dagster's queue or work, of a provider's integrations and of an organization's among
them. What is due beyond that is asked for when there is room."""


def sync_session_job(connector: type[Connector]) -> dg.JobDefinition:
    """Syncs the provider's due integrations, many at once, in one run."""

    @dg.op(name=f"{connector.provider}_due_syncs")
    def work(context: dg.OpExecutionContext) -> None:
        store, told = current_store(), Materializer(context.log_event, context.run.run_id, "Synced")
        kind = DueSyncs(store, context.run.run_id, connector.provider, told.synced)
        try:
            Session(store, context.run.run_id, kind).run()
        finally:
            told.tell()

    @dg.job(
        name=f"{connector.provider}_sync_session",
        executor_def=dg.in_process_executor,
        tags={SESSION_TAG: "syncs"},
        description=f"Syncs the integrations of {connector.title} that are due; ends when none is.",
    )
    def session() -> None:
        work()

    return session


def due_schedule(connector: type[Connector], job: dg.JobDefinition) -> dg.ScheduleDefinition:
    provider = connector.provider

    @dg.schedule(
        name=f"{provider}_due",
        job=job,
        cron_schedule="* * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Asks for sessions that sync the integrations of {connector.title} that are due.",
    )
    def due(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        found = due_integrations(current_store(), provider, context.scheduled_execution_time)
        short = [each for each in found if not each.is_long]
        tags = {"churnguard/longest_due": short[0].integration_id} if short else {}
        backlog = Backlog(len(short), tags)
        reason = "" if short else _why_nothing(connector, [each.integration_id for each in found])
        return session_requests(
            context.instance, DueSyncs, job.name, lambda working: backlog, name=name_of(provider), nothing=reason
        )

    return due


def _why_nothing(connector: type[Connector], long: Sequence[str]) -> str:
    reasons = [f"Due, each in a run of its own: {', '.join(long[:10])}." if long else "Nothing is due."]
    if broken := open_breakers(current_store(), connector.provider):
        reasons.append("Not called: " + "; ".join(f"{name}: {reason}" for name, reason in broken.items()))
    return " ".join(reasons)


def long_syncs(jobs: "Mapping[str, UnresolvedAssetJobDefinition]") -> dg.SensorDefinition:
    """``jobs``: the sync job of each provider."""

    @dg.sensor(
        name="long_syncs",
        jobs=list(jobs.values()),
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for a run of its own for a due integration that was never synced, or whose syncs take long.",
    )
    def long(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        requests = [each for provider, job in jobs.items() for each in _runs(context.instance, provider, job.name)]
        return requests or dg.SkipReason("No long sync is due.")

    return long


def _runs(instance: dg.DagsterInstance, provider: str, job: str) -> Iterator[dg.RunRequest]:
    now = current_store().now()
    due = [each for each in due_integrations(current_store(), provider, now) if each.is_long]
    for item in _with_room(instance, provider, job, due):
        waited = max(int((now - item.due_at).total_seconds()), 0)
        yield dg.RunRequest(
            run_key=f"{item.integration_id}@{item.due_at.timestamp():.3f}#{waited // ASK_AGAIN_SECONDS}",
            job_name=job,
            partition_key=item.integration_id,
            tags={
                INTEGRATION_TAG: item.integration_id,
                ORGANIZATION_TAG: item.organization_id,
                TRIGGER_TAG: SCHEDULE,
            },
        )


def _with_room(
    instance: dg.DagsterInstance, provider: str, job: str, due: Sequence[DueIntegration]
) -> list[DueIntegration]:
    """Those that are to be asked for now: one of each organization in turn, the longest due first; that are partitions
    by now, and have no run that waits or works already."""
    if not due:
        return []
    present = set(instance.get_dynamic_partitions(provider))
    unfinished = instance.get_runs(dg.RunsFilter(job_name=job, statuses=_UNFINISHED), limit=QUEUED_AT_MOST)
    asked_for = {run.tags.get(INTEGRATION_TAG) for run in unfinished}
    return fair_share(
        [each for each in due if each.integration_id in present and each.integration_id not in asked_for],
        lambda each: each.organization_id,
        QUEUED_AT_MOST - len(unfinished),
        most_each=QUEUED_AT_MOST_EACH,
        held=Counter(run.tags.get(ORGANIZATION_TAG, "") for run in unfinished),
    )
