"""Dagster's event log grows without bound: once a day runs that are older than a month are deleted."""

from datetime import UTC, datetime, timedelta

import dagster as dg

KEEP_DAYS = 30
BATCH = 100
FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dg.op
def delete_old_runs(context: dg.OpExecutionContext) -> None:
    limit = dg.RunsFilter(statuses=FINISHED, created_before=datetime.now(UTC) - timedelta(days=KEEP_DAYS))
    deleted = 0
    while records := context.instance.get_run_records(limit, limit=BATCH):
        for record in records:
            context.instance.delete_run(record.dagster_run.run_id)
        deleted += len(records)
    context.log.info(f"Deleted {deleted} runs older than {KEEP_DAYS} days with their events.")


@dg.job(executor_def=dg.in_process_executor, description=f"Delete Dagster runs older than {KEEP_DAYS} days.")
def retention() -> None:
    delete_old_runs()


retention_daily = dg.ScheduleDefinition(
    name="retention_daily", job=retention, cron_schedule="23 3 * * *", default_status=dg.DefaultScheduleStatus.RUNNING
)
