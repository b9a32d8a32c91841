"""From what syncs and webhooks leave behind to the numbers that people see."""

from __future__ import annotations

import runpy
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Literal

import psycopg
import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from sqlalchemy.exc import ProgrammingError

from churnguard_pipelines.engine.breaker import Breaker
from churnguard_pipelines.errors import AuthenticationFailed
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, IntegrationCredentials
from churnguard_pipelines.monitoring.detail import objects_of, recent_syncs
from churnguard_pipelines.monitoring.monitor import Monitor, take_picture
from churnguard_pipelines.monitoring.vitals import Vitals, read_vitals
from churnguard_pipelines.records import Counts, Drift, Lane, Rejected
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.ingest import inbox, ledger
from churnguard_pipelines.store.ingest.drift import record_drift
from churnguard_pipelines.store.ingest.tables import syncs
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.schema import MIGRATIONS
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.conftest import as_administrator, configuration, settings_for
from tests.waiting import wait_for

LANE = Lane("acme", "acme-stripe", "customers")


def synced(
    store: Store,
    integration: IntegrationConfiguration,
    sync_id: str,
    status: Literal["succeeded", "partial", "failed"] | None,
    counts: Counts | None = None,
    *,
    error: str | None = None,
    started: timedelta = timedelta(0),
) -> None:
    """A page of the ledger; it stays open without a ``status``."""
    ledger.start_sync(store, sync_id, integration, DataSyncMode.INCREMENTAL, ["customers"])
    with Warehouse(store).transaction("acme") as transaction:
        transaction.progress(sync_id, "customers", counts or Counts(read=10, written=10))
    with store.operator() as connection:
        earlier = {"started_at": syncs.c.started_at - started}
        connection.execute(sa.update(syncs).where(syncs.c.sync_id == sync_id).values(earlier))
    if status is not None:
        ledger.set_object(
            store, sync_id, "customers", status="succeeded" if status == "succeeded" else "failed", rows=7
        )
        ledger.finish_sync(store, sync_id, status, error)


def vitals(store: Store) -> Vitals:
    [found] = read_vitals(store)
    return found


def test_syncs_add_up_by_the_hour_and_each_counts_once(store: Store, integration: IntegrationConfiguration) -> None:
    synced(store, integration, "one", "succeeded", Counts(read=100, written=60, stale=30, rejected=10))
    synced(store, integration, "two", "partial", Counts(read=50, written=50), error="failed: invoices")
    synced(store, integration, "three", "failed", Counts(), error="503")
    ledger.finish_sync(store, "three", "succeeded")  # it is closed already
    [day] = take_picture(store).last_day
    assert (day.read, day.written, day.rejected, day.succeeded, day.failed) == (150, 110, 10, 1, 2)
    assert [*take_picture(store).days] == [day]
    found = vitals(store)
    assert (found.recent.succeeded, found.recent.partial, found.recent.failed) == (1, 1, 1)
    assert found.latest is not None
    assert (found.latest.status, found.latest.error) == ("failed", "503")
    assert found.good_at is not None
    assert found.failing_since is not None
    assert found.good_at == found.failing_since, "what was partial brought something, and did not succeed"


def test_a_killed_sync_counts_as_failed_when_it_is_found(store: Store, integration: IntegrationConfiguration) -> None:
    synced(store, integration, "killed", None)
    [running] = take_picture(store).running
    assert (running.integration_id, running.read) == ("acme-stripe", 10)
    with store.operator() as connection:
        silent = {"heartbeat_at": sa.func.clock_timestamp() - timedelta(minutes=5)}
        connection.execute(sa.update(syncs).values(silent))
    assert not take_picture(store).running
    latest = vitals(store).latest
    assert latest is not None
    assert latest.status == "failed"
    assert recent_syncs(store, "acme-stripe")[0].status == "failed"
    synced(store, integration, "next", "succeeded")
    [day] = take_picture(store).last_day
    assert (day.succeeded, day.failed, day.read) == (1, 1, 20)


def test_what_was_synced_before_the_roll_up_existed_counts_too(
    store: Store, integration: IntegrationConfiguration
) -> None:
    synced(store, integration, "old", "succeeded", Counts(read=5))
    synced(store, integration, "old-too", "failed", Counts(read=1))
    before = take_picture(store).last_day
    migration = runpy.run_path(str(MIGRATIONS / "versions" / "from_0001" / "0007_monitoring.py"))["SYNC_HOURS"]
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("DROP TABLE ingest.sync_hours")
        connection.execute("DROP INDEX ingest.syncs_running")
        connection.execute("ALTER TABLE ingest.sync_objects DROP COLUMN rows")
        connection.execute(migration)
        connection.execute("GRANT SELECT ON ingest.sync_hours TO churnguard_operator")
    assert take_picture(store).last_day == before


def test_what_waits_is_counted_with_its_age(store: Store, integration: IntegrationConfiguration) -> None:
    with Warehouse(store).transaction("acme") as transaction:
        misfits = [Rejected(f"c_{number}", "no email", {"id": number}) for number in range(3)]
        transaction.reject(LANE, "customers", misfits, None)
    with store.organization("acme") as connection:
        record_drift(connection, LANE, "customers", [Drift("email", "type_mismatch", "text in an integer", ())])
        record_drift(connection, LANE, "customers", [Drift("nickname", "new_field", "text", ())])
    inbox.keep_partitions(store)
    with store.operator() as connection:
        connection.exec_driver_sql(
            inbox.TAKE, tuple([value] for value in ("acme", "stripe", "acme-stripe", "e", "evt_1", "t", "cus_1", "{}"))
        )
    found = vitals(store)
    assert found.rejected is not None
    assert found.webhooks is not None
    assert (found.rejected.count, found.webhooks.count) == (3, 1)
    assert list(found.misfits) == ["customers.email"]


