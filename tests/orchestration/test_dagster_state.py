"""What Dagster's own tables tell of it, to those who run it."""

from __future__ import annotations

import time

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import TickData, TickStatus
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo

from churnguard_pipelines.monitoring.dagster_state import read_dagster_state
from churnguard_pipelines.store.postgres.database import Store

ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("churnguard"), "__repository__"), "job")


def test_runs_their_waiting_heartbeats_and_failed_ticks(store: Store, instance: dg.DagsterInstance) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 120, "SENSOR", "d", []))
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SCHEDULER", "d", []))
    for status in (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED):
        create_run_for_test(instance, status=status, remote_job_origin=ORIGIN)
    broke = SerializableErrorInfo("it broke", [], "ValueError")
    for outcome, error in ((TickStatus.FAILURE, broke), (TickStatus.STARTED, None)):
        instance.create_tick(
            TickData("o", "waiting", InstigatorType.SENSOR, outcome, time.time(), error=error, selector_id="s")
        )
    ended = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(ended)

    state = read_dagster_state(store.dagster_database_url)

    assert state is not None
    assert state.runs == {"queued": 2, "started": 1}
    assert 0 <= state.queued_seconds < 60
    assert state.heartbeats["sensor"] == pytest.approx(120, abs=60)
    assert state.heartbeats["scheduler"] < 60
    assert state.failed_ticks == {"sensor": 1}
    assert state.ended == {"failure": 1}


def test_nothing_is_known_where_dagster_has_made_no_tables(store: Store) -> None:
    assert read_dagster_state(store.database_url.replace("postgresql://", "postgresql+psycopg2://")) is None
    assert read_dagster_state(store.dagster_database_url.replace("/dagster", "/nowhere")) is None
