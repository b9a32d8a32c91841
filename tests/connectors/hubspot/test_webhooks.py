"""Webhook events have ids only: what they are of is read, in batches, into the rows that polls write, too."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.hubspot import HubSpot
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.ingest.inbox_order import Settled
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.webhook_lane import InboxLane
from tests.connectors.hubspot.conftest import INTEGRATION, gone, live, rows, sync
from tests.connectors.hubspot.portal import LONG_AGO, Portal, property_of
from tests.connectors.standin import StandIn
from webhook_gateway.schemes import scheme
from webhook_gateway.schemes.sdk import Delivery

BATCH = "/crm/v3/objects/contacts/batch/read"
_numbers = itertools.count(1)


@pytest.fixture
def contacts(hubspot: StandIn) -> Portal:
    made = Portal(hubspot, "contacts", modified="lastmodifieddate")
    made.has_properties(property_of("email"), property_of("hs_merged_object_ids", "enumeration"))
    return made


def event(portal: Portal, kind: str, id: int | None = None, *, at: int | None = None, **told: Any) -> dict[str, Any]:
    own = {} if id is None else {"objectId": id}
    return {
        "eventId": next(_numbers), "subscriptionId": 1, "portalId": 424242, "appId": 1, "attemptNumber": 0,
        "occurredAt": portal.now if at is None else at, "subscriptionType": kind, **own, **told,
    }  # fmt: skip


def deliver(store: Store, *events: dict[str, Any]) -> Counter[str]:
    """As one delivery through the gateway's scheme into the inbox, and worked off; gives the outcomes."""
    taken = scheme("hubspot").events(Delivery("POST", "", {}, json.dumps(events).encode(), 0.0))
    own = ("acme", "hubspot", INTEGRATION, "we_1")
    columns = tuple(zip(*((*own, each.id, each.type, "", each.payload) for each in taken), strict=True))
    with store.operator() as connection:
        connection.exec_driver_sql(inbox.TAKE, tuple(map(list, columns)))
    outcomes: Counter[str] = Counter()
    with InboxLane(store, Warehouse(store), Settled(store), INTEGRATION) as lane:
        for drained in lane.drain(lambda: True):
            outcomes.update({outcome: count for (_, outcome), count in drained.outcomes.items()})
    return outcomes


def test_a_hundred_events_are_one_read(store: Store, contacts: Portal, hubspot: StandIn) -> None:
    for number in range(1, 101):
        contacts.put(number, email=f"{number}@example.com")
    deliver(store, *(event(contacts, "contact.creation", number) for number in range(1, 101)))
    assert len([path for path, _ in hubspot.asked if path == BATCH]) == 1
    assert live(store, "contacts")["42"]["email"] == "42@example.com"


def test_of_many_events_of_one_record_it_is_read_once(store: Store, contacts: Portal, hubspot: StandIn) -> None:
    contacts.put(1, email="now@example.com")
    told = [event(contacts, "contact.propertyChange", 1, propertyName="email", propertyValue=str(n)) for n in range(50)]
    random.Random(7).shuffle(told)
    assert deliver(store, *told) == {"stored": 50}
    (query,) = [query for path, query in hubspot.asked if path == BATCH]
    assert query["body"]["inputs"] == [{"id": "1"}]
    assert live(store, "contacts")["1"]["email"] == "now@example.com"


def test_what_a_poll_read_after_the_event_is_not_read_again(store: Store, contacts: Portal, hubspot: StandIn) -> None:
    contacts.put(1, email="a@example.com")
    late = event(contacts, "contact.propertyChange", 1)
    contacts.passes(seconds=60)
    sync(store, "contacts")
    hubspot.asked.clear()
    deliver(store, late)
    assert hubspot.asked == []


def test_an_event_that_comes_before_a_late_poll_is_not_undone(store: Store, contacts: Portal) -> None:
    contacts.put(1, at=LONG_AGO, email="before@example.com")
    sync(store, "contacts")
    contacts.passes(seconds=600)
    contacts.put(1, email="after@example.com", lag=1_800_000)
    deliver(store, event(contacts, "contact.propertyChange", 1))
    contacts.passes(seconds=5)
    sync(store, "contacts")
    assert live(store, "contacts")["1"]["email"] == "after@example.com"


