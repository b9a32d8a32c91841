"""Change logs of databases as Dagster sees them: a sensor that looks at lag, and the warm session that follows them."""

import dagster as dg

from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.sessions import Diary, session_request
from churnguard_pipelines.syncing.change_session import MAX_AGE, ChangeSession, followed_integrations
from churnguard_pipelines.syncing.database import CHANGES
from churnguard_pipelines.syncing.lag_probes import LagProbes

JOB = "change_session"
_PROBES = LagProbes()


@dg.op
def follow_changes(context: dg.OpExecutionContext) -> None:
    diary = Diary(context, "Changed in the source")
    ChangeSession(current_store(), context.run.run_id, on_worked=diary.note).run()
    diary.tell()


@dg.job(
    name=JOB,
    executor_def=dg.in_process_executor,
    description="Follows the change logs of databases; ends when all have been quiet for a minute.",
)
def change_session() -> None:
    follow_changes()


@dg.sensor(
    name="changes_waiting",
    job=change_session,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a session when a database has changed and none follows it.",
)
def changes_waiting(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    return session_request(context.instance, CHANGES, JOB, MAX_AGE, _behind)


def _behind() -> dict[str, str] | None:
    store = current_store()
    behind = _PROBES.behind(store, followed_integrations(store))
    return {"churnguard/behind": ",".join(behind[:10])} if behind else None
