"""Warm sessions as Dagster sees them: when one is to be asked for, and what it tells of its work."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg

from churnguard_pipelines.connectors import connector
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.syncs import DATA_VERSION_TAG, key_of
from churnguard_pipelines.records import Counts
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest import sessions

TELL_EVERY = 60.0
SUCCESSOR_BEFORE_END = 60.0
STARTS_WITHIN = timedelta(minutes=3)
"""What has not begun after this will not; another one is asked for."""


class Diary:
    """Materializations of what a session changed, at most one per object, integration and minute."""

    def __init__(self, context: dg.OpExecutionContext, description: str) -> None:
        self._context = context
        self._description = description
        self._counts: dict[tuple[str, str], Counts] = {}
        self._told = time.monotonic()
        self._number = 0

    def note(self, counts: Mapping[tuple[str, str], Counts]) -> None:
        """By (integration, object)."""
        for key, count in counts.items():
            self._counts.setdefault(key, Counts()).add(count)
        if time.monotonic() - self._told >= TELL_EVERY:
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        self._number += 1
        counts, self._counts = self._counts, {}
        for (integration_id, name), count in sorted(counts.items()):
            try:
                kind = connector(get_integration(current_store(), integration_id).provider_name)
            except ChurnGuardError as error:  # removed meanwhile, or its secrets cannot be opened any more
                self._context.log.warning("%s: what changed in it is not shown: %s", integration_id, error.message)
                continue
            self._context.log_event(
                dg.AssetMaterialization(
                    key_of(kind, name),
                    partition=integration_id,
                    description=self._description,
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


def session_request(
    instance: dg.DagsterInstance, kind: str, job: str, max_age: float, waits: Callable[[], Mapping[str, str] | None]
) -> dg.RunRequest | dg.SkipReason:
    """A session of this kind, if none works or the one that works is about to end, and something waits.

    ``waits``: tags that say what does, None if nothing; asked only if no session works.
    """
    ages = sessions.ages(current_store(), kind)
    if any(age < max_age - SUCCESSOR_BEFORE_END for age in ages.values()):
        return dg.SkipReason("A session is working.")
    if _starting(instance, job):
        return dg.SkipReason("A session is about to begin.")
    if ages:
        return dg.RunRequest()  # overlaps with the one that is about to end; the checkpoints make that harmless
    tags = waits()
    return dg.SkipReason("Nothing waits.") if tags is None else dg.RunRequest(tags=dict(tags))


def _starting(instance: dg.DagsterInstance, job: str) -> bool:
    runs = instance.get_runs(
        dg.RunsFilter(
            job_name=job,
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
