"""Webhooks as Dagster sees them: a sensor that looks at the inbox, and the warm session that works it off."""

import dagster as dg

from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.sessions import Diary, session_request
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.syncing.webhook_session import KIND, MAX_AGE, WebhookSession

JOB = "webhook_session"


@dg.op
def drain_webhooks(context: dg.OpExecutionContext) -> None:
    diary = Diary(context, "Changed by webhooks")
    WebhookSession(current_store(), context.run.run_id, on_worked=lambda worked: diary.note(worked.counts)).run()
    diary.tell()


@dg.job(
    name=JOB,
    executor_def=dg.in_process_executor,
    description="Works off webhook events as they come; ends when all has been quiet for a minute.",
)
def webhook_session() -> None:
    drain_webhooks()


@dg.sensor(
    name="webhooks_waiting",
    job=webhook_session,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a session when webhook events wait and none works them off.",
)
def webhooks_waiting(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    return session_request(context.instance, KIND, JOB, MAX_AGE, _oldest_event)


def _oldest_event() -> dict[str, str] | None:
    waiting = inbox.waiting(current_store(), limit=1)
    return {"churnguard/oldest_event": waiting[0].oldest.isoformat()} if waiting else None
