"""Dagster's event log and our ledger grow without bound: once a day what is older than a month is deleted."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import sqlalchemy as sa

from churnguard_pipelines.orchestration.dead_runs import MAX_RUNTIME
from churnguard_pipelines.orchestration.partitions import PARTITION_TAG
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.store.ingest import inbox, rates, rejected, sessions, stream_metrics, stream_progress
from churnguard_pipelines.store.postgres.database import Store

KEEP_DAYS = 30
BATCH = 100
FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]

_FORGET = sa.text("""
DELETE FROM ingest.syncs old
 WHERE old.started_at < clock_timestamp() - make_interval(days => :days) AND old.status <> 'running'
   AND EXISTS (SELECT FROM ingest.syncs newer
                WHERE newer.organization_id = old.organization_id
                  AND newer.integration_id = old.integration_id AND newer.started_at > old.started_at
                  AND newer.trigger <> 'history')
   AND NOT EXISTS (
       SELECT FROM ingest.sync_objects mine
        WHERE mine.sync_id = old.sync_id AND mine.status = 'succeeded'
          AND NOT EXISTS (SELECT FROM ingest.syncs newer JOIN ingest.sync_objects theirs USING (sync_id)
                           WHERE newer.organization_id = old.organization_id
                             AND newer.integration_id = old.integration_id AND newer.started_at > old.started_at
                             AND newer.trigger <> 'history'
                             AND theirs.object = mine.object AND theirs.status = 'succeeded'))
""")

_FORGET_HOURS = sa.text("DELETE FROM ingest.sync_hours WHERE hour < clock_timestamp() - make_interval(days => :days)")


class RetentionConfig(dg.Config):
    """The run configuration of the retention job. ``days``: how long runs, the ledger of syncs, and rejected records
    that were resolved are kept."""

    days: int = KEEP_DAYS


@dg.op
def delete_old_runs(context: dg.OpExecutionContext, config: RetentionConfig) -> None:
    expired = list(_expired(context.instance, config.days))
    for run_id in expired:
        context.instance.delete_run(run_id)
    forgotten = forget_syncs(current_store(), config.days)
    sessions.forget(current_store(), config.days)
    resolved = rejected.forget_resolved(current_store(), config.days)
    context.log.info(
        f"Older than {config.days} days: deleted {len(expired)} runs, {forgotten} syncs of the ledger, "
        f"{resolved} rejected records that were resolved."
    )


@dg.op
def drop_old_webhooks(context: dg.OpExecutionContext) -> None:
    dropped = inbox.forget(current_store())
    context.log.info(f"Dropped {dropped} days of webhook events that were worked off.")


@dg.op
def drop_old_measurements(context: dg.OpExecutionContext) -> None:
    stream_metrics.roll(current_store())
    rates.forget(current_store())
    dropped = stream_progress.forget_losses(current_store(), 3 * KEEP_DAYS)
    context.log.info(f"Dropped what was measured of streams, and {dropped} notes of what their sources had lost.")


@dg.job(
    executor_def=dg.in_process_executor,
    tags=MAX_RUNTIME,
    description="Delete old runs, events, reports of syncs, resolved records, webhooks and measurements of streams.",
)
def retention() -> None:
    delete_old_runs()
    drop_old_webhooks()
    drop_old_measurements()


retention_daily = dg.ScheduleDefinition(
    name="retention_daily",
    job=retention,
    cron_schedule="23 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Deletes once a day what is older than a month.",
)


def forget_syncs(store: Store, days: int) -> int:
    """Delete the ledger's old reports but the latest of each integration and the latest success of each object.

    What they add up to is kept three times as long."""
    with store.operator() as connection:
        connection.execute(_FORGET_HOURS, {"days": 3 * days})
        return connection.execute(_FORGET, {"days": days}).rowcount


def _expired(instance: dg.DagsterInstance, days: int) -> Iterator[str]:
    """All that finished before, but the newest success of each job and partition: no asset forgets that it was made."""
    limit = datetime.now(UTC) - timedelta(days=days)
    known: set[tuple[str, str | None]] = set()
    for run in _finished(instance, dg.RunsFilter(statuses=FINISHED, created_before=limit)):
        of = (run.job_name, run.tags.get(PARTITION_TAG))
        last_word = (
            run.status == dg.DagsterRunStatus.SUCCESS and of not in known and not _succeeded(instance, *of, limit)
        )
        if last_word:
            known.add(of)
        else:
            yield run.run_id


def _finished(instance: dg.DagsterInstance, those: dg.RunsFilter) -> Iterator[dg.DagsterRun]:
    """Newest first."""
    cursor = None
    while runs := instance.get_runs(those, cursor=cursor, limit=BATCH):
        yield from runs
        cursor = runs[-1].run_id


def _succeeded(instance: dg.DagsterInstance, job: str, partition: str | None, since: datetime) -> bool:
    tags = {PARTITION_TAG: partition} if partition else {}
    success = [dg.DagsterRunStatus.SUCCESS]
    return bool(
        instance.get_runs(dg.RunsFilter(job_name=job, statuses=success, tags=tags, created_after=since), limit=1)
    )