def test_a_deletion_and_a_restoration_in_the_wrong_order_end_as_it_is(store: Store, contacts: Portal) -> None:
    contacts.put(1, at=LONG_AGO)
    sync(store, "contacts")
    contacts.passes(seconds=600)
    contacts.archive(1)
    deleted = event(contacts, "contact.deletion", 1)
    deliver(store, deleted)
    assert gone(store, "contacts") == {"1": "archived"}
    contacts.passes(seconds=10)
    contacts.restore(1)
    deliver(store, event(contacts, "contact.restore", 1), deleted | {"eventId": 999_999})
    assert live(store, "contacts").keys() == {"1"}


def test_a_merge_tells_both_and_the_new_one(store: Store, contacts: Portal) -> None:
    contacts.put(1, at=LONG_AGO)
    contacts.put(2, at=LONG_AGO)
    sync(store, "contacts")
    contacts.passes(seconds=600)
    contacts.put(3)
    contacts.merge(3, 2)
    contacts.records[3].values["hs_merged_object_ids"] = "1;2"
    del contacts.records[1]
    contacts.aliases[1] = 3
    told = event(contacts, "contact.merge", 1, primaryObjectId=1, mergedObjectIds=[2], newObjectId=3)
    deliver(store, told)
    assert live(store, "contacts").keys() == {"3"}
    assert gone(store, "contacts") == {"1": "merged", "2": "merged"}


def test_a_person_to_be_forgotten_leaves_nothing(store: Store, contacts: Portal) -> None:
    """What we have of them goes, too, also where the deletion itself was told first."""
    contacts.put(1, at=LONG_AGO, email="ada@example.com")
    sync(store, "contacts")
    contacts.passes(seconds=600)
    del contacts.records[1]
    deliver(store, event(contacts, "contact.deletion", 1))
    assert gone(store, "contacts") == {"1": "hard"}
    deliver(store, event(contacts, "contact.privacyDeletion", 1))
    assert gone(store, "contacts") == {"1": "privacy"}
    assert "ada" not in str(rows(store, "contacts"))


@pytest.mark.parametrize(
    ("told", "object"),
    [
        ({"subscriptionType": "contact.creation"}, "contacts"),
        ({"subscriptionType": "company.propertyChange"}, "companies"),
        ({"subscriptionType": "line_item.deletion"}, "line_items"),
        ({"subscriptionType": "object.creation", "objectTypeId": "0-1"}, "contacts"),
        ({"subscriptionType": "object.propertyChange", "objectTypeId": "0-48"}, "calls"),
        ({"subscriptionType": "object.creation", "objectTypeId": "2-77"}, "2-77"),
        ({"subscriptionType": "object.creation", "objectTypeId": "../x"}, None),
        ({"subscriptionType": "object.associationChange", "fromObjectTypeId": "0-1", "toObjectTypeId": "2-77"},
         "2-77/contacts"),
        ({"subscriptionType": "deal.associationChange", "associationType": "DEAL_TO_CONTACT"}, "deals_contacts"),
        ({"subscriptionType": "contact.associationChange", "associationType": "CONTACT_TO_DEAL"}, "deals_contacts"),
        ({"subscriptionType": "contact.associationChange", "associationType": "CONTACT_TO_COMPANY"},
         "contacts_companies"),
        ({"subscriptionType": "deal.associationChange", "associationType": "DEAL_TO_LINE_ITEM"}, "deals_line_items"),
        ({"subscriptionType": "deal.associationChange", "associationType": "DEAL_TO_COMPANY_PRIMARY"},
         "deals_companies"),
        ({"subscriptionType": "object.associationChange", "fromObjectTypeId": "0-5", "toObjectTypeId": "0-1"},
         "tickets_contacts"),
        ({"subscriptionType": "deal.associationChange"}, None),
        ({"subscriptionType": "conversation.creation"}, None),
        ({"subscriptionType": 7}, None),
        ({}, None),
    ],
    ids=lambda told: "-".join(map(str, told.values())) or "empty" if isinstance(told, dict) else str(told),
)  # fmt: skip
def test_each_event_is_of_one_object(told: dict[str, Any], object: str | None) -> None:
    assert HubSpot.object_of(told) == object


def test_conversations_are_ignored_and_not_unknown(store: Store, contacts: Portal) -> None:
    outcomes = deliver(store, event(contacts, "conversation.creation", 1), event(contacts, "galaxy.creation", 1))
    assert outcomes == {"ignored": 1, "unknown": 1}


