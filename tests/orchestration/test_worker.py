"""A worker does what sessions do, without a run: rows come, Dagster is told, and it ends when it is asked to."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest

from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.orchestration.roles import WORKER
from churnguard_pipelines.orchestration.roles.worker import Worker
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.ingest import leases, sessions
from churnguard_pipelines.store.ingest.ledger import latest_sync
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.session import END_WITHIN
from tests.orchestration.conftest import Register
from tests.orchestration.runs import pass_time, run, sandbox_of_one_s_own
from tests.waiting import PATIENCE_SECONDS, wait_for

ASKED_WHILE_IT_BEGINS = """
import signal, weakref
from churnguard_pipelines.orchestration.roles import worker
signal.signal(signal.SIGTERM, signal.default_int_handler)  # as `churnguard` has it until the worker begins
current_store = worker.current_store
class Thing: pass
def opened():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    del thing
    return current_store()
worker.current_store = opened
worker.main()
worker.leave(0)
"""
ASKED_AS_IT_BEGINS_TO_WAIT = """
import signal, sys, threading, time
from churnguard_pipelines.orchestration.roles import worker
def waits():
    frame = sys._current_frames()[threading.main_thread().ident]
    return frame.f_code.co_name == "wait" and frame.f_back.f_back.f_code is worker.Worker.run.__code__
def ask():
    while not waits():
        time.sleep(0.01)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # the main thread is not woken
threading.Thread(target=ask, daemon=True).start()
worker.main()
worker.leave(0)
"""


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_of_one_s_own(tmp_path_factory.mktemp("sandbox")) as served:
        yield served


def test_what_is_due_is_synced_and_dagster_told_without_a_run(
    instance: dg.DagsterInstance, store: Store, register: Register, sandbox: Sandbox
) -> None:
    register(sync_frequency=3600)
    assert run(instance, "stripe_sync", "acme").success, "a first sync is a run of its own"
    runs = instance.get_runs_count()
    sandbox.account("acme").advance(7 * 86_400)
    expected = sandbox.account("acme").counts()["charges"]
    assert charges(store) < expected
    pass_time(store, timedelta(hours=2))
    stop = threading.Event()
    worker = Worker(store, instance, 2, stop)
    working = threading.Thread(target=worker.run, daemon=True)
    working.start()
    try:
        wait_for(lambda: charges(store) == expected)
        wait_for(lambda: told(instance, "charges"))
        assert instance.get_runs_count() == runs
        sandbox.fault("hang", "/v1/customers")
        pass_time(store, timedelta(hours=2))
        wait_for(lambda: latest(store) == "running")
    finally:
        stop.set()
    working.join(PATIENCE_SECONDS)
    assert not working.is_alive(), "whatever a provider does not answer"
    assert sessions.ages(store, "stripe_syncs") == {}
    assert leases.of_others(store, "nobody", "stripe_syncs") == set()
    sandbox.clear_faults()


@pytest.mark.parametrize(
    "program",
    [ASKED_WHILE_IT_BEGINS, ASKED_AS_IT_BEGINS_TO_WAIT],
    ids=["where Python lets no exception out", "as it begins to wait"],
)
def test_whoever_asks_it_to_end_is_heard(instance: dg.DagsterInstance, store: Store, program: str) -> None:
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, env=dagster_environment(store), timeout=PATIENCE_SECONDS).returncode == 0


def test_its_process_ends_when_it_is_asked_to_though_a_provider_hangs(
    instance: dg.DagsterInstance, store: Store, register: Register, sandbox: Sandbox
) -> None:
    register(sync_frequency=3600)
    assert run(instance, "stripe_sync", "acme").success, "a first sync is a run of its own"
    sandbox.account("acme").advance(7 * 86_400)
    expected = sandbox.account("acme").counts()["charges"]
    sandbox.fault("hang", "/v1/customers")
    pass_time(store, timedelta(hours=2))
    process = subprocess.Popen([sys.executable, "-m", WORKER], env=dagster_environment(store))
    try:
        wait_for(lambda: charges(store) == expected)  # which are asked for after the customers
        process.terminate()
        assert process.wait(END_WITHIN + PATIENCE_SECONDS / 2) == 0
    finally:
        process.kill()
        process.wait()
        sandbox.clear_faults()


def charges(store: Store) -> int:
    return Warehouse(store).count("stripe_charges", "acme", "acme")


def told(instance: dg.DagsterInstance, name: str) -> bool:
    """Whether the latest materialization is of no run."""
    event = instance.get_latest_materialization_event(dg.AssetKey(["stripe", name]))
    return event is not None and event.run_id == ""


def latest(store: Store) -> str | None:
    report = latest_sync(store, "acme")
    return None if report is None else report.status
