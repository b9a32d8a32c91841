"""A provider's bad day: one clear message for what failed, and everything else goes on."""

from __future__ import annotations

import threading

import pytest

from churnguard_pipelines.errors import AuthenticationFailed, CircuitOpen
from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection, replay_rejected
from tests.connectors.conftest import Register, live, statuses, sync

OTHERS = ("products", "prices")


def failure(report: SyncReport, name: str = "customers") -> str:
    """The failed object's message, after checking that nothing else was harmed."""
    assert report.status == "partial"
    assert {key for key, status in statuses(report).items() if status != "succeeded"} == {name}
    assert report.objects[name].error
    return str(report.objects[name].error)


def test_a_refused_key_stops_everything_until_a_person_acts(store: Store, world: Sandbox, register: Register) -> None:
    register(world, "rk_sandbox_nobody")
    report = sync(store)
    assert report.status == "failed"
    assert "refused the credentials" in str(report.error)
    assert "rk_sandbox_nobody" not in str(report.error)
    assert get_integration(store, "acme-stripe").status == IntegrationStatus.AUTHENTICATION_FAILED
    asked = world.requests
    with pytest.raises(CircuitOpen, match="refused the credentials"):
        sync(store)
    assert world.requests == asked
    register(world)  # new credentials close the circuit
    assert sync(store, *OTHERS).status == "succeeded"
    assert get_integration(store, "acme-stripe").status == IntegrationStatus.ACTIVE


def test_a_revoked_key_is_noticed_in_the_middle(store: Store, sandbox: Sandbox, register: Register) -> None:
    register(sandbox)
    sandbox.fault("revoke", key="rk_sandbox_acme", skip=6)
    report = sync(store)
    assert "refused the credentials" in str(report.error)
    assert report.status == "partial"  # what had been read is kept


def test_a_missing_permission_is_said_and_the_rest_is_synced(store: Store, world: Sandbox, register: Register) -> None:
    register(world, "rk_sandbox_acme_no_payouts")
    report = sync(store)
    assert report.status == "partial"
    failed = {name: item.error for name, item in report.objects.items() if item.status == "failed"}
    assert failed.keys() == {"payouts", "balance_transactions"}
    assert all("may not" in str(error) and "Grant it at the provider" in str(error) for error in failed.values())
    assert live(store, "customers")


def test_a_connection_test_says_what_the_key_may_read(store: Store, world: Sandbox, register: Register) -> None:
    register(world, "rk_sandbox_acme_no_payouts")
    report = check_connection(store, "acme-stripe")
    assert report.identity == world.account("acme").id
    assert {item.object for item in report.objects if not item.readable} == {"payouts", "balance_transactions"}
    assert not report.complete
    register(world, "rk_sandbox_nobody")
    with pytest.raises(AuthenticationFailed):
        check_connection(store, "acme-stripe")


@pytest.mark.parametrize(
    ("kind", "details", "words"),
    [
        ("status", {"status": 500}, "is in trouble (500"),
        ("html", {}, "text/html instead of JSON, beginning “Bad gateway”"),
        ("cut", {}, "cannot be reached"),
        ("has_more_lie", {"mode": "empty"}, "says there is more but sends an empty page"),
        ("has_more_lie", {"mode": "repeat"}, "it was not followed further"),
    ],
)
def test_one_object_that_cannot_be_read_does_not_stop_the_others(
    store: Store, sandbox: Sandbox, register: Register, kind: str, details: dict[str, object], words: str
) -> None:
    register(sandbox)
    sandbox.fault(kind, path="/v1/customers", **details)
    assert words in failure(sync(store, "customers", *OTHERS))
    sandbox.clear_faults()
    assert sync(store, "customers").status == "succeeded"
    assert live(store, "customers").keys() == {each["id"] for each in sandbox.account("acme").objects("customers")}


@pytest.mark.parametrize("kind", ["status", "html", "cut"])
def test_a_passing_fault_is_waited_out(store: Store, sandbox: Sandbox, register: Register, kind: str) -> None:
    register(sandbox)
    sandbox.fault(kind, path="/v1/customers", times=2)
    assert sync(store, "customers").status == "succeeded"


def test_a_rate_limit_is_obeyed(store: Store, sandbox: Sandbox, register: Register) -> None:
    register(sandbox)
    sandbox.fault("status", path="/v1/customers", status=429, retry_after=0, times=2)
    assert sync(store, "customers").status == "succeeded"


def test_a_record_that_does_not_fit_is_kept_aside_and_can_be_replayed(
    store: Store, sandbox: Sandbox, register: Register
) -> None:
    register(sandbox)
    sandbox.fault("bad_record", path="/v1/products", field="updated", value="soon", record=1)
    report = sync(store, "products")
    assert report.status == "succeeded"
    assert report.objects["products"].counts.rejected == 1
    (kept,) = list_rejected(store, "acme-stripe")
    assert "updated" in kept.reason
    assert kept.payload["updated"] == "soon"
    products = {each["id"] for each in sandbox.account("acme").objects("products")}
    assert live(store, "products").keys() == products - {kept.key}
    assert replay_rejected(store, "acme-stripe").rejected == 1  # as it is, it still does not fit
    sandbox.clear_faults()
    sync(store, "products")
    assert live(store, "products").keys() >= products - {kept.key}


def test_two_syncs_at_once_leave_right_data_and_one_says_why_it_stopped(
    store: Store, sandbox: Sandbox, register: Register
) -> None:
    register(sandbox)
    together = threading.Barrier(2)
    reports: list[SyncReport] = []

    def run(name: str) -> None:
        together.wait()
        reports.append(sync(store, "charges", "invoices", sync_id=name))

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [item.error for report in reports for item in report.objects.values() if item.error]
    assert all("another run has moved the lane" in error for error in errors)
    for name in ("charges", "invoices"):
        sync(store, name)
        assert live(store, name).keys() == {each["id"] for each in sandbox.account("acme").objects(name)}
