"""Webhooks as Dagster sees them: a sensor that looks at the inbox, and the warm session that works it off."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from churnguard_pipelines.connectors import api_connector
from churnguard_pipelines.connectors.webhook_session import KIND, MAX_AGE, WebhookSession, Worked
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.syncs import DATA_VERSION_TAG, key_of
from churnguard_pipelines.records import Counts
from churnguard_pipelines.store import inbox, sessions
from churnguard_pipelines.store.integrations import get_integration

JOB = "webhook_session"
TELL_EVERY = 60.0
SUCCESSOR_BEFORE_END = 60.0
STARTS_WITHIN = timedelta(minutes=3)
"""What has not begun after this will not; another one is asked for."""


class _Diary:
    """Materializations of what a session changed, at most one per object, integration and minute."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        self._context = context
        self._counts: dict[tuple[str, str], Counts] = {}
        self._told = time.monotonic()
        self._number = 0

    def note(self, worked: Worked) -> None:
        for key, counts in worked.counts.items():
            self._counts.setdefault(key, Counts()).add(counts)
        if time.monotonic() - self._told >= TELL_EVERY:
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        self._number += 1
        counts, self._counts = self._counts, {}
        for (integration_id, name), count in sorted(counts.items()):
            kind = api_connector(get_integration(current_store(), integration_id).provider_name)
            self._context.log_event(
                dg.AssetMaterialization(
                    key_of(kind, name),
                    partition=integration_id,
                    description="Changed by webhooks",
                    metadata={
                        "rows_read": count.read,
                        "rows_written": count.written,
                        "rows_stale": count.stale,
                        "rows_rejected": count.rejected,
                        "rows_deleted": count.deleted,
                    },
                    tags={DATA_VERSION_TAG: f"{self._context.run.run_id}-{self._number}"},
                )
            )


@dg.op
def drain_webhooks(context: dg.OpExecutionContext) -> None:
    diary = _Diary(context)
    WebhookSession(current_store(), context.run.run_id, on_worked=diary.note).run()
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
def webhooks_waiting(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    store = current_store()
    ages = sessions.ages(store, KIND)
    if any(age < MAX_AGE - SUCCESSOR_BEFORE_END for age in ages.values()):
        yield dg.SkipReason("A session is working.")
    elif _starting(context.instance):
        yield dg.SkipReason("A session is about to begin.")
    elif ages:
        yield dg.RunRequest()  # overlaps with the one that is about to end; the checkpoints make that harmless
    elif waiting := inbox.waiting(store, limit=1):
        yield dg.RunRequest(tags={"churnguard/oldest_event": waiting[0].oldest.isoformat()})
    else:
        yield dg.SkipReason("Nothing waits.")


def _starting(instance: dg.DagsterInstance) -> bool:
    runs = instance.get_runs(
        dg.RunsFilter(
            job_name=JOB,
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.NOT_STARTED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
            ],
            created_after=datetime.now(UTC) - STARTS_WITHIN,
        )
    )
    return any(not sessions.known(current_store(), run.run_id) for run in runs)
