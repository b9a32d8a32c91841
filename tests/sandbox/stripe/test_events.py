"""Events: 30 days of them, newest first, about what really changed."""

from __future__ import annotations

from churnguard_pipelines.sandbox.business import subscriptions
from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.conftest import ANCHOR, client, read_all

DAY = 86_400


def test_events_are_kept_thirty_days(world: Sandbox) -> None:
    with client(world) as api:
        events = read_all(api, "/v1/events")
    assert max(event["created"] for event in events) <= ANCHOR
    assert ANCHOR - 30 * DAY <= min(event["created"] for event in events) < ANCHOR - 29 * DAY


def test_an_event_ages_out(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    made = account.insert_customer()
    with client(sandbox) as api:
        [event] = [e for e in api.get("/v1/events").json()["data"] if e["data"]["object"]["id"] == made]
        account.advance(31 * DAY)
        assert api.get(f"/v1/events/{event['id']}").status_code == 404
        assert api.get("/v1/events", params={"starting_after": event["id"]}).json()["data"] == []
        assert event["id"] not in {each["id"] for each in read_all(api, "/v1/events")}


def test_types_can_be_chosen(world: Sandbox) -> None:
    with client(world) as api:
        everything = read_all(api, "/v1/events")
        paid = read_all(api, "/v1/events", type="invoice.paid")
        several = read_all(api, "/v1/events", **{"types[]": ["invoice.paid", "charge.failed"]})
        family = read_all(api, "/v1/events", type="customer.subscription.*")
    assert paid == [event for event in everything if event["type"] == "invoice.paid"]
    assert several == [event for event in everything if event["type"] in ("invoice.paid", "charge.failed")]
    assert family == [event for event in everything if event["type"].startswith("customer.subscription.")]


def test_the_newest_event_of_an_object_shows_it_as_it_is(world: Sandbox) -> None:
    """Except for what changes without an event, and for the few that are rendered in an old version."""
    with client(world) as api:
        events = read_all(api, "/v1/events")
        for kind, path in (("subscription", "subscriptions"), ("invoice", "invoices"), ("charge", "charges")):
            shown = {each["id"]: each for each in read_all(api, f"/v1/{path}", **ALL.get(path, {}))}
            told: dict[str, object] = {}
            for event in events:
                about = event["data"]["object"]
                if about["object"] == kind and about["id"] in shown and event["api_version"] == "2026-05-27.dahlia":
                    told.setdefault(about["id"], about)
                elif about["object"] == kind:
                    told.setdefault(about["id"], None)
            stale = [id for id, about in told.items() if about is not None and about != shown[id]]
            assert told
            assert stale == [], kind


ALL = {"subscriptions": {"status": "all"}}


def test_some_events_are_rendered_in_an_old_version(world: Sandbox) -> None:
    with client(world) as api:
        events = read_all(api, "/v1/events")
    old = [event for event in events if event["api_version"] == "2024-06-20"]
    about = [event["data"]["object"] for event in old]
    assert 0 < len(old) < len(events) / 20
    assert all("current_period_end" in each for each in about if each["object"] == "subscription")
    assert all("parent" not in each for each in about if each["object"] == "invoice")


def test_an_update_says_what_was_before(sandbox: Sandbox) -> None:
    def subscribe(business: Business) -> str:
        customer = business.customers.newest()
        assert customer is not None
        price = business.catalog.plans["usd", "month"][0]
        made = subscriptions.begin(business, customer, [(price, 2)], trial_days=14)
        subscriptions.cancel_at_period_end(business, made, "unused")
        return made.id

    account = sandbox.account("acme")
    account.insert_customer()
    id = account.act(subscribe)
    with client(sandbox) as api:
        events = api.get("/v1/events", params={"type": "customer.subscription.updated", "limit": 100}).json()["data"]
    [update] = [event for event in events if event["data"]["object"]["id"] == id]
    assert update["data"]["previous_attributes"] == {
        "cancel_at_period_end": False,
        "cancel_at": None,
        "canceled_at": None,
    }
    assert update["data"]["object"]["cancel_at_period_end"] is True
