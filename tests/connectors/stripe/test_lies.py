"""Lists that never end, break off or change while they are read: nothing is lost in silence or read for ever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from churnguard_pipelines.connectors.stripe.api import API_VERSION
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.conftest import Register, live, rows, sync
from tests.connectors.standin import Query, StandIn, stand_in

NOW = 1_789_641_000
HOUR = 3600
CREATED = NOW - 86_400


@pytest.fixture
def stripe(register: Register) -> Iterator[StandIn]:
    """A stand-in that knows its account and has nothing to list, behind the integration."""
    with stand_in() as provider:
        provider.now = NOW
        provider.says["/v1/account"] = [{"id": "acct_1"}]
        register(provider, concurrent_requests=1)
        yield provider


def listing(*records: Any, has_more: bool = False) -> dict[str, Any]:
    return {"object": "list", "data": list(records), "has_more": has_more}


def product(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"prod_{number:03}", "object": "product", "created": CREATED - number, "active": True, **fields}


def event(number: int, kind: str, record: dict[str, Any], created: int, version: str = API_VERSION) -> dict[str, Any]:
    return {
        "id": f"evt_{number:05}", "object": "event", "type": kind, "created": created, "api_version": version,
        "data": {"object": record},
    }  # fmt: skip


def paged(records: Sequence[dict[str, Any]], query: Query) -> dict[str, Any]:
    """A list as Stripe pages and filters it. ``records``: newest first."""
    start, end = int(query["created[gte]"][0]), int(query["created[lt]"][0])
    inside = [record for record in records if start <= record["created"] < end]
    after = query.get("starting_after", [None])[0]
    first = next((place + 1 for place, record in enumerate(inside) if record["id"] == after), 0)
    return listing(*inside[first : first + 100], has_more=len(inside) > first + 100)


def error(store: Store, name: str) -> str:
    return str(sync(store, name).objects[name].error)


# --- lists


def test_two_pages_that_take_turns_are_noticed(store: Store, stripe: StandIn) -> None:
    one, two = listing(product(1), has_more=True), listing(product(2), has_more=True)
    stripe.says["/v1/products"] = [one, two, one, two, one]
    assert "sends the same page again and again" in error(store, "products")
    assert len(live(store, "products")) == 2


@pytest.mark.parametrize("body", [[1, 2], {"object": "charge"}, {"object": "list", "data": None}, "text"])
def test_an_answer_that_is_no_list_fails_its_object(store: Store, stripe: StandIn, body: Any) -> None:
    stripe.says["/v1/products"] = [body]
    assert "without a list of records" in error(store, "products")


def test_what_is_no_record_is_rejected_alone(store: Store, stripe: StandIn) -> None:
    stripe.says["/v1/products"] = [listing(product(1), "not a record", product(3))]
    report = sync(store, "products").objects["products"]
    assert (report.status, report.counts.written, report.counts.rejected) == ("succeeded", 2, 1)


def test_a_bad_time_in_the_last_record_does_not_end_the_list(store: Store, stripe: StandIn) -> None:
    """Its id is enough to go on from."""
    first = listing(product(1), product(2, created="soon"), has_more=True)
    stripe.says["/v1/products"] = [first, listing(product(3))]
    report = sync(store, "products").objects["products"]
    assert (report.status, report.counts.written, report.counts.rejected) == ("succeeded", 2, 1)


def test_a_last_record_without_an_id_leaves_nothing_to_go_on_from(store: Store, stripe: StandIn) -> None:
    stripe.says["/v1/products"] = [listing(product(1), {"object": "product"}, has_more=True)]
    assert "nothing to go on from" in error(store, "products")


def test_an_answer_without_a_date_is_as_old_as_its_arrival(store: Store, stripe: StandIn) -> None:
    stripe.now = None
    stripe.says["/v1/products"] = [listing(product(1))]
    assert sync(store, "products").status == "succeeded"
    assert live(store, "products")["prod_001"]["source_version"] > 1_700_000_000_000


def test_a_page_goes_on_after_a_record_that_was_deleted_meanwhile(store: Store, stripe: StandIn) -> None:
    gone = (404, {"error": {"code": "resource_missing", "param": "starting_after", "message": "No such product"}})
    stripe.says["/v1/products"] = [listing(product(1), has_more=True), gone, listing(product(2))]
    assert sync(store, "products").status == "succeeded"
    assert live(store, "products").keys() == {"prod_001", "prod_002"}
    path, query = stripe.asked[-1]
    assert (path, query["created[lte]"]) == ("/v1/products", [str(CREATED - 1)])


# --- lists inside records


@pytest.mark.parametrize("mode", ["empty", "repeat"])
def test_lines_that_never_end_fail_the_invoices_only(
    store: Store, sandbox: Sandbox, register: Register, mode: str
) -> None:
    register(sandbox)
    sandbox.fault("has_more_lie", path="/v1/invoices/*", mode=mode)
    report = sync(store, "invoices", "products")
    assert report.objects["products"].status == "succeeded"
    assert "was not followed further" in str(report.objects["invoices"].error)


def test_an_included_list_that_is_cut_to_nothing_is_read_from_its_start(store: Store, stripe: StandIn) -> None:
    note = {"id": "cn_1", "object": "credit_note", "created": CREATED, "lines": {"data": [], "has_more": True}}
    stripe.says["/v1/credit_notes"] = [listing(note)]
    stripe.says["/v1/credit_notes/cn_1/lines"] = [listing({"id": "cnli_1"}, has_more=True), listing({"id": "cnli_2"})]
    assert sync(store, "credit_notes").status == "succeeded"
    assert [line["id"] for line in live(store, "credit_notes")["cn_1"]["lines"]] == ["cnli_1", "cnli_2"]


# --- events


def test_an_events_list_that_breaks_off_does_not_move_the_checkpoint(store: Store, stripe: StandIn) -> None:
    """More is promised and nothing sent: had it counted as the end, the rest would be lost in silence."""
    stripe.says["/v1/products"] = [listing(product(1))]
    sync(store, "products")
    stripe.now = NOW + HOUR
    stripe.says["/v1/events"] = [listing(has_more=True)]
    assert "says there is more but sends an empty page" in error(store, "products")
    stripe.says["/v1/events"] = [listing(event(1, "product.updated", product(1, name="New"), NOW + 60))]
    assert sync(store, "products").status == "succeeded"
    assert live(store, "products")["prod_001"]["name"] == "New"


def test_thousands_of_changes_in_one_second_keep_their_order(store: Store, stripe: StandIn) -> None:
    stripe.says["/v1/products"] = [listing(product(1))]
    sync(store, "products")
    stripe.now = NOW + HOUR
    told = [event(n, "product.updated", product(1, name=f"name {n}"), NOW + 60) for n in range(2_500)]
    stripe.says["/v1/events"] = [lambda query: paged(told[::-1], query)]
    assert sync(store, "products").status == "succeeded"
    assert live(store, "products")["prod_001"]["name"] == "name 2499"
    last = event(9_999, "product.updated", product(1, name="last"), NOW + 61)
    stripe.now = NOW + 2 * HOUR
    stripe.says["/v1/events"] = [listing(last)]
    sync(store, "products")
    assert live(store, "products")["prod_001"]["name"] == "last", "a later second is newer than any before it"


def test_the_order_of_states_survives_the_thousandth_event_of_a_stretch(store: Store, stripe: StandIn) -> None:
    """Versions are milliseconds: the place within a second must not start anew in the middle of one."""
    stripe.says["/v1/subscriptions"] = [listing(subscription("incomplete"))]
    sync(store, "subscriptions")
    stripe.now = NOW + HOUR
    others = [
        event(n, "customer.subscription.updated", subscription("active", f"sub_{n:04}"), NOW + 60) for n in range(999)
    ]
    ours = [
        event(1_000 + n, "customer.subscription.updated", subscription(status), NOW + 60)
        for n, status in enumerate(("active", "past_due"))
    ]
    told = [*others, *ours]
    stripe.says["/v1/events"] = [lambda query: paged(told[::-1], query)]
    for number in range(999):
        stripe.says[f"/v1/subscriptions/sub_{number:04}"] = [subscription("active", f"sub_{number:04}")]
    stripe.says["/v1/subscriptions/sub_x"] = [subscription("past_due")]
    assert sync(store, "subscriptions").status == "succeeded"
    states = [row for row in rows(store, "subscriptions", suffix="_versions") if row["id"] == "sub_x"]
    states.sort(key=lambda row: row["valid_from"])
    assert [row["status"] for row in states] == ["incomplete", "active", "past_due"]


def subscription(status: str, id: str = "sub_x") -> dict[str, Any]:
    return {
        "id": id,
        "object": "subscription",
        "created": CREATED,
        "status": status,
        "items": listing(),
        "discounts": [],
    }


def test_an_event_without_its_object_fails_its_object_only(store: Store, stripe: StandIn) -> None:
    sync(store, "products", "prices")
    stripe.now = NOW + HOUR
    odd = {"id": "evt_1", "created": NOW + 60, "type": "product.updated"}
    stripe.says["/v1/events"] = [lambda query: listing(odd) if "product.updated" in str(query) else listing()]
    report = sync(store, "products", "prices")
    assert report.objects["prices"].status == "succeeded"
    assert "an event that does not say what it tells of" in str(report.objects["products"].error)


def test_what_an_event_tells_in_another_version_is_asked_for_anew(store: Store, stripe: StandIn) -> None:
    stripe.says["/v1/products"] = [listing(product(1))]
    sync(store, "products")
    stripe.now = NOW + HOUR
    stripe.says["/v1/events"] = [listing(event(1, "product.updated", product(1, name="old way"), NOW + 60, "2020"))]
    stripe.says["/v1/products/prod_001"] = [product(1, name="pinned way")]
    sync(store, "products")
    assert live(store, "products")["prod_001"]["name"] == "pinned way"


def test_what_was_changed_and_is_gone_when_asked_for_is_deleted(store: Store, stripe: StandIn) -> None:
    stripe.says["/v1/products"] = [listing(product(1))]
    sync(store, "products")
    stripe.now = NOW + HOUR
    stripe.says["/v1/events"] = [listing(event(1, "product.updated", product(1), NOW + 60, "2020"))]
    gone = {"error": {"code": "resource_missing", "param": "id", "message": "No such product: 'prod_001'"}}
    stripe.says["/v1/products/prod_001"] = [(404, gone)]
    sync(store, "products")
    (row,) = rows(store, "products")
    assert row["delete_kind"] == "hard"


def test_an_integration_s_own_version_is_the_one_its_events_are_held_against(
    store: Store, stripe: StandIn, register: Register
) -> None:
    own = register(stripe).model_copy(update={"api_version": "2025-01-27.acacia"})
    replace_integration(store, own, actor="test")
    stripe.says["/v1/products"] = [listing(product(1))]
    sync(store, "products")
    stripe.now = NOW + HOUR
    told = event(1, "product.updated", product(1, name="told"), NOW + 60, "2025-01-27.acacia")
    stripe.says["/v1/events"] = [listing(told)]
    sync(store, "products")
    assert live(store, "products")["prod_001"]["name"] == "told"
    assert not [path for path, _ in stripe.asked if path == "/v1/products/prod_001"]


def test_a_full_sync_keeps_the_versions_that_only_events_tell(store: Store, stripe: StandIn) -> None:
    """A full read sees the present; what came and went since the last sync is in the events."""
    stripe.says["/v1/subscriptions"] = [listing(subscription("active"))]
    sync(store, "subscriptions")
    stripe.now = NOW + HOUR
    told = [
        event(1, "customer.subscription.updated", subscription("past_due"), NOW + 60),
        event(2, "customer.subscription.updated", subscription("active"), NOW + 120),
    ]
    stripe.says["/v1/events"] = [lambda query: paged(told[::-1], query)]
    stripe.says["/v1/subscriptions/sub_x"] = [subscription("active")]
    sync(store, "subscriptions", mode=DataSyncMode.FULL)
    states = sorted(rows(store, "subscriptions", suffix="_versions"), key=lambda row: row["valid_from"])
    assert [row["status"] for row in states] == ["active", "past_due", "active"]
