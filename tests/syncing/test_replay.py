"""Rejected records and events once more, while others reject and store what they are about."""

from __future__ import annotations

import psycopg

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.records import Lane, Rejected
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.sync import replay_rejected
from tests.blocked import wait_until_blocked
from tests.conftest import as_administrator
from tests.connectors.conftest import live
from tests.connectors.standin import StandIn
from tests.syncing.test_webhooks import customer, deliver, drain, event, stripe
from tests.waiting import wait_for

__all__ = ["stripe"]

LANE = Lane("acme", "acme-stripe", "customers")


def reject(store: Store, name: str) -> None:
    """As a lane does that finds something wrong with the customer."""
    with Warehouse(store).transaction("acme") as transaction:
        transaction.reject(LANE, "customers", [Rejected("cus_1", "it does not fit", customer(name=name))], None)


def test_a_record_that_is_rejected_while_it_is_replayed_waits_on(store: Store, stripe: StandIn) -> None:
    """It says something else by now, which would be lost."""
    deliver(store, [event(1, customer(name="before"))])
    drain(store)
    reject(store, "first")
    with psycopg.connect(as_administrator(store.database_url)) as other:
        other.execute("SELECT FROM raw.stripe_customers FOR UPDATE")
        replaying = in_thread("replay", lambda: replay_rejected(store, "acme-stripe"))
        wait_until_blocked(store)
        reject(store, "second")
    replaying.result(20)
    assert live(store, "customers")["cus_1"]["name"] == "first"
    assert [each.payload["name"] for each in list_rejected(store, "acme-stripe")] == ["second"]
    replay_rejected(store, "acme-stripe")
    assert live(store, "customers")["cus_1"]["name"] == "second"
    assert list_rejected(store, "acme-stripe") == []


def test_a_record_is_as_new_as_its_last_rejection(store: Store, stripe: StandIn) -> None:
    """What was stored between two of them is older than what the second one says."""
    reject(store, "first")
    between = int(store.now().timestamp()) + 1
    deliver(store, [event(1, customer(name="between"), at=between)])
    drain(store)
    wait_for(lambda: store.now().timestamp() >= between)
    reject(store, "second")
    replay_rejected(store, "acme-stripe")
    assert live(store, "customers")["cus_1"]["name"] == "second"


def rejected_event(store: Store, stripe: StandIn) -> None:
    stripe.says["/v1/customers/cus_1"] = [(400, {"error": {"message": "We do not like it."}})]
    deliver(store, [event(1, customer(), version="2020-08-27")])
    assert drain(store).outcomes == {("we_1", "rejected"): 1}


def test_an_event_that_is_rejected_again_while_the_replay_ends_waits_on(store: Store, stripe: StandIn) -> None:
    rejected_event(store, stripe)
    with psycopg.connect(as_administrator(store.database_url)) as other:
        other.execute("LOCK TABLE control.audit_log IN SHARE MODE")  # which is written when they are in the inbox again
        replaying = in_thread("replay", lambda: replay_rejected(store, "acme-stripe"))
        wait_until_blocked(store)
        assert drain(store).outcomes == {("we_1", "rejected"): 1}
    replaying.result(20)
    (waiting,) = list_rejected(store, "acme-stripe")
    assert "We do not like it." in waiting.reason


def test_an_event_that_is_not_kept_any_more_waits_on(store: Store, stripe: StandIn) -> None:
    rejected_event(store, stripe)
    with store.operator() as connection:
        connection.exec_driver_sql("DELETE FROM ingest.webhook_inbox")
    replay_rejected(store, "acme-stripe")
    assert [each.key for each in list_rejected(store, "acme-stripe")] == ["evt_00001"]


def test_a_replay_that_waits_for_its_organization_holds_up_no_other(store: Store, stripe: StandIn) -> None:
    rejected_event(store, stripe)
    with psycopg.connect(as_administrator(store.database_url)) as other:
        other.execute("SELECT FROM ingest.rejected_records FOR UPDATE")
        replaying = in_thread("replay", lambda: replay_rejected(store, "acme-stripe"))
        wait_until_blocked(store)
        other.execute("SELECT FROM ingest.inbox_slots FOR UPDATE NOWAIT")
    replaying.result(20)
    assert drain(store).outcomes == {("we_1", "rejected"): 1}
