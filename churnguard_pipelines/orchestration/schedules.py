"""Who syncs when: every minute each provider's schedule asks the store which integrations are due."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from churnguard_pipelines.connectors.sdk import Connector
from churnguard_pipelines.engine.sharing import fair_share
from churnguard_pipelines.orchestration.partitions import INTEGRATION_TAG, ORGANIZATION_TAG
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.syncs import TRIGGER_TAG
from churnguard_pipelines.store.ingest.breakers import open_breakers
from churnguard_pipelines.store.ingest.due import DueIntegration, due_integrations

if TYPE_CHECKING:  # Dagster gives the type no public name
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

_QUEUED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING]
ASK_AGAIN_SECONDS = 900
"""A run key is good for one run for ever; one whose run was lost must not strand the integration."""
QUEUED_AT_MOST, QUEUED_AT_MOST_EACH = 500, 100
"""Syncs that wait in Dagster's queue for their turn, of a provider's integrations and of an organization's among them.
What is due beyond that is asked for when there is room, so that nobody's ten thousand come before somebody's one."""


def due_schedule(connector: type[Connector], job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{connector.provider}_due",
        job=job,
        cron_schedule="* * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Requests a sync of every {connector.title} integration whose sync_frequency has passed.",
    )
    def due(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        now = context.scheduled_execution_time
        present = set(context.instance.get_dynamic_partitions(connector.provider))
        found = due_integrations(current_store(), connector.provider, now)
        ready = [item for item in found if item.integration_id in present]
        for item in _with_room(context.instance, job.name, ready):
            waited = max(int((now - item.due_at).total_seconds()), 0)
            yield dg.RunRequest(
                run_key=f"{item.integration_id}@{item.due_at.timestamp():.0f}#{waited // ASK_AGAIN_SECONDS}",
                partition_key=item.integration_id,
                tags={
                    INTEGRATION_TAG: item.integration_id,
                    ORGANIZATION_TAG: item.organization_id,
                    TRIGGER_TAG: "schedule",
                },
            )
        waiting = [item.integration_id for item in found if item.integration_id not in present]
        if len(waiting) == len(found):
            yield dg.SkipReason(_why_nothing(connector, waiting))

    return due


def _with_room(instance: dg.DagsterInstance, job: str, due: Sequence[DueIntegration]) -> list[DueIntegration]:
    """Those that are to be asked for now: one of each organization in turn, the longest due first."""
    if not due:
        return []
    queued = instance.get_runs(dg.RunsFilter(job_name=job, statuses=_QUEUED), limit=QUEUED_AT_MOST)
    asked_for = {run.tags.get(INTEGRATION_TAG) for run in queued}
    return fair_share(
        [item for item in due if item.integration_id not in asked_for],
        lambda item: item.organization_id,
        QUEUED_AT_MOST - len(queued),
        most_each=QUEUED_AT_MOST_EACH,
        held=Counter(run.tags.get(ORGANIZATION_TAG, "") for run in queued),
    )


def _why_nothing(connector: type[Connector], waiting: list[str]) -> str:
    reasons = [f"Due, but not a partition yet: {', '.join(waiting)}." if waiting else "Nothing is due."]
    if broken := open_breakers(current_store(), connector.provider):
        reasons.append("Not called: " + "; ".join(f"{name}: {reason}" for name, reason in broken.items()))
    return " ".join(reasons)
