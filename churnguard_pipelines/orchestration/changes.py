"""Change logs of databases and feeds of APIs as Dagster sees them: a sensor that looks at lag, and the warm session
that follows them."""

import dagster as dg

from churnguard_pipelines.connectors import databases
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.sessions import Backlog, Materializer, session_requests
from churnguard_pipelines.syncing.changes import ChangeLogs, followed_integrations
from churnguard_pipelines.syncing.lag_probes import LagProbes
from churnguard_pipelines.syncing.session import Session

JOB = "change_session"
_PROBES = LagProbes()


@dg.op
def follow_changes(context: dg.OpExecutionContext) -> None:
    store, told = current_store(), Materializer(context.log_event, context.run.run_id, "Changed in the source")
    Session(store, context.run.run_id, ChangeLogs(store), on_worked=told.worked).run()
    told.tell()


@dg.job(
    name=JOB,
    executor_def=dg.in_process_executor,
    description="Follows changes of databases and of APIs that tell theirs; ends when all were quiet for a minute.",
)
def change_session() -> None:
    follow_changes()


@dg.sensor(
    name="changes_waiting",
    job=change_session,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a session when a source has changed and none follows it, and for more if there are many.",
)
def changes_waiting(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    return session_requests(context.instance, ChangeLogs, JOB, _backlog)


def _backlog(working: int) -> Backlog:
    """Databases are asked only if nobody follows any of them; APIs cannot be, and are always followed."""
    store = current_store()
    followed = followed_integrations(store)
    if working:
        return Backlog(len(followed))
    warm = [each.integration_id for each in followed if each.provider_name not in databases()]
    behind = warm or _PROBES.behind(store, followed)
    return Backlog(len(followed), {"churnguard/behind": ",".join(behind[:10])}) if behind else Backlog(0)
