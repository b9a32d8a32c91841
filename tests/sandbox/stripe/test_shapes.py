"""Every object that a list returns has exactly the shape that Stripe publishes."""

from __future__ import annotations

import pytest

from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.sandbox.stripe.resources import RESOURCES
from tests.sandbox.conftest import client, read_all
from tests.sandbox.stripe.contracts import judge, list_parameters

SCHEMAS = {
    "customers": "customer",
    "products": "product",
    "prices": "price",
    "plans": "plan",
    "subscriptions": "subscription",
    "subscription_schedules": "subscription_schedule",
    "invoices": "invoice",
    "invoiceitems": "invoiceitem",
    "charges": "charge",
    "payment_intents": "payment_intent",
    "refunds": "refund",
    "disputes": "dispute",
    "credit_notes": "credit_note",
    "coupons": "coupon",
    "promotion_codes": "promotion_code",
    "balance_transactions": "balance_transaction",
    "payouts": "payout",
    "checkout/sessions": "checkout.session",
    "events": "event",
}
CURRENT = "2026-05-27.dahlia"


def test_every_list_has_a_judge() -> None:
    assert {resource.path for resource in RESOURCES} == set(SCHEMAS)


@pytest.mark.parametrize("path", SCHEMAS)
def test_objects_are_as_published(world: Sandbox, path: str) -> None:
    everything = {"status": "all"} if path == "subscriptions" else {}
    with client(world, "rk_sandbox_globex") as api:
        objects = read_all(api, f"/v1/{path}", **everything)
        asked = ["data.discounts", "data.tiers", "data.currency_options", "data.applies_to"]
        expanded = api.get(f"/v1/{path}", params={"limit": 100, "expand[]": asked}).json()["data"]
    assert objects, f"the business has no {path}"
    for each in [*objects[:: max(1, len(objects) // 60)], *expanded]:
        judge(SCHEMAS[path]).validate(each)


def test_events_carry_objects_as_published(world: Sandbox) -> None:
    with client(world) as api:
        events = read_all(api, "/v1/events")
    seen: dict[str, int] = {}
    for event in events:
        kind = event["data"]["object"]["object"]
        seen[kind] = seen.get(kind, 0) + 1
        if event["api_version"] == CURRENT and seen[kind] <= 15:
            judge(kind).validate(event["data"]["object"])
    assert {"customer", "subscription", "invoice", "charge", "payment_intent", "payout", "coupon"} <= seen.keys()


def test_nothing_is_expanded_deeper_than_four_levels(world: Sandbox) -> None:
    with client(world) as api:
        refused = api.get("/v1/subscriptions", params={"expand[]": "data.items.data.price.tiers"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "property_expansion_max_depth")


def test_the_account_and_its_balance_are_as_published(world: Sandbox) -> None:
    with client(world) as api:
        judge("account").validate(api.get("/v1/account").json())
        judge("balance").validate(api.get("/v1/balance").json())


@pytest.mark.parametrize("path", SCHEMAS)
def test_no_parameter_is_made_up(path: str) -> None:
    resource = next(resource for resource in RESOURCES if resource.path == path)
    assert set(resource.filters) <= list_parameters(f"/v1/{path}")


def test_yen_have_no_cents(world: Sandbox) -> None:
    with client(world, "rk_sandbox_globex") as api:
        prices = read_all(api, "/v1/prices")
    starter = {price["currency"]: price["unit_amount"] for price in prices if price["nickname"] in STARTER_BY_THE_MONTH}
    assert starter == {"usd": 1900, "eur": 1710, "jpy": 2850}


STARTER_BY_THE_MONTH = {f"Starter {currency} monthly" for currency in ("USD", "EUR", "JPY")}
