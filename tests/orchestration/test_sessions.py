"""How many sessions of a kind Dagster is asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence

import dagster as dg
import pytest

from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.orchestration.sessions import Backlog, session_requests
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest import sessions
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.session import LaneKind, Turn

JOB = "webhook_session"

pytestmark = pytest.mark.xdist_group("dagster")


class Warm(LaneKind):
    name = "warm"
    lanes_each = 10
    most_sessions = 3

    def waiting(self) -> Sequence[Lane]:
        return []

    def work(self, turn: Turn) -> bool:
        return False


class Brief(Warm):
    name = "brief"
    linger = 1.0


def asked(instance: dg.DagsterInstance, kind: type[LaneKind], lanes: int) -> int:
    """How many more, if so many lanes wait."""
    requests = session_requests(instance, kind, JOB, lambda working: Backlog(lanes))
    return len(requests) if isinstance(requests, list) else 0


def grow_old(store: Store, session_id: str) -> None:
    with store.operator() as connection:
        connection.exec_driver_sql(
            "UPDATE ingest.sessions SET started_at = started_at - interval '15 minutes' WHERE session_id = %s",
            (session_id,),
        )


def test_as_many_as_the_backlog_warrants_less_those_that_work(instance: dg.DagsterInstance, store: Store) -> None:
    assert [asked(instance, Warm, lanes) for lanes in (0, 1, 10, 11, 10_000)] == [0, 1, 1, 2, 3]
    sessions.begin(store, "one", "warm")
    assert [asked(instance, Warm, lanes) for lanes in (0, 10, 11, 10_000)] == [0, 0, 1, 2]


def test_what_is_about_to_begin_is_not_asked_for_again(instance: dg.DagsterInstance, store: Store) -> None:
    run = instance.create_run_for_job(definitions.resolve_job_def(JOB))
    assert [asked(instance, Warm, lanes) for lanes in (1, 11)] == [0, 1]
    sessions.begin(store, run.run_id, "warm")
    assert [asked(instance, Warm, lanes) for lanes in (1, 11)] == [0, 1]
    sessions.end(store, run.run_id)
    assert asked(instance, Warm, 1) == 1


def test_what_was_killed_before_it_began_is_not_waited_for(instance: dg.DagsterInstance, store: Store) -> None:
    run = instance.create_run_for_job(definitions.resolve_job_def(JOB))
    started = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, JOB)
    instance.report_dagster_event(started, run.run_id, timestamp=time.time())
    assert asked(instance, Warm, 1) == 0
    run = instance.create_run_for_job(definitions.resolve_job_def(JOB))
    instance.report_dagster_event(started, run.run_id, timestamp=time.time() - 60)
    assert [asked(instance, Warm, lanes) for lanes in (1, 11)] == [0, 1], "only the first one is"


def test_one_that_was_kept_warm_has_a_successor_before_it_ends(instance: dg.DagsterInstance, store: Store) -> None:
    for kind in ("warm", "brief"):
        sessions.begin(store, kind, kind)
        grow_old(store, kind)
    assert asked(instance, Warm, 0) == 1
    assert asked(instance, Brief, 0) == 0, "it ends when nothing waits, and does not come back for that"
    assert asked(instance, Brief, 1) == 1
