"""Nothing that goes wrong with one run, one request or one secret keeps an integration from syncing again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.orchestration.dead_runs import dead_runs
from churnguard_pipelines.orchestration.partitions import reconcile, tags_of, window_of
from churnguard_pipelines.store.control.integrations import add_integration, get_integration
from churnguard_pipelines.store.control.tables import integrations
from churnguard_pipelines.store.ingest import sessions
from churnguard_pipelines.store.ingest.ledger import finish_sync, start_sync
from churnguard_pipelines.store.ingest.tables import syncs
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.due import name_of
from tests.conftest import configuration
from tests.orchestration.conftest import Register
from tests.orchestration.runs import due, long_syncs, pass_time


@pytest.fixture(autouse=True)
def _registered(register: Register, instance: dg.DagsterInstance) -> None:
    register()


# --- requests


def test_sessions_are_asked_for_once_and_again_if_they_are_lost(instance: dg.DagsterInstance, store: Store) -> None:
    """One key once launched nine runs, one a minute: a schedule's holds only per tick."""
    _synced(store)
    requests, _ = due(instance, minutes=61)
    assert len(requests) == 1
    job = definitions.resolve_job_def("stripe_sync_session")
    run = instance.create_run_for_job(job, tags=dict(requests[0].tags))
    assert due(instance, minutes=62) == ([], "A session is about to begin.")
    sessions.begin(store, run.run_id, name_of("stripe"))
    assert due(instance, minutes=63) == ([], "1 at work.")
    pass_time(store, timedelta(minutes=1))  # it was killed
    assert len(due(instance, minutes=64)[0]) == 1


def test_nothing_is_due_while_it_runs_nor_before_its_frequency_has_passed(
    instance: dg.DagsterInstance, store: Store
) -> None:
    reconcile(instance, "stripe")
    start_sync(store, "one", get_integration(store, "acme"), DataSyncMode.INCREMENTAL, ["customers"])
    assert due(instance) == ([], "Nothing is due.")
    assert long_syncs(instance) == []
    finish_sync(store, "one", "succeeded")
    assert due(instance, minutes=59) == ([], "Nothing is due.")
    assert len(due(instance, minutes=61)[0]) == 1


def test_one_secret_that_cannot_be_opened_keeps_nobody_else_waiting(instance: dg.DagsterInstance, store: Store) -> None:
    add_integration(store, configuration("unreadable"), actor="test")
    with store.operator() as connection:
        lost = {"credentials_sealed": "sealed under a key that is lost"}
        connection.execute(sa.update(integrations).where(integrations.c.integration_id == "unreadable").values(lost))
    reconcile(instance, "stripe")
    assert {each.partition_key for each in long_syncs(instance)} == {"acme", "unreadable"}  # its run says what is wrong


@pytest.mark.parametrize(("first", "next_"), [("2024-01-01", "2024-02-01"), ("2024-12-01", "2025-01-01")])
def test_a_month_ends_where_the_next_begins(first: str, next_: str) -> None:
    window = window_of(first)
    assert window.start == datetime.fromisoformat(first).replace(tzinfo=UTC)
    assert window.end == datetime.fromisoformat(next_).replace(tzinfo=UTC)


# --- dead runs


def test_a_run_whose_process_was_killed_ends_so_that_its_integration_can_sync_again(
    instance: dg.DagsterInstance, store: Store
) -> None:
    run = _started(instance)
    start_sync(store, run.run_id, get_integration(store, "acme"), DataSyncMode.INCREMENTAL, ["customers"])
    _silent_for(store, run.run_id, timedelta(hours=1))
    told = dead_runs(dg.build_sensor_context(instance=instance))

    assert run.run_id in str(told)
    assert _status(instance, run) == dg.DagsterRunStatus.FAILURE


def test_runs_that_live_or_begin_are_left_alone(instance: dg.DagsterInstance, store: Store) -> None:
    lives, begins = _started(instance), _started(instance)
    start_sync(store, lives.run_id, get_integration(store, "acme"), DataSyncMode.INCREMENTAL, ["customers"])
    dead_runs(dg.build_sensor_context(instance=instance))

    assert _status(instance, lives) == _status(instance, begins) == dg.DagsterRunStatus.STARTED


def _synced(store: Store) -> None:
    start_sync(store, "one", get_integration(store, "acme"), DataSyncMode.INCREMENTAL, ["customers"])
    finish_sync(store, "one", "succeeded")


def _started(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A run of which Dagster thinks that it runs."""
    job = definitions.resolve_job_def("stripe_sync")
    run = instance.create_run_for_job(job, tags={"dagster/partition": "acme", **tags_of("acme")})
    began = dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name=job.name)
    instance.report_dagster_event(began, run.run_id)
    assert _status(instance, run) == dg.DagsterRunStatus.STARTED
    return run


def _status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def _silent_for(store: Store, sync_id: str, time: timedelta) -> None:
    with store.operator() as connection:
        ago = {"heartbeat_at": syncs.c.heartbeat_at - time, "started_at": syncs.c.started_at - time}
        connection.execute(sa.update(syncs).where(syncs.c.sync_id == sync_id).values(ago))
