"""Syncs that people ask for: as many at once as there are places, fair among organizations, and the ledger knows."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from churnguard_pipelines.errors import AlreadyRunning
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, Organization
from churnguard_pipelines.orchestration.processes import children as process
from churnguard_pipelines.orchestration.processes.children import SyncRequest
from churnguard_pipelines.orchestration.processes.sync_queue import (
    AT_ONCE,
    AT_ONCE_EACH,
    ENDED_BEFORE,
    NOT_BEGUN,
    SyncQueue,
)
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.ingest import ledger
from churnguard_pipelines.store.ingest.due import due_integrations
from churnguard_pipelines.store.ingest.ledger import get_sync, latest_sync
from churnguard_pipelines.store.ingest.sync_states import DEAD_AFTER_SECONDS
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration
from tests.waiting import wait_for
from tests.webhook_gateway.dashboard.conftest import engine_on

WORKS_FOR_EVER = "import time; print('working', flush=True); time.sleep(600)"
ENDS_AT_ONCE = "print('no such thing'); raise SystemExit(1)"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a sync's process runs instead of a sync; the last one given."""
    given = [WORKS_FOR_EVER]

    class Launch(tuple[str, ...]):
        def __iter__(self) -> Iterator[str]:
            return iter((sys.executable, "-c", given[-1]))

    monkeypatch.setattr(process.SyncProcess, "command", Launch())
    return given


@pytest.fixture
def queue(store: Store, program: list[str]) -> Iterator[SyncQueue]:
    made = SyncQueue(store)
    yield made
    made.stop()


@pytest.fixture
def fleet(store: Store) -> dict[str, list[IntegrationConfiguration]]:
    """Three organizations with ten integrations each."""
    found = {}
    for name in ("greedy", "second", "third"):
        add_organization(store, Organization(organization_id=name, name=name), actor="test")
        found[name] = [configuration(f"{name}-{number}", organization_id=name) for number in range(10)]
        for each in found[name]:
            add_integration(store, each, actor="test")
    return found


def start(queue: SyncQueue, integration: IntegrationConfiguration) -> str:
    return queue.start(integration, SyncRequest(integration.integration_id))


def running(queue: SyncQueue, integrations: list[IntegrationConfiguration]) -> int:
    found = [queue.find(each.integration_id) for each in integrations]
    return sum(each is not None and each.process is not None and each.process.running for each in found)


def test_one_organization_s_many_syncs_leave_places_for_others(
    queue: SyncQueue, store: Store, fleet: dict[str, list[IntegrationConfiguration]]
) -> None:
    ids = [start(queue, each) for each in fleet["greedy"]]
    wait_for(lambda: running(queue, fleet["greedy"]) == AT_ONCE_EACH)
    assert {get_sync(store, sync_id).status for sync_id in ids} == {"queued"}
    start(queue, fleet["second"][0])
    start(queue, fleet["third"][0])
    wait_for(lambda: running(queue, fleet["second"]) == running(queue, fleet["third"]) == 1)
    start(queue, fleet["second"][1])
    everything = [each for integrations in fleet.values() for each in integrations]
    assert running(queue, everything) == AT_ONCE


