"""The objects of one integration are read beside each other, two for each of its connections, and each for itself."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.engine.fair_threads import FairThreads
from churnguard_pipelines.errors import AuthenticationFailed, CircuitOpen
from churnguard_pipelines.model import IntegrationStatus, Organization
from churnguard_pipelines.monitoring.vitals import read_vitals
from churnguard_pipelines.records import Batch
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing import sync
from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.toy import Account, Toy, accounts

NAMES = ["one", "two", "three", "four"]


class Meeting(Toy):
    """Its objects wait for each other: ``together`` of them, or until somebody says that they end."""

    together: threading.Barrier
    inside = most = 0
    lock = threading.Lock()

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        with self.lock:
            Meeting.inside += 1
            Meeting.most = max(Meeting.most, Meeting.inside)
        try:
            self.together.wait(20)
            if item.name in ("three", "four"):
                raise ValueError(item.name)
            yield from super().read(item, reading)
        finally:
            with self.lock:
                Meeting.inside -= 1


class Endless(Toy):
    """Its objects wait for their provider. ``begun``: one permit for each that does."""

    begun: threading.Semaphore

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        yield from super().read(item, reading)
        self.begun.release()
        self.http.wait(600)


class Refused(Toy):
    """One object's call is refused; another one is not even made, since that opened the circuit, and is told first."""

    told: threading.Event

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        if item.name == "one":
            raise CircuitOpen("skipped without a call", integration_id="acme-crm", retry_at=None, remedy="")
        assert self.told.wait(20)
        yield from ()
        raise AuthenticationFailed("the key was revoked")


@pytest.fixture
def account(
    store: Store, organization: Organization, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Account]:
    with accounts(store, monkeypatch, request.param) as opened:
        made = opened()
        made.adds_objects(*NAMES)
        for name in NAMES:
            made.holds(name, {"id": name})
        yield made


@pytest.mark.parametrize("account", [Meeting], indirect=True, ids=["meeting"])
def test_while_one_is_stored_another_has_the_connection_and_an_error_is_one_object_s(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meeting, "together", threading.Barrier(4), raising=False)
    monkeypatch.setattr(Meeting, "most", 0)
    account.configure(concurrent_requests=2)
    report = account.sync(*NAMES)
    assert Meeting.most == 2 * 2
    assert [report.objects[name].status for name in NAMES] == ["succeeded", "succeeded", "failed", "failed"]
    assert [report.objects[name].counts.written for name in NAMES] == [1, 1, 0, 0]


@pytest.mark.parametrize("account", [Toy], indirect=True, ids=["toy"])
def test_where_all_threads_are_taken_the_sync_s_own_reads_all(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, release = FairThreads("object", most=1, most_each=1), threading.Event()
    taken.submit("globex", release.wait)
    monkeypatch.setattr(sync, "_HELPERS", taken)
    report = account.sync(*NAMES)
    release.set()
    assert [report.objects[name].status for name in NAMES] == ["succeeded"] * 4


@pytest.mark.parametrize("account", [Endless], indirect=True, ids=["endless"])
def test_a_sync_that_is_told_to_end_is_cancelled_with_all_its_objects_and_counts_as_no_failure(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Endless, "begun", threading.Semaphore(0), raising=False)
    account.configure(concurrent_requests=1)
    cancelled, reports = threading.Event(), list[SyncReport]()
    work: dict[str, Any] = {"sync_id": "told-to-end", "objects": NAMES, "cancelled": cancelled}
    thread = threading.Thread(target=lambda: reports.append(sync_integration(store, "acme-crm", **work)))
    thread.start()
    for _ in range(2):
        assert Endless.begun.acquire(timeout=20)
    cancelled.set()
    thread.join(20)
    [report] = reports
    assert report.status == "cancelled"
    assert sorted(item.status for item in report.objects.values()) == ["cancelled"] * 2 + ["pending"] * 2
    assert [item.counts.written for item in report.objects.values() if item.status == "cancelled"] == [1, 1]
    assert get_integration(store, "acme-crm").status == IntegrationStatus.ACTIVE
    [vitals] = read_vitals(store, "acme-crm")
    assert (vitals.recent.failed, vitals.recent.partial, vitals.failing_since) == (0, 0, None)


@pytest.mark.parametrize("account", [Toy], indirect=True, ids=["toy"])
def test_each_call_counts_for_its_object_and_what_was_asked_before_for_the_first(account: Account) -> None:
    account.configure(concurrent_requests=4)
    report = account.sync(*NAMES)
    before, own = 2, 2  # whose account it is and what it has; an object's fields and its records
    assert [report.objects[name].calls for name in NAMES] == [before + own, own, own, own]


@pytest.mark.parametrize("account", [Refused], indirect=True, ids=["refused"])
def test_refused_credentials_are_said_whatever_else_came_of_them_first(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    monkeypatch.setattr(Refused, "told", told, raising=False)
    account.configure(concurrent_requests=2)

    def tell(name: str, seconds: float) -> None:
        if name == "one":
            told.set()

    report = sync_integration(store, "acme-crm", sync_id="refused", objects=["one", "two"], on_object=tell)
    assert report.status == "failed"
    assert "the key was revoked" in str(report.error)
    assert get_integration(store, "acme-crm").status == IntegrationStatus.AUTHENTICATION_FAILED
