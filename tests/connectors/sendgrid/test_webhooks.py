"""The event webhook is the one complete source of what became of mail: each event a row, once, joined to its send."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.sendgrid import SendGrid
from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.ingest.inbox_order import Settled
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.webhook_lane import InboxLane
from tests.connectors.conftest import difference
from tests.connectors.sendgrid.conftest import INTEGRATION, NOW, OBJECTS, Row, live, sync
from tests.connectors.standin import StandIn
from webhook_gateway.schemes import scheme
from webhook_gateway.schemes.sdk import Delivery


def event(kind: str = "open", id: str | None = "e1", *, at: int = NOW, **told: Any) -> Row:
    own = {} if id is None else {"sg_event_id": id}
    return {"email": "ada@example.com", "timestamp": at, "event": kind, "sg_message_id": "m1.filter-1.0", **own, **told}


def deliver(store: Store, *events: Row) -> Counter[str]:
    """As one delivery through the gateway's scheme into the inbox, and worked off; gives the outcomes."""
    taken = scheme("sendgrid").events(Delivery("POST", "", {}, json.dumps(events).encode(), 0.0))
    own = ("acme", "sendgrid", INTEGRATION, "we_1")
    columns = tuple(zip(*((*own, each.id, each.type, "", each.payload) for each in taken), strict=True))
    with store.operator() as connection:
        connection.exec_driver_sql(inbox.TAKE, tuple(map(list, columns)))
    outcomes: Counter[str] = Counter()
    with InboxLane(store, Warehouse(store), Settled(store), INTEGRATION) as lane:
        for drained in lane.drain(lambda: True):
            outcomes.update({outcome: count for (_, outcome), count in drained.outcomes.items()})
    return outcomes


def test_an_event_is_a_row(store: Store, sendgrid: StandIn) -> None:
    deliver(store, event("click", url="https://example.com", category=["news"], ip="192.0.2.1", asm_group_id=7))
    (row,) = live(store, "events").values()
    assert (row["event"], row["email"], row["message_id"]) == ("click", "ada@example.com", "m1")
    assert row["occurred_at"] == datetime.fromtimestamp(NOW, UTC)
    assert (row["url"], row["category"], row["asm_group_id"]) == ("https://example.com", ["news"], 7)
    assert [path for path, _ in sendgrid.asked if path != "/v3/user/username"] == []


def test_an_event_that_comes_again_is_the_same_row(store: Store, sendgrid: StandIn) -> None:
    """By its `sg_event_id`, in one delivery or in several."""
    deliver(store, event(id="e1"), event(id="e1"), event(id="e2"))
    deliver(store, event(id="e2"), event(id="e3"))
    assert live(store, "events").keys() == {"e1", "e2", "e3"}


def test_events_without_an_id_are_told_apart_by_what_they_say(store: Store, sendgrid: StandIn) -> None:
    deliver(store, event(id=None), event(id=None), event("delivered", id=None))
    assert len(live(store, "events")) == 2


def test_instants_of_single_sends_may_be_milliseconds(store: Store, sendgrid: StandIn) -> None:
    deliver(store, event(id="s", at=NOW), event(id="ms", at=NOW * 1000 + 372))
    assert {key: row["occurred_at"].timestamp() for key, row in live(store, "events").items()} == {
        "s": NOW, "ms": NOW + 0.372,
    }  # fmt: skip


@pytest.mark.parametrize("category", ["cat facts", ["a", "b"]], ids=str)
def test_a_category_is_one_or_a_list(store: Store, sendgrid: StandIn, category: object) -> None:
    assert deliver(store, event(category=category)) == {"stored": 1}
    assert live(store, "events")["e1"]["category"] == category


def test_what_senders_add_to_a_mail_is_kept(store: Store, sendgrid: StandIn) -> None:
    deliver(store, event(customer_number="4711"))
    assert live(store, "events")["e1"]["extra"]["customer_number"] == "4711"


def test_changes_of_the_account_are_ignored_and_not_unknown(store: Store, sendgrid: StandIn) -> None:
    assert deliver(store, event("account_status_change"), event("open", "e2")) == {"ignored": 1, "stored": 1}


