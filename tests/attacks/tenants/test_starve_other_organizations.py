"""A tenant with many integrations, silent ones, broken ones, wants all lanes, probes, runs and processes for itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import dagster as dg
import psutil
import psycopg
import pytest
from dagster._core.storage.dagster_run import DagsterRun
from dagster._utils.tags import TagConcurrencyLimitsCounter

from churnguard_pipelines.connectors.sdk.change_memory import CHANGE_MEMORY, IN_ALL, LONG_TRANSACTIONS_EACH, MOST_EACH
from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.orchestration.changes import changes_waiting
from churnguard_pipelines.orchestration.partitions import INTEGRATION_TAG, ORGANIZATION_TAG, reconcile
from churnguard_pipelines.orchestration.schedules import QUEUED_AT_MOST_EACH
from churnguard_pipelines.orchestration.sessions import SESSION_TAG
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.ingest import inbox, sessions
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing import lag_probes
from churnguard_pipelines.syncing.changes import ChangeLogs, followed_integrations
from churnguard_pipelines.syncing.database import CHANGES
from churnguard_pipelines.syncing.lag_probes import LOOK, LagProbes
from churnguard_pipelines.syncing.session import END_WITHIN, Session
from churnguard_pipelines.syncing.sync import opened
from churnguard_pipelines.syncing.webhooks import WEBHOOKS, Inboxes
from tests.attacks.tenants.silence import Silent, database, followed, silence
from tests.conftest import configuration
from tests.connectors.mirrors import mirrored, running, sync
from tests.connectors.postgresql.conftest import Register, register, source, source_server  # noqa: F401 - fixtures
from tests.orchestration.conftest import instance  # noqa: F401 - a fixture
from tests.orchestration.runs import long_syncs, pass_time
from tests.sources.installation import SESSION
from tests.waiting import wait_for

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("dagster")]

Source = psycopg.Connection[Any]


@pytest.fixture
def silent() -> Iterator[Silent]:
    with silence() as server:
        yield server


@pytest.fixture
def evil(store: Store, silent: Silent) -> list[IntegrationConfiguration]:
    """A hundred followed databases at a silent address; their organization comes first by its name, too."""
    return _followed(store, "aaa-evil", 100, silent.port)


def _followed(store: Store, organization_id: str, number: int, port: int) -> list[IntegrationConfiguration]:
    add_organization(store, Organization(organization_id=organization_id, name=organization_id), actor="test")
    made = [
        database(f"{organization_id}-{n}", organization_id, port, sync_mode="real_time", retry_attempts=0)
        for n in range(number)
    ]
    for each in made:
        add_integration(store, each, actor="test")
        followed(store, each)
    return made


# --- change logs


def test_a_hundred_silent_databases_leave_a_lane_for_somebody_s_one(
    store: Store,
    register: Register,  # noqa: F811
    source: Source,  # noqa: F811
    evil: list[IntegrationConfiguration],
    silent: Silent,
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    register(sync_mode="real_time")
    sync(store)
    with running(store):
        wait_for(lambda: silent.callers > 0)
        for number in range(3):
            source.execute(f"INSERT INTO users VALUES ({number}, 'u')")
            wait_for(lambda number=number: len(mirrored(store, "users", "id")) == number + 1)  # type: ignore[misc]
    assert silent.callers < ChangeLogs.at_once


def test_a_session_ends_on_time_though_sources_hang(
    store: Store, evil: list[IntegrationConfiguration], silent: Silent
) -> None:
    """So does its process: nothing at its exit joins what hangs."""
    _ends_on_time(store, SESSION.replace("linger=600", "linger=600, max_age=3"), silent)
    assert sessions.ages(store, CHANGES) == {}


def test_a_session_of_webhooks_ends_on_time_though_a_provider_hangs(store: Store, silent: Silent) -> None:
    add_organization(store, Organization(organization_id="evil", name="Evil Corp."), actor="test")
    integration = configuration("evil", organization_id="evil", base_url=f"http://127.0.0.1:{silent.port}")
    add_integration(store, integration, actor="test")
    _deliver(store, "evil", "evil", 2)
    program = SESSION.replace("syncing.changes", "syncing.webhooks").replace("ChangeLogs", "Inboxes")
    _ends_on_time(store, program.replace("linger=600", "linger=600, max_age=3"), silent)
    assert sessions.ages(store, WEBHOOKS) == {}


def _ends_on_time(store: Store, program: str, silent: Silent) -> None:
    assert store.settings.encryption_key is not None
    environment = os.environ | {
        "CHURNGUARD_HOME": str(store.settings.home),
        "CHURNGUARD_DATABASE_URL": store.database_url,
        "INTEGRATION_ENCRYPTION_KEY": store.settings.encryption_key.get_secret_value(),
    }
    process = subprocess.Popen([sys.executable, "-c", program, "session"], env=environment)
    try:
        assert silent.asked.wait(60)
        began = time.monotonic()
        assert process.wait(60) == 0
        assert time.monotonic() - began < 3 + 2 * END_WITHIN
        assert sessions.known(store, "session")
    finally:
        process.kill()
        process.wait()


def test_memory_is_shared_out_among_lanes() -> None:
    assert CHANGE_MEMORY.batch_bytes() <= MOST_EACH
    for _ in range(64):
        CHANGE_MEMORY.enter()
    try:
        assert 64 * 2 * CHANGE_MEMORY.batch_bytes() <= IN_ALL
    finally:
        for _ in range(64):
            CHANGE_MEMORY.leave()


def test_transactions_that_never_end_hold_few_connections() -> None:
    entered: Counter[str] = Counter()
    release = threading.Event()
    lock = threading.Lock()

    def hold(name: str) -> None:
        with CHANGE_MEMORY.long_transaction(name):
            with lock:
                entered[name] += 1
            release.wait(60)

    threads = [threading.Thread(target=hold, args=["evil"], daemon=True) for _ in range(30)]
    for thread in threads:
        thread.start()
    wait_for(lambda: entered["evil"] == LONG_TRANSACTIONS_EACH)
    with CHANGE_MEMORY.long_transaction("good"):
        assert entered["evil"] == LONG_TRANSACTIONS_EACH
    release.set()
    for thread in threads:
        thread.join(10)
    assert entered["evil"] == 30


# --- the sensor


@pytest.mark.usefixtures("evil")
def test_a_tick_of_the_sensor_ends_though_sources_are_silent(
    store: Store,
    register: Register,  # noqa: F811
    source: Source,  # noqa: F811
    instance: dg.DagsterInstance,  # noqa: F811
    silent: Silent,
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    register(sync_mode="real_time")
    sync(store)
    source.execute("INSERT INTO users SELECT n, 'u' FROM generate_series(1, 1000) n")
    asked: list[Any] = []
    for _ in range(3):
        began = time.monotonic()
        asked.append(changes_waiting(dg.build_sensor_context(instance=instance)))
        assert time.monotonic() - began < LOOK + 10
    requests = [request for each in asked if isinstance(each, list) for request in each]
    assert any("acme-db" in each.tags["churnguard/behind"] for each in requests)
    assert silent.callers <= lag_probes.ASKED_AT_ONCE_EACH


def test_a_wrong_configuration_is_its_own_problem(
    store: Store,
    register: Register,  # noqa: F811
    source: Source,  # noqa: F811
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
    register(sync_mode="real_time")
    sync(store)
    _followed(store, "aaa-wrong", 5, 99_999)
    source.execute("INSERT INTO users SELECT n, 'u' FROM generate_series(1, 1000) n")
    probes = LagProbes()
    assert wait_or_none(lambda: probes.behind(store, followed_integrations(store))) == ["acme-db"]
    with running(store):
        wait_for(lambda: len(mirrored(store, "users", "id")) == 1000)


def wait_or_none(ask: Any, times: int = 5) -> Any:
    return next((found for found in (ask() for _ in range(times)) if found), None)


def test_a_late_answer_counts_in_the_next_look(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr(lag_probes, "LOOK", 0.05)
    release, done = threading.Event(), threading.Event()

    def slow(*_: object) -> bool:
        release.wait(30)
        done.set()
        return True

    monkeypatch.setattr(lag_probes, "_is_behind", slow)
    probes, one = LagProbes(), [database("slow", "acme", 1)]
    assert probes.behind(store, one) == []
    release.set()
    assert done.wait(10)
    wait_for(lambda: probes.behind(store, one) == ["slow"])


# --- webhooks


def test_events_that_hang_at_their_provider_leave_others_theirs(
    store: Store, organization: Organization, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two states within one second have to be asked for at the provider, which is silent."""
    add_organization(store, Organization(organization_id="evil", name="Evil Corp."), actor="test")
    names = [f"evil-{n}" for n in range(30)]
    for name in names:
        add_integration(
            store,
            configuration(name, organization_id="evil", base_url=f"http://127.0.0.1:{silent.port}"),
            actor="test",
        )
    add_integration(store, configuration("acme-stripe", base_url="http://127.0.0.1:9"), actor="test")
    for name in names:
        _deliver(store, "evil", name, 2)
    session = Session(store, "session", Inboxes(store), linger=30)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        most = Inboxes.at_once_each
        assert most is not None
        wait_for(lambda: silent.callers >= most)
        _deliver(store, "acme", "acme-stripe", 1)
        wait_for(lambda: "acme-stripe" not in {item.lane.integration_id for item in inbox.waiting(store)}, 30)
        assert silent.callers == Inboxes.at_once_each
    finally:
        session.stop()
        began = time.monotonic()
        thread.join(60)
        assert time.monotonic() - began < 30
    assert not thread.is_alive()


