"""Webhook events become rows: in any order, however often they come, and one that is poison stands alone."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import sql

from churnguard_pipelines.connectors.stripe import Stripe
from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import ProviderUnavailable
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest import inbox, sessions
from churnguard_pipelines.store.ingest.inbox_order import Settled
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.sync import replay_rejected
from churnguard_pipelines.syncing.webhook_lane import BATCH, Drained, InboxLane
from churnguard_pipelines.syncing.webhooks import WEBHOOKS, Inboxes
from tests.blocked import wait_until_blocked
from tests.conftest import as_administrator
from tests.connectors.conftest import Register, live, rows
from tests.connectors.standin import StandIn, stand_in
from tests.connectors.stripe.test_contract import CONTRACTS, contract
from tests.waiting import wait_for
from webhook_gateway.schemes import scheme
from webhook_gateway.schemes.sdk import Delivery

VERSION = "2026-05-27.dahlia"
SECOND = 1_790_000_000
Event = dict[str, Any]


@pytest.fixture
def stripe(store: Store, register: Register) -> Iterator[StandIn]:
    Warehouse(store).ensure(Stripe.table("customers"))
    with stand_in() as provider:
        provider.now = SECOND + 86_400
        register(provider, concurrent_requests=1)
        yield provider


def customer(id: str = "cus_1", **fields: Any) -> dict[str, Any]:
    return {"id": id, "object": "customer", "created": SECOND - 86_400, **fields}


def event(
    number: int, record: dict[str, Any], *, kind: str = "customer.updated", at: int = SECOND, version: str = VERSION
) -> Event:
    return {
        "id": f"evt_{number:05}", "object": "event", "type": kind, "created": at, "api_version": version,
        "data": {"object": record},
    }  # fmt: skip


def deliver(
    store: Store, events: Sequence[Event], integration_id: str = "acme-stripe", payload: str | None = None
) -> None:
    """Put them into the inbox as the gateway does."""
    columns = [
        [("acme", "stripe", integration_id, "we_1", each["id"], each["type"], "", payload or json.dumps(each))[place]
         for each in events]
        for place in range(8)
    ]  # fmt: skip
    with store.operator() as connection:
        connection.exec_driver_sql(inbox.TAKE, tuple(columns))


def drain(store: Store) -> Drained:
    total = Drained()
    with InboxLane(store, Warehouse(store), Settled(store), "acme-stripe") as lane:
        for drained in lane.drain(lambda: True):
            total.outcomes.update(drained.outcomes)
    return total


def test_events_become_rows(store: Store, stripe: StandIn) -> None:
    deliver(store, [event(1, customer(name="Ada")), event(2, customer("cus_2", name="Bob"), kind="customer.created")])
    assert drain(store).outcomes == {("we_1", "stored"): 2}
    assert {key: row["name"] for key, row in live(store, "customers").items()} == {"cus_1": "Ada", "cus_2": "Bob"}
    assert drain(store).events == 0
    assert stripe.asked == [], "what an event tells in full is not asked for"


def test_whole_numbers_of_any_length_arrive_exactly(store: Store, stripe: StandIn) -> None:
    long, longer = 123456789012345678901234567890, "9" * 4001
    told = event(1, customer(name=long, metadata={"big": -long}, counter=long))
    body = json.dumps(told).replace(f'"counter": {long}', f'"counter": {long}, "longer": {longer}').encode()
    (accepted,) = scheme("stripe").events(Delivery("POST", "", {}, body, 0.0))
    deliver(store, [told], payload=accepted.payload)
    assert drain(store).outcomes == {("we_1", "stored"): 1}
    with store.operator() as connection:
        written = connection.exec_driver_sql(
            "SELECT name, metadata ->> 'big', extra ->> 'counter', extra ->> 'longer' FROM raw.stripe_customers"
        ).one()
    assert tuple(written) == (str(long), str(-long), str(long), longer)


def test_a_whole_number_too_long_for_its_column_is_kept_with_every_digit(store: Store, stripe: StandIn) -> None:
    long = 123456789012345678901234567890
    deliver(store, [event(1, customer(balance=long))])
    drain(store)
    (rejected,) = list_rejected(store, "acme-stripe")
    assert rejected.reason == "balance: a whole number beyond 64 bits"
    assert rejected.payload["balance"] == long


def test_in_any_order_the_newest_state_stands(store: Store, stripe: StandIn) -> None:
    told = [event(n, customer(name=f"name {n}"), at=SECOND + n) for n in range(60)]
    random.Random(7).shuffle(told)
    for start in range(0, 60, 7):
        deliver(store, told[start : start + 7])
        drain(store)
    assert live(store, "customers")["cus_1"]["name"] == "name 59"


@pytest.mark.parametrize("together", [True, False])
def test_of_two_states_within_a_second_the_provider_tells_which_is_newer(
    store: Store, stripe: StandIn, together: bool
) -> None:
    stripe.says["/v1/customers/cus_1"] = [customer(name="as it is")]
    first, second = event(1, customer(name="one")), event(2, customer(name="other"))
    for part in [[first, second]] if together else [[second], [first]]:
        deliver(store, part)
        drain(store)
    assert live(store, "customers")["cus_1"]["name"] == "as it is"


def test_a_deleted_record_stays_deleted_when_its_update_comes_late(store: Store, stripe: StandIn) -> None:
    deliver(store, [event(2, customer(), kind="customer.deleted", at=SECOND + 5)])
    drain(store)
    deliver(store, [event(1, customer(name="Ada"), at=SECOND)])
    drain(store)
    (row,) = rows(store, "customers")
    assert row["delete_kind"] == "hard"


def test_an_event_of_another_version_or_with_something_folded_is_asked_for(store: Store, stripe: StandIn) -> None:
    stripe.says["/v1/customers/cus_1"] = [customer(name="pinned way")]
    stripe.says["/v1/subscriptions/sub_1"] = [subscription(discounts=[{"id": "di_1"}])]
    deliver(
        store,
        [
            event(1, customer(name="old way"), version="2020-08-27"),
            event(2, subscription(discounts=["di_1"]), kind="customer.subscription.updated"),
        ],
    )
    drain(store)
    assert live(store, "customers")["cus_1"]["name"] == "pinned way"
    assert live(store, "subscriptions")["sub_1"]["discounts"] == [{"id": "di_1"}]


def subscription(**fields: Any) -> dict[str, Any]:
    items = {"object": "list", "data": [], "has_more": False}
    return {"id": "sub_1", "object": "subscription", "created": SECOND, "status": "active", "items": items, **fields}


def test_what_changes_nothing_that_we_keep_is_ignored_and_counted(store: Store, stripe: StandIn) -> None:
    deliver(store, [event(1, {"id": "seti_1", "object": "setup_intent"}, kind="setup_intent.created")])
    assert drain(store).outcomes == {("we_1", "ignored"): 1}


def published_events() -> list[Event]:
    contract("webhook-events/customer.updated.json")  # says what is missing if they are not there
    return [json.loads(path.read_text()) for path in sorted((CONTRACTS / "stripe/webhook-events").glob("*.json"))]


def test_every_event_that_stripe_publishes_is_handled_or_ignored_on_purpose() -> None:
    published = published_events()
    assert len(published) == 88
    handled = {event["type"] for event in published if Stripe.object_of(event)}
    assert {event["type"] for event in published} - handled - Stripe.ignored_events == set()
    assert not handled & Stripe.ignored_events


def test_published_events_are_stored_but_those_that_do_not_say_of_what_they_tell(store: Store, stripe: StandIn) -> None:
    """Of an older API version: each object is asked for, and here Stripe answers with what the event had."""
    nameless = {"charge.dispute.closed", "charge.dispute.updated"}  # as published: without the dispute's id
    told = [each | {"id": f"evt_{number}"} for number, each in enumerate(published_events())]
    for each in told:
        name = Stripe.object_of(each)
        record = each["data"]["object"]
        if name is not None and "id" in record:
            (item,) = (item for item in Stripe.objects if item.name == name)
            stripe.says[f"{item.path}/{record['id']}"] = [record]
    deliver(store, told)
    outcomes = drain(store).outcomes
    assert outcomes["we_1", "unknown"] == 0
    assert {each.payload["type"] for each in list_rejected(store, "acme-stripe")} == nameless


def test_a_poison_event_is_rejected_alone_and_can_be_replayed(store: Store, stripe: StandIn) -> None:
    healthy = [event(n, customer(f"cus_{n}", name="fine"), at=SECOND + n) for n in range(100)]
    poison = event(500, customer("cus_poison"), version="2020-08-27")
    stripe.says["/v1/customers/cus_poison"] = [(400, {"error": {"message": "We do not like it."}})]
    deliver(store, [*healthy[:37], poison, *healthy[37:]])
    assert drain(store).outcomes == {("we_1", "stored"): 100, ("we_1", "rejected"): 1}
    assert len(live(store, "customers")) == 100
    (rejected,) = list_rejected(store, "acme-stripe")
    assert (rejected.object, rejected.key) == ("webhooks", "evt_00500")
    assert "We do not like it." in rejected.reason

    stripe.says["/v1/customers/cus_poison"] = [customer("cus_poison", name="cured")]
    replay_rejected(store, "acme-stripe")
    drain(store)
    assert live(store, "customers")["cus_poison"]["name"] == "cured"
    assert list_rejected(store, "acme-stripe") == []


def test_events_wait_in_order_while_the_provider_is_away(store: Store, stripe: StandIn) -> None:
    stripe.says["/v1/customers/cus_1"] = [(500, {}), (500, {}), (500, {}), customer(name="back")]
    deliver(store, [event(1, customer(name="old way"), version="2020-08-27"), event(2, customer("cus_2"))])
    with pytest.raises(ProviderUnavailable):
        drain(store)
    assert inbox.waiting(store)[0].events == 2
    drain(store)
    assert live(store, "customers").keys() == {"cus_1", "cus_2"}
    assert inbox.waiting(store) == []


def test_events_wait_while_another_transaction_keeps_their_rows(store: Store, stripe: StandIn) -> None:
    """However often it is tried, nothing is wrong with the event."""
    deliver(store, [event(1, customer(name="old"))])
    drain(store)
    with psycopg.connect(as_administrator(store.database_url)) as other:
        name = sql.Identifier(other.info.dbname)
        other.execute(sql.SQL("ALTER DATABASE {} SET lock_timeout = '50ms'").format(name))
        other.commit()
        store.close()  # the connections that it opens from here on have that
        other.execute("UPDATE raw.stripe_customers SET extra = NULL")
        deliver(store, [event(2, customer(name="new"), at=SECOND + 1)])
        with pytest.raises(psycopg.errors.LockNotAvailable):
            drain(store)
    assert drain(store).outcomes == {("we_1", "stored"): 1}
    assert live(store, "customers")["cus_1"]["name"] == "new"


def test_events_chosen_to_break_a_circle_of_writers_are_stored_once_more(store: Store, stripe: StandIn) -> None:
    """A sync of the same records may hold some of them while it wants others."""
    deliver(store, [event(number, customer(f"cus_{number}")) for number in (1, 2, 3)])
    drain(store)
    gone = [event(10 + number, customer(f"cus_{number}"), kind="customer.deleted", at=SECOND + 1) for number in (2, 3)]
    deliver(store, [event(11, customer(name="new"), at=SECOND + 1), *gone])
    take, administrator = (
        "UPDATE raw.stripe_customers SET extra = NULL WHERE id = %s",
        as_administrator(store.database_url),
    )
    with psycopg.connect(administrator) as first, psycopg.connect(administrator) as second:
        second.execute("SET deadlock_timeout = '1min'")  # it is the lane that looks for a circle first
        first.execute(take, ["cus_2"])
        second.execute(take, ["cus_3"])
        draining = in_thread("drain", lambda: drain(store))
        wait_until_blocked(store)
        taking = in_thread("second", lambda: second.execute(take, ["cus_1"]))
        wait_until_blocked(store, 2)
        first.commit()
        taking.result(20)
    assert draining.result(20).outcomes == {("we_1", "stored"): 3}
    assert {key: row["name"] for key, row in live(store, "customers").items()} == {"cus_1": "new"}


def test_replaying_changes_nothing_and_is_on_record(store: Store, stripe: StandIn) -> None:
    deliver(store, [event(n, customer(name=f"name {n}"), at=SECOND + n) for n in range(10)])
    drain(store)
    before = rows(store, "customers")
    integration = get_integration(store, "acme-stripe")
    assert inbox.replay(store, integration, actor="test", event_ids=["evt_00003", "evt_00004"]) == 2
    assert inbox.replay(store, integration, actor="test", event_types=["customer.updated"]) == 10
    assert drain(store).events == 12
    assert [row | {"synced_at": None} for row in rows(store, "customers")] == [
        row | {"synced_at": None} for row in before
    ]
    with store.operator() as connection:
        noted = connection.exec_driver_sql("SELECT detail FROM control.audit_log WHERE action = 'webhooks.replay'")
        assert [row.detail["events"] for row in noted] == [2, 10]


def test_two_sessions_at_once_do_each_event_s_work_once(store: Store, stripe: StandIn) -> None:
    total = 4 * BATCH
    deliver(store, [event(n, customer(f"cus_{n % 50}", name=f"{n}"), at=SECOND + n) for n in range(total)])
    both = [Session(store, name, Inboxes(store), linger=2) for name in ("one", "two")]
    threads = [threading.Thread(target=session.run) for session in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.operator() as connection:
        counted = connection.exec_driver_sql("SELECT sum(events) FROM ingest.webhook_counts WHERE outcome = 'stored'")
        assert counted.scalar_one() == total
    assert len(live(store, "customers")) == 50
    assert {int(row["name"]) for row in live(store, "customers").values()} == set(range(total - 50, total))


def test_a_session_is_seen_while_it_works_and_wakes_at_once(store: Store, stripe: StandIn) -> None:
    session = Session(store, "session", Inboxes(store), linger=30)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        wait_for(lambda: "session" in sessions.ages(store, WEBHOOKS))
        for number in range(5):
            deliver(store, [event(number, customer(f"cus_{number}"))])
            wait_for(lambda number=number: f"cus_{number}" in live(store, "customers"))  # type: ignore[misc]
    finally:
        session.stop()
        thread.join()
    assert sessions.ages(store, WEBHOOKS) == {}


def test_one_integration_that_cannot_be_worked_off_does_not_keep_the_others(store: Store, stripe: StandIn) -> None:
    with store.operator() as connection:
        connection.exec_driver_sql(
            "INSERT INTO control.integrations SELECT 'sick', organization_id, provider, config, 'not sealed', status "
            "FROM control.integrations WHERE integration_id = 'acme-stripe'"
        )
    deliver(store, [event(1, customer("cus_1"))], "sick")
    deliver(store, [event(2, customer("cus_2"))])
    session = Session(store, "session", Inboxes(store), linger=30)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        wait_for(lambda: [item.lane.integration_id for item in inbox.waiting(store)] == ["sick"])
    finally:
        session.stop()
        thread.join()
