"""Webhooks as Dagster sees them: a sensor that looks at the inbox, and the warm session that works it off."""

import dagster as dg

from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.sessions import Backlog, Materializer, session_requests
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.webhooks import Inboxes

JOB = "webhook_session"


@dg.op
def drain_webhooks(context: dg.OpExecutionContext) -> None:
    store, told = current_store(), Materializer(context.log_event, context.run.run_id, "Changed by webhooks")
    Session(store, context.run.run_id, Inboxes(store), on_worked=told.worked).run()
    told.tell()


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
    description="Asks for a session when webhook events wait and none works them off, and for more if many wait.",
)
def webhooks_waiting(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    return session_requests(context.instance, Inboxes, JOB, _backlog)


def _backlog(working: int) -> Backlog:
    waiting = inbox.waiting(current_store(), limit=1)
    return Backlog(len(waiting), {"churnguard/oldest_event": waiting[0].oldest.isoformat()}) if waiting else Backlog(0)