def _deliver(store: Store, organization_id: str, integration_id: str, number: int) -> None:
    events = [
        {
            "id": f"evt_{integration_id}_{n}", "object": "event", "type": "customer.updated", "created": 1_790_000_000,
            "api_version": "2026-05-27.dahlia",
            "data": {"object": {"id": "cus_1", "object": "customer", "created": 1_780_000_000, "name": f"{n}"}},
        }
        for n in range(number)
    ]  # fmt: skip
    rows = [
        (organization_id, "stripe", integration_id, "we_1", each["id"], each["type"], "", json.dumps(each))
        for each in events
    ]
    with store.operator() as connection:
        connection.exec_driver_sql(inbox.TAKE, tuple(list(column) for column in zip(*rows, strict=True)))
    with store.operator() as connection:  # as the gateway does: after the commit
        connection.exec_driver_sql(inbox.TELL, ([integration_id],))


# --- scheduled syncs


def test_a_hundred_due_integrations_do_not_come_before_somebody_s_one(
    store: Store,
    organization: Organization,
    instance: dg.DagsterInstance,  # noqa: F811
) -> None:
    add_organization(store, Organization(organization_id="evil", name="Evil Corp."), actor="test")
    for number in range(100):
        add_integration(store, configuration(f"evil-{number}", organization_id="evil"), actor="test")
    add_integration(store, configuration("acme-stripe"), actor="test")  # due last
    reconcile(instance, "stripe")
    requests = long_syncs(instance)
    assert "acme-stripe" in [each.partition_key for each in requests[:2]]
    assert Counter(each.tags[ORGANIZATION_TAG] for each in requests) == {"acme": 1, "evil": QUEUED_AT_MOST_EACH}
    job = definitions.resolve_job_def("stripe_sync")
    for each in requests:
        instance.create_run_for_job(job, tags=dict(each.tags))
    pass_time(store, timedelta(minutes=20))
    assert long_syncs(instance) == [], "nobody's queue grows beyond its share, whatever the key of a request"


