"""Sessions as Dagster sees them: how many are to be asked for, and what they tell of their work."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.records import Counts
from churnguard_pipelines.store.ingest import sessions
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.ingest.materializations import FAILED, ObjectNews, news_of, note
from churnguard_pipelines.syncing.session import HAND_OVER, LaneKind, Worked

SESSION_TAG = "churnguard/session"
DATA_VERSION_TAG = "dagster/data_version"  # Dagster gives it no public name
TELL_EVERY = 15.0
STARTS_WITHIN = timedelta(minutes=3)
"""What has not begun after this will not; another one is asked for."""
BEGINS_WITHIN = timedelta(seconds=30)
"""After its run has started, which is the last thing before it; else its process was killed."""


class Materializer:
    """Shows in Dagster what a session changed: each integration, or stream, as its partition, an object's rows at most
    once an hour, a failure and the success after it at once. ``log_event``: tells Dagster, of a run or of none;
    ``session_id``: the run's; ``more``: what else is to be shown with their counts."""

    def __init__(
        self,
        log_event: Callable[[dg.AssetMaterialization | dg.AssetObservation], None],
        session_id: str,
        description: str,
        more: Callable[[ObjectNews], Mapping[str, Any]] = lambda news: {},
    ) -> None:
        self._log_event = log_event
        self._session_id = session_id
        self._description = description
        self._more = more
        self._news: list[ObjectNews] = []
        self._errors: dict[tuple[str, str], str] = {}
        self._told = time.monotonic()
        self._number = 0

    def worked(self, worked: Worked) -> None:
        self._news += [ObjectNews(*key, counts) for key, counts in worked.items()]
        self._tell_in_time()

    def synced(self, report: SyncReport) -> None:
        self._news += news_of(report)
        for name, item in report.objects.items():
            if item.error is not None:
                self._errors[report.integration_id, name] = item.error
        self._tell_in_time()

    def tell(self) -> None:
        self._told = time.monotonic()
        self._number += 1
        news, self._news = self._news, []
        for each in note(current_store(), news):
            key = dg.AssetKey([each.provider, each.object])
            if each.status == FAILED:
                error = self._errors.get((each.integration_id, each.object), "it failed.")
                self._log_event(dg.AssetObservation(key, partition=each.integration_id, description=error))
            else:
                self._log_event(
                    dg.AssetMaterialization(
                        key,
                        partition=each.integration_id,
                        description=self._description,
                        metadata={**counts_metadata(each.counts), **self._more(each)},
                        tags={DATA_VERSION_TAG: f"{self._session_id}-{self._number}"},
                    )
                )
        self._errors.clear()

    def _tell_in_time(self) -> None:
        if time.monotonic() - self._told >= TELL_EVERY:
            self.tell()


def counts_metadata(counts: Counts) -> dict[str, int]:
    """Dagster keeps all of it for each object, integration and hour: what is zero is left out."""
    rarely = {"rows_stale": counts.stale, "rows_rejected": counts.rejected, "rows_deleted": counts.deleted}
    shown = {name: number for name, number in rarely.items() if number}
    return {"rows_read": counts.read, "rows_written": counts.written} | shown


@dataclass(frozen=True, slots=True)
class Backlog:
    """``lanes``: how many have work; ``tags``: of the runs that are asked for, saying what waits."""

    lanes: int
    tags: Mapping[str, str] = field(default_factory=dict)


def session_requests(
    instance: dg.DagsterInstance,
    kind: type[LaneKind],
    job: str,
    backlog: Callable[[int], Backlog],
    *,
    name: str = "",
    nothing: str = "Nothing waits.",
) -> list[dg.RunRequest] | dg.SkipReason:
    """As many sessions of this kind as the backlog warrants, less those that work or are about to begin; one that is
    about to end has a successor, whatever waits: they overlap, which the leases make harmless.

    ``backlog`` is given how many work; ``name``: of these sessions, where the class of the kind has several.
    """
    ages = sessions.ages(current_store(), name or kind.name)
    working = sum(age < kind.max_age - HAND_OVER for age in ages.values())
    starting = _starting(instance, job)
    found = backlog(working)
    warranted = min(math.ceil(found.lanes / kind.lanes_each), kind.most_sessions)
    succeeding = 1 if ages and kind.linger >= HAND_OVER else 0  # one that stays warm was at work lately
    missing = max(warranted, succeeding) - working - starting
    if missing > 0:
        return [dg.RunRequest(tags=dict(found.tags)) for _ in range(missing)]
    if working:
        return dg.SkipReason(f"{working} at work.")
    return dg.SkipReason("A session is about to begin." if starting else nothing)


def _starting(instance: dg.DagsterInstance, job: str) -> int:
    """Runs that were asked for and have not begun their session yet."""
    now = datetime.now(UTC)
    records = instance.get_run_records(
        dg.RunsFilter(
            job_name=job,
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.NOT_STARTED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
            ],
            created_after=now - STARTS_WITHIN,
        )
    )
    overdue = (now - BEGINS_WITHIN).timestamp()
    return sum(
        (record.start_time is None or record.start_time > overdue)
        and not sessions.known(current_store(), record.dagster_run.run_id)
        for record in records
    )
