"""Warm sessions as Dagster sees them: when one is to be asked for, and what it tells of its work."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg

from churnguard_pipelines.connectors import connector
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.syncs import DATA_VERSION_TAG, key_of
from churnguard_pipelines.records import Counts
from churnguard_pipelines.store import sessions
from churnguard_pipelines.store.integrations import get_integration
from churnguard_pipelines.syncing.session import HAND_OVER, LaneKind

TELL_EVERY = 60.0
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


@dataclass(frozen=True, slots=True)
class Backlog:
    """``lanes``: how many have work; ``tags``: of the runs that are asked for, saying what waits."""

    lanes: int
    tags: Mapping[str, str] = field(default_factory=dict)


def session_requests(
    instance: dg.DagsterInstance, kind: type[LaneKind], job: str, backlog: Callable[[int], Backlog], name: str = ""
) -> dg.SensorResult:
    """As many sessions of this kind as the backlog warrants, less those that work or are about to begin; one that is
    about to end has a successor, whatever waits: they overlap, which the leases make harmless.

    ``backlog`` is given how many work; ``name``: of this kind of session, where kinds of one class have their own.
    """
    ages = sessions.ages(current_store(), name or kind.name)
    working = sum(age < kind.max_age - HAND_OVER for age in ages.values())
    starting = _starting(instance, job)
    found = backlog(working)
    warranted = min(math.ceil(found.lanes / kind.lanes_each), kind.most_sessions)
    missing = max(warranted, 1 if ages else 0) - working - starting
    if missing > 0:
        return dg.SensorResult([dg.RunRequest(tags=dict(found.tags)) for _ in range(missing)])
    if working:
        return dg.SensorResult(skip_reason=f"Working: {working}.")
    return dg.SensorResult(skip_reason="A session is about to begin." if starting else "Nothing waits.")


def _starting(instance: dg.DagsterInstance, job: str) -> int:
    """Runs that were asked for and have not begun their session yet."""
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
    return sum(not sessions.known(current_store(), run.run_id) for run in runs)
