"""Associations: no date moves when one is made or removed, so they come in three ways."""

from __future__ import annotations

from typing import Any

import pytest

from churnguard_pipelines.connectors.hubspot import associations
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.hubspot.conftest import gone, live, position, sync
from tests.connectors.hubspot.portal import LONG_AGO, Portal, property_of
from tests.connectors.standin import StandIn

PAIR = "deals_contacts"


@pytest.fixture
def deals(hubspot: StandIn) -> Portal:
    made = Portal(hubspot, "deals")
    made.has_properties(property_of("dealname"))
    for number in range(1, 6):
        made.put(number, at=LONG_AGO)
    made.relate("contacts", 1, 11)
    made.relate("contacts", 1, 12, None, "Decision maker")
    made.relate("contacts", 2, 11)
    return made


def test_associations_are_rows_of_their_own_with_their_labels(store: Store, deals: Portal) -> None:
    """Three of the five have none, which HubSpot answers with errors in a 207."""
    report = sync(store, PAIR)
    assert report.status == "succeeded"
    stored = live(store, PAIR)
    assert stored.keys() == {"1-11", "1-12", "2-11"}
    assert (stored["1-12"]["from_id"], stored["1-12"]["to_id"]) == ("1", "12")
    assert stored["1-12"]["labels"] == ["Decision maker"]
    assert [each["typeId"] for each in stored["1-12"]["types"]] == [0, 1]
    assert stored["1-11"]["labels"] == []


def test_more_associations_than_one_answer_shows_are_asked_for(store: Store, deals: Portal) -> None:
    for number in range(100, 110):
        deals.relate("contacts", 3, number)
    sync(store, PAIR)
    assert len([key for key in live(store, PAIR) if key.startswith("3-")]) == 10


def test_those_of_a_record_that_changed_come_promptly(store: Store, deals: Portal) -> None:
    sync(store, PAIR)
    deals.passes(seconds=600)
    deals.put(9)
    deals.relate("contacts", 9, 11)
    deals.passes(seconds=10)
    report = sync(store, PAIR)
    assert "9-11" in live(store, PAIR)
    assert report.objects[PAIR].counts.read == 1


def test_a_link_made_later_is_found_by_the_sweep_though_no_date_moved(store: Store, deals: Portal) -> None:
    """What every reader by cursor misses."""
    sync(store, PAIR)
    deals.relate("contacts", 4, 12)
    deals.passes(hours=2)
    sync(store, PAIR)
    assert "4-12" not in live(store, PAIR)
    deals.passes(hours=23)
    sync(store, PAIR)
    assert "4-12" in live(store, PAIR)


def test_a_removed_link_is_found_by_the_sweep(store: Store, deals: Portal) -> None:
    sync(store, PAIR)
    deals.unrelate("contacts", 1, 12)
    deals.passes(hours=25)
    sync(store, PAIR)
    assert gone(store, PAIR) == {"1-12": "inferred"}


def test_a_label_that_was_taken_away_is_gone_after_the_sweep(store: Store, deals: Portal) -> None:
    sync(store, PAIR)
    deals.relate("contacts", 1, 12)
    deals.passes(hours=25)
    sync(store, PAIR)
    assert live(store, PAIR)["1-12"]["labels"] == []


def test_a_full_sync_sweeps_at_once(store: Store, deals: Portal) -> None:
    sync(store, PAIR)
    deals.unrelate("contacts", 2, 11)
    sync(store, PAIR, mode=DataSyncMode.FULL)
    assert gone(store, PAIR) == {"2-11": "inferred"}


def test_a_killed_sweep_goes_on_where_it_was(
    store: Store, deals: Portal, hubspot: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(associations, "INPUTS", 100)
    for number in range(100, 350):
        deals.put(number, at=LONG_AGO)
        deals.relate("contacts", number, 11)
    path = "/crm/v4/associations/deals/contacts/batch/read"
    good = hubspot.says[path][0]
    hubspot.says[path] = [good, (400, {"message": "no"}), good]
    assert sync(store, PAIR).status != "succeeded"
    assert position(store, PAIR)["sweep"]["after"]
    deals.lists.clear()
    assert sync(store, PAIR).status == "succeeded"
    assert "after" in deals.lists[0]
    assert len(live(store, PAIR)) == 253


@pytest.mark.parametrize(
    "row",
    [{"to": []}, {"from": {"id": "1"}, "to": [{"associationTypes": []}]}, "text"],
    ids=["no-from", "no-to", "text"],
)
def test_an_association_without_its_ends_is_not_stored(store: Store, deals: Portal, hubspot: StandIn, row: Any) -> None:
    hubspot.says["/crm/v4/associations/deals/contacts/batch/read"] = [{"results": [row]}]
    assert "without an id" in str(sync(store, PAIR).objects[PAIR].error)


def test_pages_of_one_record_that_never_end_are_noticed(store: Store, deals: Portal, hubspot: StandIn) -> None:
    same = {"from": {"id": "1"}, "to": [{"toObjectId": 11}], "paging": {"next": {"after": "3"}}}
    hubspot.says["/crm/v4/associations/deals/contacts/batch/read"] = [{"results": [same]}]
    assert "sends the same page again" in str(sync(store, PAIR).objects[PAIR].error)
