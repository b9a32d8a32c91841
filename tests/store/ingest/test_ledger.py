"""The ledger of syncs, and the schedules' question which integrations are due."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, IntegrationStatus
from churnguard_pipelines.records import Counts
from churnguard_pipelines.store.control.integrations import set_status
from churnguard_pipelines.store.ingest import ledger
from churnguard_pipelines.store.ingest.due import due_integrations
from churnguard_pipelines.store.ingest.tables import breakers
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
        connection.execute(sa.update(ledger.syncs).where(ledger.syncs.c.sync_id == sync_id).values(old))


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
        status = connection.scalar(sa.select(ledger.syncs.c.status).where(ledger.syncs.c.sync_id == started))
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
    ledger.finish_sync(store, "run-1", "failed")
    started_at = ledger.get_sync(store, "run-1").started_at
    assert due(store, now) == []
    [again] = due_integrations(store, "stripe", now + 2 * HOUR)
    assert again.due_at == started_at + HOUR


def test_what_runs_is_not_due_unless_it_was_killed(store: Store, started: str) -> None:
    later = store.now() + 2 * HOUR
    assert due(store, later) == []
    silence(store, started)
    assert due(store, later) == ["acme-stripe"]


def test_a_sync_of_history_is_none_of_the_schedules_business(
    store: Store, integration: IntegrationConfiguration
) -> None:
    ledger.start_sync(store, "run-1", integration, "full", [], ledger.HISTORY)
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