def test_webhook_events_count_by_outcome(store: Store, integration: IntegrationConfiguration) -> None:
    outcomes = [("acme", "e1", "accepted", 40), ("acme", "e2", "accepted", 2), ("acme", "e1", "rejected", 1)]
    inbox.count(store, [*outcomes, ("acme", "e1", "duplicate", 5)])
    [day] = take_picture(store).last_day
    assert (day.events, day.events_rejected) == (42, 1)


def test_the_breaker_and_expiring_credentials_are_seen(store: Store, organization: object) -> None:
    credentials = {
        "credential_type": "oauth2", "access_token": "canary", "custom_fields": {"token_expires_at": "1.0"},
    }  # fmt: skip
    add_integration(
        store, configuration(credentials=IntegrationCredentials.model_validate(credentials)), actor="test"
    )  # fmt: skip
    Breaker(store, "acme", "acme-stripe").failure(AuthenticationFailed("the key is refused.", remedy="Give another."))
    found = vitals(store)
    assert (found.breaker.state, found.breaker.reason) == ("open", "the key is refused.")
    assert found.credentials_end is not None
    assert found.credentials_end.year == 1970


def test_one_unreadable_secret_hides_nothing_of_the_others(store: Store, integration: IntegrationConfiguration) -> None:
    other = Store.open(settings_for(store.settings.home, store.database_url, Fernet.generate_key().decode()))
    add_integration(other, configuration("globex-stripe"), actor="test")
    other.close()
    readable, unreadable = read_vitals(store)
    assert readable.unreadable is None
    assert unreadable.unreadable is not None


def test_objects_keep_their_numbers_and_their_freshness(store: Store, integration: IntegrationConfiguration) -> None:
    synced(store, integration, "one", "succeeded", Counts(read=9, written=7), started=timedelta(hours=1))
    synced(store, integration, "two", "failed", Counts(read=1), error="503")
    [item] = objects_of(store, "acme-stripe")
    assert (item.name, item.status, item.read, item.rows) == ("customers", "failed", 1, 7)
    assert item.fresh_at is not None
    newest, first = recent_syncs(store, "acme-stripe")
    assert (newest.sync_id, newest.error, first.written) == ("two", "503", 7)
    assert item.fresh_at == first.started_at


@pytest.mark.parametrize(("interval", "seen"), [(3600, 0), (0, 1)])
def test_a_picture_is_good_for_its_interval(
    store: Store, integration: IntegrationConfiguration, interval: int, seen: int
) -> None:
    monitor = Monitor(store, interval)
    assert not monitor.picture().last_day
    synced(store, integration, "one", "succeeded")
    assert len(monitor.picture().last_day) == seen


def test_days_that_are_over_are_summed_up_once(store: Store, integration: IntegrationConfiguration) -> None:
    def days_ago(sync_id: str, days: int) -> None:
        synced(store, integration, sync_id, "succeeded")
        with psycopg.connect(as_administrator(store.database_url), autocommit=True) as administrator:
            today = "hour > now() - interval '1 day'"
            administrator.execute(f"UPDATE ingest.sync_hours SET hour = hour - interval '{days} days' WHERE {today}")

    days_ago("before", 3)
    first = take_picture(store)
    days_ago("nobody could be late so much", 5)
    synced(store, integration, "now", "succeeded")
    second = take_picture(store, first)
    assert [(each.as_of.date() - day.day).days for each in (first, second) for day in each.days] == [3, 3, 0]
    assert len(take_picture(store).days) == 3


class Dial:
    """A clock that stands where it is set."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_numbers_are_kept_fresh_though_nobody_asks(store: Store, integration: IntegrationConfiguration) -> None:
    monitor = Monitor(store, 0.05, monotonic=Dial())  # by whose clock a picture that is asked for is never old
    with monitor.kept_fresh() as first:
        assert monitor.picture().as_of >= first.result().as_of
        synced(store, integration, "one", "succeeded")
        wait_for(lambda: len(monitor.picture().last_day) == 1)


def test_who_asks_while_the_next_picture_is_taken_gets_the_last_until_that_is_too_old(
    store: Store, integration: IntegrationConfiguration
) -> None:
    clock = Dial()
    monitor = Monitor(store, 60, monotonic=clock)
    first = monitor.picture()
    synced(store, integration, "one", "succeeded")
    administrator = as_administrator(store.database_url)
    with (
        ThreadPoolExecutor(1) as somebody,
        psycopg.connect(administrator, autocommit=True) as looking,
        psycopg.connect(administrator) as holding,
    ):
        holding.execute("LOCK TABLE ingest.sync_hours")
        clock.seconds = 119
        assert monitor.picture() is first
        assert monitor.picture() is first
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_for(lambda: looking.execute(waits).fetchone() == (1,))
        clock.seconds = 120
        waiting = somebody.submit(monitor.picture)
        assert looking.execute(waits).fetchone() == (1,), "one is taken at a time"
        holding.rollback()
        assert len(waiting.result().last_day) == 1
    assert monitor.picture() is waiting.result()


def test_a_picture_that_cannot_be_taken_anew_is_not_shown_any_longer(
    store: Store, integration: IntegrationConfiguration
) -> None:
    clock = Dial()
    monitor = Monitor(store, 60, monotonic=clock)
    first = monitor.picture()
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as administrator:
        administrator.execute("ALTER TABLE ingest.sync_hours RENAME TO gone")
        clock.seconds = 60
        assert monitor.picture() is first

        def learns_why() -> bool:
            with suppress(ProgrammingError):
                return monitor.picture() is not first
            return True

        wait_for(learns_why)
        administrator.execute("ALTER TABLE ingest.gone RENAME TO sync_hours")
        assert monitor.picture() is not first
