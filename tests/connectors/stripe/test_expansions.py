"""What Stripe leaves out unless it is asked for: it is read in full, and events never replace it by less."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from churnguard_pipelines.connectors.stripe import Stripe
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.conftest import Register, live, rows, sync
from tests.connectors.standin import Query, StandIn
from tests.connectors.stripe.test_contract import contract
from tests.connectors.stripe.test_lies import CREATED, HOUR, NOW, event, listing, stripe

__all__ = ["stripe"]
TIERS = [{"up_to": 5, "unit_amount": 100}, {"up_to": None, "unit_amount": 80}]


def price(**fields: Any) -> dict[str, Any]:
    return {"id": "price_1", "object": "price", "created": CREATED, "currency": "usd", **fields}


def expanded(query: Query) -> set[str]:
    return {value for name, values in query.items() if name.startswith("expand[") for value in values}


def test_no_expansion_is_deeper_than_stripe_takes_and_each_is_one_it_declares() -> None:
    """Four levels, of which a list's `data` is one: docs.stripe.com/expand."""
    schemas = contract("openapi.json")["components"]["schemas"]
    for item in ("prices", "coupons", "subscriptions", "invoices"):
        paths = next(each.options.expand for each in Stripe.objects if each.name == item)
        assert paths
        for path in paths:
            assert path.count(".") < 3, path
            assert path.split(".")[0] in schemas[item.removesuffix("s")]["x-expandableFields"]


def test_the_simulated_stripe_shows_in_full_what_is_asked_for(store: Store, world: Sandbox, register: Register) -> None:
    register(world)
    sync(store, "prices", "coupons")
    prices = live(store, "prices").values()
    tiered = [row for row in prices if row["billing_scheme"] == "tiered"]
    assert tiered
    assert all(len(row["tiers"]) == 2 and row["unit_amount"] is None for row in tiered)
    assert all(row["currency_options"].keys() == {row["currency"]} for row in prices)
    coupons = live(store, "coupons")
    assert len(coupons["LAUNCH"]["applies_to"]["products"]) == 3
    assert coupons["FIXED-USD"]["currency_options"] == {"usd": {"amount_off": 1000}}


def test_an_event_of_a_price_is_not_all_of_it(store: Store, stripe: StandIn) -> None:
    """Neither does a state without tiers come in between, nor does a deletion wait for an answer."""
    full = price(tiers=TIERS, currency_options={"usd": {}})
    stripe.says["/v1/prices"] = [listing(full, price(id="price_2", tiers=TIERS))]
    assert sync(store, "prices").status == "succeeded"
    stripe.now = NOW + HOUR
    told = [event(2, "price.deleted", price(id="price_2"), NOW + 61), event(1, "price.updated", price(), NOW + 60)]
    stripe.says["/v1/events"] = [listing(*told)]
    stripe.says["/v1/prices/price_1"] = [full | {"nickname": "new", "tiers": TIERS[1:]}]
    assert sync(store, "prices").status == "succeeded"
    one, two = sorted(rows(store, "prices"), key=lambda row: str(row["id"]))
    assert (one["nickname"], one["tiers"]) == ("new", TIERS[1:])
    assert (two["tiers"], two["delete_kind"]) == (TIERS, "hard")
    (asked,) = [query for path, query in stripe.asked if path == "/v1/prices/price_1"]
    assert expanded(asked) == {"tiers", "currency_options"}


def test_tiers_in_other_currencies_are_asked_for_one_by_one(store: Store, stripe: StandIn) -> None:
    """For all at once Stripe takes the question and does not answer it."""
    codes = sorted(f"a{letter}{other}" for letter in "abcde" for other in "abcde")  # 25: in two requests
    options = {code: {"unit_amount": None} for code in codes}
    tiered = price(tiers=TIERS, currency_options={"usd": {"unit_amount": None}, **options})
    flat = price(id="price_2", currency_options={"usd": {"unit_amount": 5}, "gbp": {"unit_amount": 4}})
    stripe.says["/v1/prices"] = [listing(tiered, flat)]

    def told(query: Query) -> Any:
        asked = {path.split(".")[1] for path in expanded(query) if path.endswith(".tiers")}
        return tiered | {"currency_options": {code: {"tiers": TIERS} if code in asked else {} for code in codes}}

    stripe.says["/v1/prices/price_1"] = [told]
    assert sync(store, "prices").status == "succeeded"
    stored = live(store, "prices")["price_1"]["currency_options"]
    assert all(stored[code] == {"tiers": TIERS} for code in codes)
    assert [path for path, _ in stripe.asked if path.startswith("/v1/prices/")] == ["/v1/prices/price_1"] * 2


def test_discounts_of_single_items_are_read_in_full(store: Store, stripe: StandIn) -> None:
    own = {"id": "di_1", "source": {"coupon": "c"}, "start": CREATED}
    item = {"id": "si_1", "object": "subscription_item", "discounts": [own]}
    one = {"id": "sub_1", "object": "subscription", "created": CREATED, "status": "active", "discounts": []}
    stripe.says["/v1/subscriptions"] = [listing(one | {"items": listing(item, has_more=True)})]
    stripe.says["/v1/subscription_items"] = [listing(item | {"id": "si_2"})]
    sync(store, "subscriptions")
    asked = {path: expanded(query) for path, query in stripe.asked}
    assert asked["/v1/subscriptions"] == {"data.discounts", "data.items.data.discounts"}
    assert asked["/v1/subscription_items"] == {"data.discounts"}
    stripe.now = NOW + HOUR
    bare = one | {"items": listing(item | {"discounts": ["di_1"]}), "status": "past_due"}
    stripe.says["/v1/events"] = [listing(event(1, "customer.subscription.updated", bare, NOW + 60))]
    stripe.says["/v1/subscriptions/sub_1"] = [bare | {"items": listing(item)}]
    sync(store, "subscriptions")
    stored = live(store, "subscriptions")["sub_1"]
    assert (stored["status"], stored["items"][0]["discounts"]) == ("past_due", [own])


def test_what_was_read_with_less_is_read_anew(store: Store, stripe: StandIn) -> None:
    """Once, after an upgrade that asks for more; what the list no longer has is gone."""
    stripe.says["/v1/prices"] = [listing(price(), price(id="price_2"))]
    sync(store, "prices")
    with store.organization("acme") as connection:
        connection.execute(sa.text("UPDATE ingest.checkpoints SET position = position - 'expand'"))
    stripe.now = NOW + HOUR
    stripe.says["/v1/prices"] = [listing(price(tiers=TIERS))]
    assert sync(store, "prices").status == "succeeded"
    assert {row["id"]: row["tiers"] for row in rows(store, "prices") if row["deleted_at"] is None} == {"price_1": TIERS}
    asked = len(stripe.asked)
    stripe.now = NOW + 2 * HOUR
    sync(store, "prices")
    assert "/v1/prices" not in [path for path, _ in stripe.asked[asked:]]
