"""Lists: newest first, complete, without doubles, whatever is added while somebody reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnguard_pipelines.sandbox.serve import Sandbox, serve
from tests.sandbox.conftest import ANCHOR, client, read_all


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with serve(tmp_path_factory.mktemp("empty"), seed=1, anchor=ANCHOR, scale=0) as sandbox:
        yield sandbox


def page(api: httpx.Client, path: str, **parameters: Any) -> dict[str, Any]:
    answer = api.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(2, 9), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
def test_paging_is_complete_under_concurrent_inserts(empty: Sandbox, steps: list[tuple[int, int, int]]) -> None:
    """Each step: read a page of `limit`, then `inserts` customers arrive, then `seconds` pass."""
    account = empty.account("acme")
    account.insert_customer()
    before = [customer["id"] for customer in account.objects("customers")]
    seen: list[dict[str, Any]] = []
    with client(empty) as api:
        more, position = True, 0
        while more:
            limit, inserts, seconds = steps[position % len(steps)]
            position += 1
            after = {"starting_after": seen[-1]["id"]} if seen else {}
            found = page(api, "/v1/customers", limit=limit, **after)
            seen += found["data"]
            more = found["has_more"]
            for _ in range(inserts):
                account.insert_customer()
            account.advance(seconds)
    ids = [customer["id"] for customer in seen]
    assert ids == before
    created = [customer["created"] for customer in seen]
    assert created == sorted(created, reverse=True)


def test_paging_upwards_gives_the_same(world: Sandbox) -> None:
    with client(world) as api:
        down = [charge["id"] for charge in read_all(api, "/v1/charges")]
        first, last = down[0], down[-1]
        up: list[str] = [last]
        while True:
            found = page(api, "/v1/charges", limit=100, ending_before=up[0])
            up = [charge["id"] for charge in found["data"]] + up
            if not found["has_more"]:
                break
    assert up == down
    assert up[0] == first


def test_created_windows_cut_a_list_into_disjoint_parts(world: Sandbox) -> None:
    with client(world) as api:
        everything = read_all(api, "/v1/invoices")
        middle = everything[len(everything) // 2]["created"]
        older = read_all(api, "/v1/invoices", **{"created[lt]": middle})
        at = read_all(api, "/v1/invoices", created=middle)
        newer = read_all(api, "/v1/invoices", **{"created[gt]": middle})
        assert newer + at + older == everything
        assert read_all(api, "/v1/invoices", **{"created[gte]": middle}) == newer + at
        assert read_all(api, "/v1/invoices", **{"created[lte]": middle}) == at + older
        inside = read_all(api, "/v1/invoices", **{"created[gte]": middle, "created[lt]": middle + 86_400})
        assert inside == [each for each in everything if middle <= each["created"] < middle + 86_400]


def test_ten_are_listed_by_default_and_a_hundred_at_most(world: Sandbox) -> None:
    with client(world) as api:
        assert len(page(api, "/v1/charges")["data"]) == 10
        refused = api.get("/v1/charges", params={"limit": 101})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "limit"


def test_counts_are_what_lists_return(world: Sandbox) -> None:
    counts = world.account("globex").counts()
    with client(world, "rk_sandbox_globex") as api:
        assert httpx.get(f"{world.url}/_books/globex/counts").json() == counts
        for path in ("customers", "coupons", "products", "invoices", "invoiceitems", "events"):
            assert len(read_all(api, f"/v1/{path}")) == counts[path]
        assert len(read_all(api, "/v1/subscriptions", status="all")) == counts["subscriptions"]


def test_canceled_subscriptions_hide_unless_asked_for(world: Sandbox) -> None:
    with client(world) as api:
        shown = {subscription["status"] for subscription in read_all(api, "/v1/subscriptions")}
        everything = {subscription["status"] for subscription in read_all(api, "/v1/subscriptions", status="all")}
        canceled = read_all(api, "/v1/subscriptions", status="canceled")
    assert "canceled" not in shown
    assert {"active", "canceled"} <= everything
    assert {subscription["status"] for subscription in canceled} == {"canceled"}


def test_an_included_list_holds_ten_and_the_rest_is_paged(world: Sandbox) -> None:
    with client(world) as api:
        invoices = read_all(api, "/v1/invoices")
        long = next(invoice for invoice in invoices if invoice["lines"]["has_more"])
        assert len(long["lines"]["data"]) == 10
        lines = read_all(api, long["lines"]["url"], limit=4)
    assert lines[:10] == long["lines"]["data"]
    assert sum(line["amount"] for line in lines) == long["subtotal"]


def test_subscription_items_are_paged_too(world: Sandbox) -> None:
    with client(world) as api:
        subscription = read_all(api, "/v1/subscriptions")[0]
        items = read_all(api, "/v1/subscription_items", subscription=subscription["id"], limit=1)
        assert items == subscription["items"]["data"]
        assert api.get("/v1/subscription_items").json()["error"]["code"] == "parameter_missing"


def test_discounts_are_ids_until_expanded(world: Sandbox) -> None:
    with client(world) as api:
        plain = read_all(api, "/v1/invoices")
        expanded = read_all(api, "/v1/invoices", **{"expand[]": "data.discounts"})
    with_discounts = [each for each in expanded if each["discounts"]]
    assert with_discounts
    assert [[discount["id"] for discount in each["discounts"]] for each in expanded] == [
        each["discounts"] for each in plain
    ]
    assert all(each["discounts"][0]["source"]["coupon"] for each in with_discounts)


def test_the_bulk_account_costs_nothing_and_pages_like_the_others(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serve(tmp_path_factory.mktemp("bulk"), seed=1, anchor=ANCHOR, scale=0, bulk=2_345) as sandbox:
        with client(sandbox, "rk_sandbox_bulk") as api:
            everything = read_all(api, "/v1/customers")
            middle = everything[1000]
            window = read_all(api, "/v1/customers", **{"created[gte]": middle["created"]})
            assert api.get(f"/v1/customers/{middle['id']}").json() == middle
            assert read_all(api, "/v1/invoices") == []
        assert sandbox.account("bulk").counts()["customers"] == 2_345
    assert len({customer["id"] for customer in everything}) == 2_345
    assert window == [customer for customer in everything if customer["created"] >= middle["created"]]
