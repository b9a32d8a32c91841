"""Sessions of due syncs: each due integration is synced once, whoever else is broken, slow or at work."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest

from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.ingest import sessions
from churnguard_pipelines.store.ingest.due import due_integrations
from churnguard_pipelines.store.ingest.ledger import SyncReport, finish_sync, latest_sync, start_sync
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing import session as frame
from churnguard_pipelines.syncing.due import DueSyncs
from churnguard_pipelines.syncing.session import Session
from tests.conftest import configuration
from tests.connectors.standin import StandIn, stand_in
from tests.waiting import wait_for

QUICK = {"requests_per_minute": 60_000, "retry_attempts": 0, "objects": ["coupons"]}


@pytest.fixture
def stripe() -> Iterator[StandIn]:
    with stand_in() as provider:
        provider.says["/v1/account"] = [{"id": "acct_1", "object": "account"}]
        yield provider


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(frame, "END_WITHIN", 2.0)
    monkeypatch.setattr(DueSyncs, "linger", 0.5)


def due(store: Store, provider: StandIn, *names: str) -> list[IntegrationConfiguration]:
    """Integrations that were synced before and are due now."""
    made = [configuration(name, base_url=provider.url, sync_config=QUICK) for name in names]
    for each in made:
        add_integration(store, each, actor="test")
        start_sync(store, f"first-{each.integration_id}", each, "incremental", [])
        finish_sync(store, f"first-{each.integration_id}", "succeeded")
    make_due(store)
    return made


def make_due(store: Store) -> None:
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE control.integrations SET next_due_at = now() - interval '1 minute'")


def work(store: Store, session_id: str = "session") -> Counter[str]:
    """One session; returns how often it synced each integration."""
    synced: Counter[str] = Counter()

    def note(report: SyncReport) -> None:
        synced[report.integration_id] += 1

    Session(store, session_id, DueSyncs(store, session_id, "stripe", note)).run()
    return synced


def test_a_session_syncs_what_is_due_once_and_ends(store: Store, organization: Organization, stripe: StandIn) -> None:
    names = [f"stripe-{number}" for number in range(10)]
    due(store, stripe, *names)
    assert work(store) == dict.fromkeys(names, 1)
    for name in names:
        page = latest_sync(store, name)
        assert page is not None
        assert (page.trigger, page.status) == ("schedule", "succeeded")
    assert due_integrations(store, "stripe", store.now()) == []
    assert sessions.ages(store, "stripe_syncs") == {}
    assert work(store) == {}


def test_sessions_beside_each_other_do_nothing_twice(store: Store, organization: Organization, stripe: StandIn) -> None:
    names = [f"stripe-{number}" for number in range(30)]
    due(store, stripe, *names)
    synced: list[Counter[str]] = []
    threads = [
        threading.Thread(target=lambda name=name: synced.append(work(store, name))) for name in ("one", "two", "three")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(synced, Counter()) == Counter(names)


def test_one_that_fails_before_it_begins_is_on_record_comes_back_later_and_keeps_nobody_waiting(
    store: Store, organization: Organization, stripe: StandIn
) -> None:
    due(store, stripe, "good", "bad")
    with store.operator() as connection:
        connection.exec_driver_sql(
            "UPDATE control.integrations SET credentials_sealed = 'lost' WHERE integration_id = 'bad'"
        )
    assert work(store) == {"good": 1}
    page = latest_sync(store, "bad")
    assert page is not None
    assert (page.status, page.trigger) == ("failed", "schedule")
    assert "INTEGRATION_ENCRYPTION_KEY" in (page.error or "")
    assert due_integrations(store, "stripe", store.now()) == []
    soon = due_integrations(store, "stripe", store.now() + timedelta(seconds=61))
    assert [each.integration_id for each in soon] == ["bad"]


def test_a_session_that_is_told_to_end_stops_its_syncs(
    store: Store, organization: Organization, stripe: StandIn
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slowly(_: object) -> tuple[int, object]:
        asked.set()
        go_on.wait(30)
        return 503, {}

    stripe.says["/v1/account"] = [slowly]
    due(store, stripe, "slow")
    session = Session(store, "session", DueSyncs(store, "session", "stripe"))
    thread = threading.Thread(target=session.run)
    thread.start()
    assert asked.wait(30)
    session.stop()
    go_on.set()
    thread.join(30)
    assert not thread.is_alive()
    wait_for(lambda: (page := latest_sync(store, "slow")) is not None and page.status == "failed")


def test_a_first_sync_is_left_to_a_run_of_its_own(store: Store, organization: Organization, stripe: StandIn) -> None:
    add_integration(store, configuration("new", base_url=stripe.url, sync_config=QUICK), actor="test")
    assert work(store) == {}
