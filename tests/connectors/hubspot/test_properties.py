"""Properties in their own types, as the account has them today, and objects that it made itself."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.hubspot import HubSpot, records
from churnguard_pipelines.connectors.hubspot.finding import milliseconds
from churnguard_pipelines.store.ingest.drift import list_drift
from churnguard_pipelines.store.ingest.objects import known_objects
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.hubspot.conftest import INTEGRATION, OBJECTS, live, position, rows, sync
from tests.connectors.hubspot.portal import LONG_AGO, Portal, deals_of, property_of
from tests.connectors.standin import StandIn


@pytest.fixture
def deals(hubspot: StandIn) -> Portal:
    return deals_of(hubspot)


def view_of(store: Store, object: str) -> list[dict[str, Any]]:
    view = known_objects(store, INTEGRATION)[object].view
    with store.organization("acme") as connection:
        found = connection.execute(sa.text(f"SELECT * FROM views.{view} WHERE deleted_at IS NULL ORDER BY id"))
        return [dict(row) for row in found.mappings()]


def test_a_calculated_property_is_read_again_once_a_day(store: Store, deals: Portal) -> None:
    """It changes without its record's date."""
    deals.put(1, at=LONG_AGO, days_to_close="10")
    sync(store, "deals")
    deals.records[1].values["days_to_close"] = "11"
    deals.passes(hours=2)
    sync(store, "deals")
    assert live(store, "deals")["1"]["properties"]["days_to_close"] == "10"
    deals.passes(hours=23)
    sync(store, "deals")
    assert live(store, "deals")["1"]["properties"]["days_to_close"] == "11"


def test_a_long_rereading_lets_changes_go_first_and_goes_on_in_the_next_sync(
    store: Store, deals: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "PAGES_OF_REREADING", 1)
    for number in range(1, 251):
        deals.put(number, at=LONG_AGO, days_to_close="10")
    sync(store, "deals")
    for entry in deals.records.values():
        entry.values["days_to_close"] = "11"
    deals.passes(hours=25)
    for expected in (100, 200, 250):
        sync(store, "deals")
        read = [row for row in live(store, "deals").values() if row["properties"]["days_to_close"] == "11"]
        assert len(read) == expected
    assert position(store, "deals")["reread"] is None


def test_a_property_made_today_has_its_own_type_after_the_next_sync(store: Store, deals: Portal) -> None:
    deals.put(1, at=LONG_AGO, seats="12")
    sync(store, "deals")
    deals.has_properties(property_of("dealname"), property_of("seats", "number"), property_of("signed", "date"))
    deals.passes(seconds=600)
    deals.put(1, signed="2026-03-01")
    deals.passes(seconds=10)
    sync(store, "deals")
    (row,) = view_of(store, "deals")
    assert row["seats"] == 12
    assert row["signed"].isoformat() == "2026-03-01"


def test_a_property_that_is_gone_stays_in_the_view_and_is_drift(store: Store, deals: Portal) -> None:
    deals.put(1, at=LONG_AGO, tier="gold")
    sync(store, "deals")
    deals.has_properties(property_of("dealname"))
    sync(store, "deals")
    (row,) = view_of(store, "deals")
    assert row["tier"] == "gold"
    assert ("tier", "gone_field") in {(each.column, each.kind) for each in list_drift(store, INTEGRATION)["deals"]}


def test_an_empty_text_is_no_number_and_no_date(store: Store, deals: Portal) -> None:
    deals.put(1, at=LONG_AGO, amount="", closedate="", dealname="", days_to_close=None)
    report = sync(store, "deals")
    assert report.objects["deals"].counts.rejected == 0
    row = live(store, "deals")["1"]
    assert (row["amount"], row["closedate"], row["dealname"]) == (None, None, "")
    assert "type_mismatch" not in {each.kind for found in list_drift(store, INTEGRATION).values() for each in found}


def test_an_unknown_type_of_property_is_read_as_text(store: Store, deals: Portal) -> None:
    deals.has_properties(property_of("shape", "hologram"))
    deals.put(1, at=LONG_AGO, shape="round")
    sync(store, "deals")
    assert view_of(store, "deals")[0]["shape"] == "round"


def test_values_and_labels_may_be_null(store: Store, deals: Portal) -> None:
    deals.has_properties(
        property_of("dealname", label=None, options=None), property_of("tier", options=[{"value": None}])
    )
    deals.put(1, at=LONG_AGO, dealname=None)
    assert sync(store, "deals").status == "succeeded"
    assert live(store, "deals")["1"]["dealname"] is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("2026-01-31T10:00:00Z", 1_769_853_600_000), ("2026-01-31T10:00:00.5Z", 1_769_853_600_500),
        ("2026-01-31T10:00:00.123Z", 1_769_853_600_123), ("2026-01-31T10:00:00.123456Z", 1_769_853_600_123),
        (1_769_853_600_123, 1_769_853_600_123), ("1769853600123", 1_769_853_600_123), ("", None), (None, None),
        ("soon", None), (True, None),
    ],
)  # fmt: skip
def test_instants_come_in_three_precisions_and_as_epoch_milliseconds(told: Any, expected: int | None) -> None:
    assert milliseconds(told) == expected


# --- custom objects


def test_a_custom_object_is_read_by_its_name(store: Store, hubspot: StandIn) -> None:
    schema = {"name": "cars", "objectTypeId": "2-3456", "labels": {"singular": "Car", "plural": "Cars"}}
    bad = [{"name": "no_id"}, {"name": "a/b", "objectTypeId": "2-1"}, {"name": "c", "objectTypeId": "../x"}, None]
    hubspot.says["/crm/v3/schemas"] = [{"results": [schema, *bad]}]
    cars = Portal(hubspot, "2-3456")
    cars.has_properties(property_of("plate"), property_of("doors", "number"))
    cars.put(5, at=LONG_AGO, plate="B-CG 1", doors="5")
    report = sync(store, "cars")
    assert report.objects["cars"].rows == 1
    (row,) = view_of(store, "cars")
    assert (row["id"], row["plate"], row["doors"]) == ("5", "B-CG 1", 5)
    assert HubSpot.table_of(OBJECTS["deals"]).name == "hubspot_deals"


def test_a_deleted_custom_object_keeps_its_rows_and_is_drift(store: Store, hubspot: StandIn) -> None:
    schema = {"name": "cars", "objectTypeId": "2-3456", "labels": {"plural": "Cars"}}
    hubspot.says["/crm/v3/schemas"] = [{"results": [schema]}]
    Portal(hubspot, "2-3456").put(5, at=LONG_AGO)
    sync(store)
    hubspot.says["/crm/v3/schemas"] = [{"results": []}]
    assert sync(store).status == "succeeded"
    assert len(view_of(store, "cars")) == 1
    assert ("cars", "gone_object") in {(each.column, each.kind) for each in list_drift(store, INTEGRATION)["cars"]}


@pytest.mark.parametrize(
    "body", [[1], {"results": None}, {}, "text", {"results": {"id": "1"}}], ids=["list", "null", "empty", "text", "one"]
)
def test_an_answer_that_is_no_list_fails_its_object_alone(
    store: Store, deals: Portal, hubspot: StandIn, body: Any
) -> None:
    hubspot.says["/crm/v3/objects/deals"] = [body]
    report = sync(store, "deals", "products")
    assert "came without `results`" in str(report.objects["deals"].error)
    assert report.objects["products"].status == "succeeded"
    assert rows(store, "deals") == {}