def test_the_next_begins_when_one_has_ended_and_why_one_never_began_is_told(
    queue: SyncQueue,
    store: Store,
    program: list[str],
    fleet: dict[str, list[IntegrationConfiguration]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What its process said is for whoever operates the installation."""
    program.append(ENDS_AT_ONCE)
    ids = [start(queue, each) for each in fleet["greedy"]]
    wait_for(lambda: all(get_sync(store, sync_id).finished_at for sync_id in ids), 60)
    for sync_id in ids:
        page = get_sync(store, sync_id)
        assert (page.status, page.error) == ("failed", ENDED_BEFORE)
    assert caplog.text.count("the sync ended before it began: no such thing") == len(ids)


def test_thousands_of_objects_are_not_too_many(
    queue: SyncQueue, store: Store, program: list[str], fleet: dict[str, list[IntegrationConfiguration]]
) -> None:
    """A database with many tables; a command line takes 128 kB."""
    program.append("import json, sys; assert len(json.load(sys.stdin)['objects']) == 5000; sys.stdin.close(); 1 / 0")
    integration = fleet["greedy"][0]
    names = [f"a_schema_of_theirs.a_table_of_theirs_{number}" for number in range(5000)]
    sync_id = queue.start(integration, SyncRequest(integration.integration_id, objects=names))
    wait_for(lambda: get_sync(store, sync_id).finished_at, 60)
    log = store.settings.home / "logs" / f"sync-{integration.integration_id}.log"
    assert "ZeroDivisionError" in log.read_text()


def test_the_same_sync_is_not_started_twice_and_another_one_is_refused(
    queue: SyncQueue, fleet: dict[str, list[IntegrationConfiguration]]
) -> None:
    for each in fleet["greedy"]:  # running ones and waiting ones
        assert start(queue, each) == start(queue, each)
        with pytest.raises(AlreadyRunning, match="another sync is running or waiting already"):
            queue.start(each, SyncRequest(each.integration_id, DataSyncMode.FULL))


def test_what_waits_is_not_scheduled_besides(
    queue: SyncQueue, store: Store, fleet: dict[str, list[IntegrationConfiguration]]
) -> None:
    for each in fleet["greedy"]:
        start(queue, each)
    due = {each.organization_id for each in due_integrations(store, "stripe", store.now())}
    assert due == {"second", "third"}


def test_a_service_that_ends_says_what_has_not_begun(
    store: Store, program: list[str], fleet: dict[str, list[IntegrationConfiguration]]
) -> None:
    queue = SyncQueue(store)
    ids = [start(queue, each) for each in fleet["greedy"]]
    wait_for(lambda: running(queue, fleet["greedy"]) == AT_ONCE_EACH)
    queue.stop()
    assert running(queue, fleet["greedy"]) == 0
    pages = [get_sync(store, sync_id) for sync_id in ids]
    assert {page.status for page in pages[AT_ONCE_EACH:]} == {"cancelled"}
    assert [page.error for page in pages[AT_ONCE_EACH:]] == [NOT_BEGUN] * (10 - AT_ONCE_EACH)


def test_a_service_that_is_killed_leaves_no_sync_that_waits_for_ever(
    store: Store, fleet: dict[str, list[IntegrationConfiguration]]
) -> None:
    integration = fleet["greedy"][0]
    ledger.queue_sync(store, "lost", integration, "incremental")
    with store.operator() as connection:
        connection.exec_driver_sql(
            f"UPDATE ingest.syncs SET heartbeat_at = heartbeat_at - interval '{DEAD_AFTER_SECONDS + 1} seconds'"
        )
    page = latest_sync(store, integration.integration_id)
    assert page is not None
    assert (page.status, page.finished_at is None) == ("failed", False)
    later = store.now() + timedelta(hours=2)
    assert integration.integration_id in {each.integration_id for each in due_integrations(store, "stripe", later)}


def test_signs_of_life_are_given_of_what_waits(
    store: Store,
    program: list[str],
    fleet: dict[str, list[IntegrationConfiguration]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "HEARTBEAT_SECONDS", 0.05)
    queue = SyncQueue(store)
    try:
        ids = [start(queue, each) for each in fleet["greedy"]]
        with store.operator() as connection:
            connection.exec_driver_sql("UPDATE ingest.syncs SET heartbeat_at = heartbeat_at - interval '1 hour'")
        wait_for(lambda: all(get_sync(store, sync_id).status == "queued" for sync_id in ids))
    finally:
        queue.stop()


def test_its_state_is_told(store: Store, program: list[str], fleet: dict[str, list[IntegrationConfiguration]]) -> None:
    async def story() -> None:
        engine = engine_on(store)
        try:
            names = [each.integration_id for each in fleet["greedy"]]
            ids = [await engine.start_sync(name) for name in names]
            states = [await engine.get_sync_status(name) for name in names]
            assert [state.sync_id for state in states] == ids
            assert [state.status for state in states] == ["syncing"] * AT_ONCE_EACH + ["queued"] * (10 - AT_ONCE_EACH)
        finally:
            await asyncio.to_thread(engine._syncs.stop)

    asyncio.run(story())


def test_stopping_does_not_wait_for_a_process_that_ignores_it(
    store: Store, program: list[str], fleet: dict[str, list[IntegrationConfiguration]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.2)
    program.append("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)")
    queue = SyncQueue(store)
    start(queue, fleet["greedy"][0])
    wait_for(lambda: running(queue, fleet["greedy"]) == 1)
    ended = threading.Thread(target=queue.stop)
    ended.start()
    ended.join(15)
    assert not ended.is_alive()