@pytest.mark.parametrize("timestamp", [None, "now"], ids=str)
def test_an_event_that_does_not_say_when_is_rejected_alone(store: Store, sendgrid: StandIn, timestamp: object) -> None:
    assert deliver(store, event(), event(id="e2") | {"timestamp": timestamp}) == {"stored": 1, "rejected": 1}
    assert live(store, "events").keys() == {"e1"}


@pytest.mark.parametrize("timestamp", [10**19, -(10**19), 10**15, -(10**14)], ids=str)
def test_an_event_of_a_time_that_nobody_can_read_is_rejected_alone(
    store: Store, sendgrid: StandIn, timestamp: int
) -> None:
    deliver(store, event(), event(id="e2", at=timestamp))
    assert live(store, "events").keys() == {"e1"}
    assert [each.reason for each in list_rejected(store, INTEGRATION)] != []


def test_a_kind_of_event_that_is_new_is_stored_as_well() -> None:
    assert SendGrid.object_of(event("machine_read")) == "events"
    assert SendGrid.object_of({"event": 7}) is None


def test_a_sync_leaves_the_events_as_they_are(store: Store, sendgrid: StandIn) -> None:
    """They come by the webhook only: nobody thinks that they are gone."""
    deliver(store, event())
    sync(store, "events")
    assert live(store, "events").keys() == {"e1"}


def test_all_events_of_the_business_add_up_to_what_sendgrid_counts(store: Store, account: AccountHandle) -> None:
    """In any order and some of them twice: joined to single sends, they give the statistics of each."""
    told = account.objects("events")
    shuffled = [*told, *told[::7]]
    random.Random(7).shuffle(shuffled)
    deliver(store, *shuffled)
    assert _unequal(live(store, "events"), told) == {}
    sync(store, "single_sends", "single_send_stats", "messages")
    with store.organization("acme") as connection:
        found = connection.execute(sa.text(JOINED)).all()
        unmatched = connection.execute(sa.text(WITHOUT_MESSAGE)).scalar_one()
    assert len(found) == len(live(store, "single_sends"))
    for name, *ours_and_theirs in found:
        half = len(ours_and_theirs) // 2
        assert ours_and_theirs[:half] == ours_and_theirs[half:], name
    assert unmatched == 0


def _unequal(ours: dict[str, Row], told: list[Row]) -> Row:
    theirs = {each["sg_event_id"]: each for each in told}
    if ours.keys() != theirs.keys():
        return {"keys": sorted(ours.keys() ^ theirs.keys())}
    sent = {
        key: {**each, "occurred_at": each["timestamp"], "message_id": each["sg_message_id"].partition(".")[0]}
        for key, each in theirs.items()
    }
    found = {key: difference(OBJECTS["events"], ours[key], each) for key, each in sent.items()}
    return {key: differing for key, differing in found.items() if differing}


JOINED = """
SELECT sends.name,
       count(*) FILTER (WHERE event = 'processed'), count(*) FILTER (WHERE event = 'delivered'),
       count(*) FILTER (WHERE event = 'open'), count(DISTINCT message_id) FILTER (WHERE event = 'open'),
       count(*) FILTER (WHERE event = 'click'), count(*) FILTER (WHERE event = 'bounce' AND events.type = 'bounce'),
       count(*) FILTER (WHERE event = 'spamreport'),
       stats.requests, stats.delivered, stats.opens, stats.unique_opens, stats.clicks, stats.bounces, stats.spam_reports
  FROM raw.sendgrid_single_sends AS sends
  JOIN raw.sendgrid_single_send_stats AS stats ON stats.single_send_id = sends.id
  JOIN raw.sendgrid_events AS events ON events.single_send_id = sends.id
 GROUP BY sends.id, sends.name, stats.requests, stats.delivered, stats.opens, stats.unique_opens, stats.clicks,
          stats.bounces, stats.spam_reports
"""
WITHOUT_MESSAGE = """
SELECT count(*) FROM raw.sendgrid_messages AS messages
 WHERE NOT EXISTS (SELECT FROM raw.sendgrid_events AS events WHERE events.message_id = messages.message_id)
"""
