"""CRM records: what a list shows, what search finds late, and in which ways a record is gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.hubspot import finding, records
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.parity import compare_counts
from churnguard_pipelines.syncing.sync import opened
from tests.connectors.hubspot import portal
from tests.connectors.hubspot.conftest import INTEGRATION, NOW, OBJECTS, gone, live, position, sync
from tests.connectors.hubspot.portal import LONG_AGO, Portal, deals_of, property_of
from tests.connectors.standin import StandIn

MINUTE = 60_000
MakePortal = Callable[..., Portal]


@pytest.fixture
def deals(hubspot: StandIn) -> Portal:
    return deals_of(hubspot)


@pytest.fixture
def small_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query answers 1,000 rows, 20 on a page."""
    monkeypatch.setattr(portal, "CAP", 1_000)
    monkeypatch.setattr(finding, "PAGE", 20)


# --- back-fill


def test_the_list_has_no_cap_and_is_what_a_back_fill_reads(store: Store, deals: Portal, small_cap: None) -> None:
    for number in range(1, 1_202):
        deals.put(number, at=LONG_AGO)
    assert sync(store, "deals").objects["deals"].rows == 1_201
    assert deals.searches == []


def test_properties_that_do_not_fit_a_url_come_together_of_one_moment(
    store: Store, deals: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pages with half of the properties each could show a record before and after a change."""
    monkeypatch.setattr(records, "LONGEST_LIST", 20)
    deals.put(1, at=LONG_AGO, dealname="Big one", amount="12.50", tier="gold")
    assert sync(store, "deals").status == "succeeded"
    assert all("properties" not in query for query in deals.lists)
    assert live(store, "deals")["1"]["amount"] == pytest.approx(12.5)


def test_no_url_grows_past_what_hubspots_servers_take(store: Store, deals: Portal) -> None:
    deals.has_properties(*(property_of(f"a_property_with_quite_a_long_name_{n:04}") for n in range(1200)))
    deals.put(1, at=LONG_AGO, a_property_with_quite_a_long_name_0007="here")
    assert sync(store, "deals").status == "succeeded"
    assert all(len(str(query)) < 16_000 for query in deals.lists)
    assert live(store, "deals")["1"]["properties"]["a_property_with_quite_a_long_name_0007"] == "here"


def test_a_killed_back_fill_goes_on_where_it_was(store: Store, deals: Portal, hubspot: StandIn) -> None:
    for number in range(1, 251):
        deals.put(number, at=LONG_AGO)
    good = hubspot.says["/crm/v3/objects/deals"][0]
    hubspot.says["/crm/v3/objects/deals"] = [good, (400, {"message": "gone"}), good]
    assert sync(store, "deals").status != "succeeded"
    assert len(live(store, "deals")) == 100
    deals.lists.clear()
    assert sync(store, "deals").status == "succeeded"
    assert deals.lists[0]["after"] == ["100"]
    assert len(live(store, "deals")) == 250


def test_a_history_reads_what_was_created_in_its_window(store: Store, deals: Portal) -> None:
    deals.put(1, at=LONG_AGO)
    deals.put(2, at=LONG_AGO + 86_400_000)
    begin = datetime.fromtimestamp(LONG_AGO / 1000, UTC)
    report = sync(store, "deals", window=Window(begin, begin + timedelta(days=1)))
    assert report.status == "succeeded"
    assert live(store, "deals").keys() == {"1"}


# --- what changed


def test_a_change_is_found_promptly_and_read_by_id(store: Store, deals: Portal) -> None:
    deals.put(1, at=LONG_AGO, dealname="Before")
    sync(store, "deals")
    deals.passes(seconds=600)
    deals.put(1, dealname="After")
    deals.passes(seconds=5)
    report = sync(store, "deals")
    assert live(store, "deals")["1"]["dealname"] == "After"
    assert report.objects["deals"].counts.read == 1


def test_what_search_shows_late_is_read_by_the_trailing_reader(store: Store, deals: Portal) -> None:
    """It was not in the index when its time was read promptly, and its date lies before all later prompt reads."""
    deals.put(1, at=LONG_AGO, dealname="Before")
    sync(store, "deals")
    deals.passes(seconds=600)
    deals.put(1, dealname="After", lag=20 * MINUTE)
    deals.passes(seconds=60)
    sync(store, "deals")
    assert live(store, "deals")["1"]["dealname"] == "Before"
    deals.passes(seconds=900)
    sync(store, "deals")
    deals.passes(hours=1)
    sync(store, "deals")
    assert live(store, "deals")["1"]["dealname"] == "After"


def test_more_changes_than_a_query_answers_are_all_found(store: Store, deals: Portal, small_cap: None) -> None:
    """A query answers 10,000 rows, and refuses the next with a 400; here a tenth of that, page by page."""
    sync(store, "deals")
    deals.passes(seconds=300)
    for number in range(1, 1_051):
        deals.put(number, at=deals.now - 120_000 + number * 100)
    deals.passes(seconds=10)
    assert sync(store, "deals").status == "succeeded"
    assert len(live(store, "deals")) == 1_050


def test_a_burst_in_one_millisecond_is_drained_by_id(store: Store, deals: Portal, small_cap: None) -> None:
    """An import stamps them all alike: no time tells them apart, and there are more than a query answers."""
    sync(store, "deals")
    deals.passes(seconds=300)
    at = deals.now - 10_000
    deals.put(1, at=at - 1)
    for number in range(2, 1_060):
        deals.put(number, at=at)
    deals.put(2_000, at=at + 1)
    assert sync(store, "deals").status == "succeeded"
    assert len(live(store, "deals")) == 1_060


def test_rows_that_change_while_pages_are_read_leave_out_no_others(
    store: Store, deals: Portal, hubspot: StandIn
) -> None:
    """One that moves to the end of the order moves all behind it up by one: by an offset, one would never be seen."""
    sync(store, "deals")
    deals.passes(seconds=300)
    for number in range(1, 401):
        deals.put(number, at=deals.now - 200_000 + number)
    search = hubspot.says["/crm/v3/objects/deals/search"][0]

    def and_then_some_change(query: Any) -> Any:
        answer = search(query)
        for number in (3, 4, 5):
            deals.put(number, at=deals.now - 1000 + number)
        return answer

    hubspot.says["/crm/v3/objects/deals/search"] = [and_then_some_change, search]
    sync(store, "deals")
    assert len(live(store, "deals")) == 400


def test_rows_from_just_before_the_span_do_not_turn_it_back(store: Store, deals: Portal) -> None:
    deals.sloppy = 1
    sync(store, "deals")
    deals.passes(seconds=300)
    for number in range(1, 1001):
        deals.put(number, at=deals.now - 10_000 + number // 50)
    sync(store, "deals")
    assert len(live(store, "deals")) == 1000
    assert len(deals.searches) < 40


def test_a_search_since_the_epoch_is_never_asked(store: Store, deals: Portal) -> None:
    deals.put(1, at=LONG_AGO)
    with opened(store, get_integration(store, INTEGRATION)) as use:
        window = Window(datetime(1970, 1, 1, tzinfo=UTC), datetime.fromtimestamp(NOW, UTC))
        assert use.connector.count(OBJECTS["deals"], window) == 1
        assert use.connector.keys(OBJECTS["deals"], window, 10) == ["1"]
        assert use.connector.keys(OBJECTS["deals"], window, 0) is None


def test_a_search_that_sends_the_same_page_for_ever_ends(store: Store, deals: Portal, hubspot: StandIn) -> None:
    sync(store, "deals")
    same = {"total": 9, "results": [{"id": "7", "properties": {}} for _ in range(200)]}
    hubspot.says["/crm/v3/objects/deals/search"] = [same]
    assert "sends the same page again" in str(sync(store, "deals").objects["deals"].error)


def test_contacts_have_a_modification_date_of_their_own_name(store: Store, hubspot: StandIn) -> None:
    contacts = Portal(hubspot, "contacts", modified="lastmodifieddate")
    contacts.has_properties(property_of("email"))
    sync(store, "contacts")
    sync(store, "contacts")
    assert {body["sorts"][0]["propertyName"] for body in contacts.searches} == {"lastmodifieddate"}


def test_a_server_clock_ahead_of_ours_loses_nothing(store: Store, deals: Portal) -> None:
    """All times are HubSpot's: the stand-in lives in another year than we do."""
    sync(store, "deals")
    deals.passes(hours=2)
    deals.put(1, dealname="Now there")
    sync(store, "deals")
    assert live(store, "deals")["1"]["source_version"] >= deals.now
    assert abs(position(store, "deals")["prompt"] - deals.now) < 10_000


# --- gone, in one way or another


def test_an_archived_record_is_found_in_the_recycle_bin(store: Store, deals: Portal) -> None:
    deals.put(1, at=LONG_AGO)
    deals.put(2, at=LONG_AGO)
    sync(store, "deals")
    deals.passes(hours=1)
    deals.archive(1)
    deals.passes(seconds=10)
    sync(store, "deals")
    assert gone(store, "deals") == {"1": "archived"}


def test_a_restored_record_lives_again_though_its_date_did_not_move(store: Store, deals: Portal) -> None:
    deals.put(1, at=LONG_AGO)
    sync(store, "deals")
    deals.archive(1)
    deals.passes(hours=2)
    sync(store, "deals")
    assert gone(store, "deals") == {"1": "archived"}
    deals.restore(1)
    deals.passes(hours=25)
    sync(store, "deals")
    assert live(store, "deals").keys() == {"1"}


def test_a_merged_record_is_told_by_the_one_it_went_into(store: Store, deals: Portal) -> None:
    deals.put(1, at=LONG_AGO)
    deals.put(2, at=LONG_AGO)
    sync(store, "deals")
    deals.passes(seconds=600)
    deals.merge(1, 2)
    deals.passes(seconds=10)
    sync(store, "deals")
    assert gone(store, "deals") == {"2": "merged"}
    assert live(store, "deals").keys() == {"1"}


def test_what_vanished_without_a_word_is_found_once_a_day(store: Store, deals: Portal) -> None:
    """Deleted for good: neither in a list, nor in a search, nor in the bin."""
    deals.put(1, at=LONG_AGO)
    deals.put(2, at=LONG_AGO)
    sync(store, "deals")
    del deals.records[2]
    deals.passes(hours=25)
    sync(store, "deals")
    assert gone(store, "deals") == {"2": "inferred"}


def test_a_full_sync_finds_what_vanished_at_once(store: Store, deals: Portal) -> None:
    deals.put(1, at=LONG_AGO)
    deals.put(2, at=LONG_AGO)
    sync(store, "deals")
    del deals.records[2]
    sync(store, "deals", mode=DataSyncMode.FULL)
    assert gone(store, "deals") == {"2": "inferred"}


def test_what_search_still_shows_and_nobody_has_is_a_hard_deletion(store: Store, deals: Portal) -> None:
    deals.put(1, at=LONG_AGO)
    sync(store, "deals")
    deals.passes(seconds=600)
    deals.put(1)
    with opened(store, get_integration(store, INTEGRATION)) as use:
        del deals.records[1]
        told = use.connector.fetch(OBJECTS["deals"], ["1"])
    assert told is not None
    assert [(each.key, each.kind.value) for each in told[1]] == [("1", "hard")]


def test_a_hole_is_found_by_hubspots_own_count_and_mended_alone(store: Store, deals: Portal) -> None:
    for number in range(1, 31):
        deals.put(number, at=LONG_AGO + number * 60_000)
    sync(store, "deals")
    deals.passes(hours=1)
    sync(store, "deals")
    with store.organization("acme") as connection:
        connection.execute(sa.text("DELETE FROM raw.hubspot_deals WHERE id IN ('7', '8')"))
    found = compare_counts(store, get_integration(store, INTEGRATION), OBJECTS["deals"])
    assert (found.missing, found.extra, found.mended) == (2, 0, 2)
    assert len(live(store, "deals")) == 30
