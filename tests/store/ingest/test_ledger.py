"""The ledger of syncs, and the schedules' question which integrations are due."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, IntegrationStatus
from churnguard_pipelines.records import Counts, Lane
from churnguard_pipelines.store.control.integrations import replace_integration, set_status
from churnguard_pipelines.store.ingest import leases, ledger, sessions
from churnguard_pipelines.store.ingest.due import LONG_SECONDS, MOST_EACH, SYNC, due_integrations, is_due
from churnguard_pipelines.store.ingest.sync_states import HISTORY
from churnguard_pipelines.store.ingest.tables import breakers, syncs
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse

HOUR = timedelta(hours=1)


@pytest.fixture
def started(store: Store, integration: IntegrationConfiguration) -> str:
    ledger.start_sync(store, "run-1", integration, DataSyncMode.INCREMENTAL, ["customers", "invoices"], "schedule")
    return "run-1"


def silence(store: Store, sync_id: str) -> None:
    """As if its process had been killed some minutes ago."""
    with store.operator() as connection:
        old = {"heartbeat_at": sa.func.now() - timedelta(minutes=5)}
        connection.execute(sa.update(syncs).where(syncs.c.sync_id == sync_id).values(old))


def due(store: Store, now: datetime) -> list[str]:
    return [item.integration_id for item in due_integrations(store, "stripe", now)]


def test_a_sync_is_followed_from_start_to_end(store: Store, started: str) -> None:
    ledger.set_object(store, started, "customers", status="running", expected_records=20, checkpoint_before={"page": 1})
    for _ in range(2):
        with Warehouse(store).transaction("acme") as transaction:
            transaction.progress(started, "customers", Counts(read=10, written=7, stale=2, rejected=1))
    report = ledger.get_sync(store, started)
    assert (report.status, report.mode, report.trigger, report.finished_at) == (
        "running", "incremental", "schedule", None,
    )  # fmt: skip
    assert report.objects["customers"].counts == Counts(read=20, written=14, stale=4, rejected=2)
    assert report.objects["customers"].expected == 20
    assert report.objects["invoices"].status == "pending"

    ledger.set_object(store, started, "customers", status="succeeded", calls=3, checkpoint_after={"page": 2})
    ledger.set_object(store, started, "invoices", status="failed", error="403")
    ledger.set_quota_left(store, started, 12.5)
    ledger.finish_sync(store, started, "partial", "invoices failed")
    report = ledger.get_sync(store, started)
    assert (report.status, report.error, report.quota_left) == ("partial", "invoices failed", 12.5)
    assert report.finished_at is not None
    customers = report.objects["customers"]
    assert (customers.calls, customers.checkpoint_before, customers.checkpoint_after) == (3, {"page": 1}, {"page": 2})
    assert report.objects["invoices"].error == "403"


def test_counts_of_a_transaction_that_fails_do_not_stand(store: Store, started: str) -> None:
    with pytest.raises(RuntimeError), Warehouse(store).transaction("acme") as transaction:  # noqa: PT012
        transaction.progress(started, "customers", Counts(read=10))
        raise RuntimeError
    assert ledger.get_sync(store, started).objects["customers"].counts == Counts()


def test_the_latest_sync_is_the_one_that_started_last(
    store: Store, integration: IntegrationConfiguration, started: str
) -> None:
    ledger.start_sync(store, "run-2", integration, "full", [])
    latest = ledger.latest_sync(store, "acme-stripe")
    assert latest is not None
    assert (latest.sync_id, latest.objects) == ("run-2", {})
    assert ledger.latest_sync(store, "nothing") is None
    assert ledger.find_sync(store, "nothing") is None
    with pytest.raises(NotFound):
        ledger.get_sync(store, "nothing")


def test_a_sync_may_be_begun_again_under_its_id(
    store: Store, integration: IntegrationConfiguration, started: str
) -> None:
    with Warehouse(store).transaction("acme") as transaction:
        transaction.progress(started, "customers", Counts(read=10))
    ledger.start_sync(store, started, integration, "full", ["customers"])
    assert ledger.get_sync(store, started).objects["customers"].counts == Counts()


def test_a_killed_sync_reads_as_failed_and_is_buried_by_the_next(
    store: Store, integration: IntegrationConfiguration, started: str
) -> None:
    ledger.set_object(store, started, "customers", status="running")
    silence(store, started)
    report = ledger.get_sync(store, started)
    assert report.status == "failed"
    assert "killed" in str(report.error)
    assert {name: item.status for name, item in report.objects.items()} == {
        "customers": "failed",
        "invoices": "pending",
    }
    ledger.start_sync(store, "run-2", integration, "full", [])
    with store.operator() as connection:
        status = connection.scalar(sa.select(syncs.c.status).where(syncs.c.sync_id == started))
    assert status == "failed"


def test_a_sync_that_gives_signs_of_life_is_alive(store: Store, started: str) -> None:
    silence(store, started)
    with ledger.heartbeat(store, started, interval=0.01):
        alive = threading.Event()
        while ledger.get_sync(store, started).status != "running":
            alive.wait(0.01)
    assert ledger.get_sync(store, started).status == "running"


def test_an_integration_is_due_when_its_frequency_has_passed_since_the_last_start(
    store: Store, integration: IntegrationConfiguration
) -> None:
    now = store.now()
    [never_synced] = due_integrations(store, "stripe", now)
    assert (never_synced.integration_id, never_synced.organization_id) == ("acme-stripe", "acme")
    assert never_synced.due_at <= now
    assert due(store, never_synced.due_at - HOUR) == []
    assert due_integrations(store, "hubspot", now) == []

    ledger.start_sync(store, "run-1", integration, "incremental", [])
    ledger.finish_sync(store, "run-1", "succeeded")
    started_at = ledger.get_sync(store, "run-1").started_at
    assert due(store, store.now()) == []
    [again] = due_integrations(store, "stripe", now + 2 * HOUR)
    assert again.due_at == started_at + HOUR


def test_one_that_failed_comes_back_after_a_minute_doubling_until_its_frequency(
    store: Store, integration: IntegrationConfiguration
) -> None:
    pauses = []
    for number in range(8):
        ledger.start_sync(store, f"run-{number}", integration, "incremental", [])
        ledger.finish_sync(store, f"run-{number}", "failed" if number % 2 else "partial")
        ended = ledger.get_sync(store, f"run-{number}").finished_at
        [again] = due_integrations(store, "stripe", store.now() + 2 * HOUR)
        assert ended is not None
        pauses.append(round((again.due_at - ended).total_seconds()))
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]

    ledger.start_sync(store, "well", integration, "incremental", [])
    ledger.finish_sync(store, "well", "succeeded")
    ledger.start_sync(store, "killed", integration, "incremental", [])
    assert due_integrations(store, "stripe", store.now() + 2 * HOUR) == [], "it runs"
    silence(store, "killed")
    began = ledger.get_sync(store, "killed").started_at
    [again] = due_integrations(store, "stripe", store.now() + 2 * HOUR)
    assert again is not None
    assert round((again.due_at - began).total_seconds()) == 60


def test_one_that_has_not_synced_yet_is_due_half_a_minute_after_each_failure_and_not_after_each_death(
    store: Store, integration: IntegrationConfiguration
) -> None:
    """Whoever sets it up is mending the cause; a sync that kills its process must not do so every minute."""
    pauses = []
    for number in range(8):
        ledger.start_sync(store, f"run-{number}", integration, "incremental", [])
        ledger.finish_sync(store, f"run-{number}", "failed", "there is no host db.internal.")
        ended = ledger.get_sync(store, f"run-{number}").finished_at
        [again] = due_integrations(store, "stripe", store.now() + 2 * HOUR)
        assert ended is not None
        pauses.append(round((again.due_at - ended).total_seconds()))
    assert pauses == [30] * 8
    ledger.start_sync(store, "killed", integration, "incremental", [])
    silence(store, "killed")
    began = ledger.get_sync(store, "killed").started_at
    [again] = due_integrations(store, "stripe", store.now() + 2 * HOUR)
    assert round((again.due_at - began).total_seconds()) == 3600


def test_what_never_synced_or_took_long_is_to_have_a_run_of_its_own(
    store: Store, integration: IntegrationConfiguration
) -> None:
    def is_long() -> bool:
        [found] = due_integrations(store, "stripe", store.now() + 2 * HOUR)
        return found.is_long

    assert is_long()
    ledger.start_sync(store, "run-1", integration, "incremental", [])
    ledger.finish_sync(store, "run-1", "succeeded")
    assert not is_long()
    with store.operator() as connection:
        earlier = {"started_at": syncs.c.started_at - timedelta(seconds=LONG_SECONDS + 1)}
        connection.execute(sa.update(syncs).values(earlier))
    assert is_long()


def test_what_a_living_session_has_is_not_due(store: Store, integration: IntegrationConfiguration) -> None:
    lane = Lane("acme", "acme-stripe", SYNC)
    sessions.begin(store, "session", "stripe_syncs")
    leases.take(store, "session", [lane])
    assert due(store, store.now()) == []
    assert is_due(store, "acme", "acme-stripe", "session")
    sessions.end(store, "session")
    assert due(store, store.now()) == ["acme-stripe"]


def test_nobody_s_thousands_come_before_somebody_s_one(store: Store, integration: IntegrationConfiguration) -> None:
    with store.operator() as connection:
        connection.exec_driver_sql("INSERT INTO control.organizations VALUES ('evil', 'Evil', 'usd')")
        connection.exec_driver_sql(
            "INSERT INTO control.integrations (integration_id, organization_id, provider, config, credentials_sealed, "
            "status, next_due_at) SELECT 'evil-' || n, 'evil', provider, config, credentials_sealed, status, "
            "now() - interval '1 day' FROM control.integrations, generate_series(1, 5000) AS n"
        )
    found = due(store, store.now())
    assert len(found) == MOST_EACH + 1
    assert found[-1] == "acme-stripe"


def test_syncs_that_were_cancelled_put_nothing_off(store: Store, integration: IntegrationConfiguration) -> None:
    """Each is due again after a minute, however many there were; those that fail wait twice as long each time."""
    after = {}
    ledger.start_sync(store, "well", integration, "incremental", [])
    ledger.finish_sync(store, "well", "succeeded")
    for status in ("cancelled", "failed"):
        for _ in range(4):
            ledger.start_sync(store, "run-1", integration, "incremental", [])
            ledger.finish_sync(store, "run-1", status)
        after[status] = [due(store, store.now() + minutes * HOUR / 60) != [] for minutes in (2, 5, 10)]
    assert after == {"cancelled": [True, True, True], "failed": [False, False, True]}


def test_new_settings_and_a_person_s_word_make_it_due_at_once(
    store: Store, integration: IntegrationConfiguration
) -> None:
    for _ in range(3):
        ledger.start_sync(store, "run-1", integration, "incremental", [])
        ledger.finish_sync(store, "run-1", "failed")
    assert due(store, store.now()) == []
    replace_integration(store, integration, actor="test")
    assert due(store, store.now()) == ["acme-stripe"]

    ledger.start_sync(store, "run-2", integration, "incremental", [])
    ledger.finish_sync(store, "run-2", "succeeded")
    set_status(store, "acme-stripe", IntegrationStatus.PAUSED, actor="test")
    set_status(store, "acme-stripe", IntegrationStatus.ACTIVE, actor="test")
    assert due(store, store.now()) == ["acme-stripe"]


def test_what_runs_is_not_due_unless_it_was_killed(store: Store, started: str) -> None:
    later = store.now() + 2 * HOUR
    assert due(store, later) == []
    silence(store, started)
    assert due(store, later) == ["acme-stripe"]


def test_a_sync_of_history_is_none_of_the_schedules_business(
    store: Store, integration: IntegrationConfiguration
) -> None:
    ledger.start_sync(store, "run-1", integration, "full", [], HISTORY)
    assert due(store, store.now()) == ["acme-stripe"]


@pytest.mark.parametrize(
    ("status", "is_due"),
    [
        (IntegrationStatus.ACTIVE, True),
        (IntegrationStatus.ERROR, True),
        (IntegrationStatus.RATE_LIMITED, True),
        (IntegrationStatus.PAUSED, False),
        (IntegrationStatus.INACTIVE, False),
        (IntegrationStatus.AUTHENTICATION_FAILED, False),
    ],
)
def test_a_resting_integration_is_not_due(
    store: Store, integration: IntegrationConfiguration, status: IntegrationStatus, is_due: bool
) -> None:
    set_status(store, "acme-stripe", status)
    assert bool(due(store, store.now())) is is_due


@pytest.mark.parametrize(
    ("state", "retry_in", "is_due"),
    [
        ("closed", None, True),
        ("open", None, False),
        ("open", HOUR, False),
        ("open", -HOUR, True),
        ("half_open", -HOUR, True),
    ],
)
def test_an_open_breaker_holds_until_its_time(
    store: Store, integration: IntegrationConfiguration, state: str, retry_in: timedelta | None, is_due: bool
) -> None:
    now = store.now()
    row = {"state": state, "retry_at": None if retry_in is None else now + retry_in}
    owner = {"organization_id": "acme", "integration_id": "acme-stripe"}
    with store.organization("acme") as connection:
        connection.execute(sa.insert(breakers).values(**owner, **row))
    assert bool(due(store, now)) is is_due