# --- what the account defined itself


def test_events_of_custom_objects_and_their_associations_become_rows(store: Store, hubspot: StandIn) -> None:
    ends: dict[str, Any] = {"fromObjectTypeId": "0-1", "toObjectTypeId": "2-77"}
    schema = {"name": "cars", "objectTypeId": "2-77", "associations": [ends, {**ends, "fromObjectTypeId": "0-8"}, None]}
    hubspot.says["/crm/v3/schemas"] = [{"results": [schema]}]
    cars = Portal(hubspot, "2-77")
    cars.has_properties(property_of("plate"))
    sync(store, "cars", "cars-contacts")
    cars.put(5, at=LONG_AGO, plate="B-CG 1")
    cars.relate("contacts", 5, 11, "Driver")
    outcomes = deliver(
        store,
        event(cars, "object.creation", 5, objectTypeId="2-77"),
        event(cars, "object.associationChange", fromObjectId=11, toObjectId=5, **ends),
        event(cars, "object.creation", 1, objectTypeId="2-78"),
    )
    assert outcomes == {"stored": 2, "unknown": 1}
    with store.organization("acme") as connection:
        assert connection.scalars(sa.text("SELECT plate FROM views.acme_hubspot_cars")).all() == ["B-CG 1"]
        (pair,) = connection.execute(sa.text("SELECT from_id, to_id, labels FROM views.acme_hubspot_cars_contacts"))
    assert tuple(pair) == ("5", "11", ["Driver"])


# --- associations


@pytest.fixture
def deals(hubspot: StandIn) -> Portal:
    made = Portal(hubspot, "deals")
    made.put(1, at=LONG_AGO)
    made.relate("contacts", 1, 11)
    return made


def link(portal: Portal, kind: str, source: int, target: int, *, removed: bool = False) -> dict[str, Any]:
    subject = kind.partition("_TO_")[0].lower()
    return event(
        portal, f"{subject}.associationChange", associationType=kind, fromObjectId=source, toObjectId=target,
        associationRemoved=removed, isPrimaryAssociation=False, changeSource="USER",
    )  # fmt: skip


def test_an_association_made_later_comes_at_once(store: Store, deals: Portal) -> None:
    sync(store, "deals_contacts")
    deals.passes(seconds=60)
    deals.relate("contacts", 1, 12, "Decision maker")
    assert deliver(store, link(deals, "DEAL_TO_CONTACT", 1, 12)) == {"stored": 1}
    assert live(store, "deals_contacts")["1-12"]["labels"] == ["Decision maker"]


def test_both_directions_of_one_association_are_one_row(store: Store, deals: Portal) -> None:
    """HubSpot sends an event of each end's."""
    deals.relate("contacts", 1, 12)
    deliver(store, link(deals, "CONTACT_TO_DEAL", 12, 1), link(deals, "DEAL_TO_CONTACT", 1, 12))
    assert live(store, "deals_contacts").keys() == {"1-11", "1-12"}


def test_a_removed_association_is_gone_at_once(store: Store, deals: Portal) -> None:
    sync(store, "deals_contacts")
    deals.passes(seconds=60)
    deals.unrelate("contacts", 1, 11)
    deliver(store, link(deals, "DEAL_TO_CONTACT", 1, 11, removed=True))
    assert gone(store, "deals_contacts") == {"1-11": "hard"}


def test_one_that_was_removed_and_made_again_is_there_whatever_came_last(store: Store, deals: Portal) -> None:
    sync(store, "deals_contacts")
    deals.passes(seconds=60)
    deliver(store, link(deals, "DEAL_TO_CONTACT", 1, 11), link(deals, "DEAL_TO_CONTACT", 1, 11, removed=True))
    assert live(store, "deals_contacts").keys() == {"1-11"}


@pytest.mark.parametrize("lacking", ["objectId", "occurredAt"])
def test_an_event_that_says_too_little_is_rejected_alone(store: Store, contacts: Portal, lacking: str) -> None:
    contacts.put(1)
    bad = {name: value for name, value in event(contacts, "contact.creation", 7).items() if name != lacking}
    assert deliver(store, event(contacts, "contact.creation", 1), bad) == {"stored": 1, "rejected": 1}
    assert live(store, "contacts").keys() == {"1"}