def test_syncs_that_never_end_leave_places_for_the_sessions_that_serve_everybody(
    instance: dg.DagsterInstance,  # noqa: F811
) -> None:
    """Ten organizations with as many syncs as they are given, each as slow as a source may be."""
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    places = TagConcurrencyLimitsCounter(queue.tag_concurrency_limits, [])
    running: Counter[str] = Counter()
    for number in range(100):
        own = DagsterRun("sync", tags={ORGANIZATION_TAG: f"evil-{number % 10}", INTEGRATION_TAG: f"evil-{number}"})
        for run in (own, DagsterRun("session", tags={SESSION_TAG: "syncs"})):
            if not places.is_blocked(run):
                places.update_counters_with_launched_item(run)
                running[run.job_name] += 1
    assert running == {"sync": 4, "session": 12}
    sessions_of_webhooks_and_change_logs = Inboxes.most_sessions + ChangeLogs.most_sessions
    assert running.total() + sessions_of_webhooks_and_change_logs < queue.max_concurrent_runs


def test_each_of_many_integrations_costs_a_session_little(store: Store, organization: Organization) -> None:
    """A session of webhooks keeps their connectors open: each had all that this machine trusts for itself."""
    made = [configuration(f"evil-{number}") for number in range(60)]
    for each in made:
        add_integration(store, each, actor="test")
    with ExitStack() as kept:
        kept.enter_context(opened(store, made[0]))
        before = psutil.Process().memory_info().rss
        for each in made[1:]:
            kept.enter_context(opened(store, each))
        assert psutil.Process().memory_info().rss - before < 12 * 2**20
