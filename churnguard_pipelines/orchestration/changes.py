"""Change logs of databases as Dagster sees them: a sensor that looks at lag, and the warm session that follows them."""

from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from churnguard_pipelines.connectors.change_session import MAX_AGE, ChangeSession, followed_integrations, look_at
from churnguard_pipelines.connectors.database_sync import CHANGES
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.sessions import Diary, session_request

JOB = "change_session"
LOOKS_AT_ONCE = 8


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
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        behind = [name for name in pool.map(_name_if_behind, followed_integrations(current_store())) if name]
    return {"churnguard/behind": ",".join(behind[:10])} if behind else None


def _name_if_behind(integration: IntegrationConfiguration) -> str | None:
    """One whose source cannot be asked is left to its next sync, which says why."""
    try:
        lag = look_at(current_store(), integration)
    except ChurnGuardError:
        return None
    return integration.integration_id if lag and (lag.bytes or lag.seconds) else None
