"""What HubSpot's answers say of its limits, and what becomes of a refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.hubspot import HubSpot, limits
from churnguard_pipelines.engine.http import Response
from churnguard_pipelines.engine.quota import LEASE_SECONDS, pace
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.hubspot.conftest import Register, record, rows, sync
from tests.connectors.standin import StandIn

OAUTH_APP = {
    "x-hubspot-ratelimit-max": "110",
    "x-hubspot-ratelimit-remaining": "108",
    "x-hubspot-ratelimit-interval-milliseconds": "10000",
    "x-hubspot-ratelimit-secondly": "11",
    "x-hubspot-ratelimit-secondly-remaining": "10",
}
DAILY = {"x-hubspot-ratelimit-daily": "250000"}
TOO_MANY = {
    "status": "error",
    "message": "You have reached your ten_secondly_rolling limit.",
    "errorType": "RATE_LIMIT",
}


def blocked(store: Store) -> dict[str, float]:
    """Seconds for which each budget is closed, by the name of its own that it has."""
    with store.organization("acme") as connection:
        found = connection.execute(
            sa.text(
                "SELECT split_part(account, '/', 2), coalesce(extract(epoch FROM blocked_until - clock_timestamp()), 0)"
                " FROM ingest.quotas"
            )
        )
        return {name or "general": float(left) for name, left in found}


def until_a_whole_hour(store: Store) -> bool:
    """Whether the general budget was closed until one, and some seconds."""
    with store.organization("acme") as connection:
        until = connection.scalar(sa.text("SELECT extract(epoch FROM blocked_until) FROM ingest.quotas"))
        return until is not None and float(until) % 3600 == pytest.approx(5, abs=3)


def test_the_secondly_header_is_not_the_ten_second_budget() -> None:
    """11 and 110 stand side by side; the pace is 110 in ten seconds."""
    told = limits.read_limits(OAUTH_APP)
    assert told is not None
    assert (told.limit, told.window, told.remaining, told.reset_after) == (110, 10.0, None, None)


def test_search_and_owners_without_headers_say_nothing() -> None:
    assert limits.read_limits({}) is None


@pytest.mark.parametrize(
    "told", ["", "many", "-1", "1e9", "9" * 40], ids=["empty", "words", "minus", "float", "endless"]
)
def test_headers_that_mean_nothing_change_nothing(told: str) -> None:
    assert limits.read_limits({"x-hubspot-ratelimit-max": told, "x-hubspot-ratelimit-daily": told}) is None


def test_of_the_day_a_share_is_left_to_the_customers_other_apps() -> None:
    much = limits.read_limits(OAUTH_APP | DAILY | {"x-hubspot-ratelimit-daily-remaining": "25001"})
    little = limits.read_limits(OAUTH_APP | DAILY | {"x-hubspot-ratelimit-daily-remaining": "25000"})
    assert much is not None
    assert (much.remaining, much.reset_after) == (25_001, None)
    assert little is not None
    assert little.reset_after is not None
    assert 0 < little.reset_after <= 3605


@pytest.mark.parametrize("most", [100, 110, 190, 250])
def test_no_ten_seconds_see_more_than_the_limit(most: int) -> None:
    told = pace(replace(limits.GENERAL, per_second=most / 10), 60_000)
    assert told.capacity + told.rate * (10 + LEASE_SECONDS) <= most
    assert told.rate >= 0.9 * most / 10 * 0.99, "of what is left to us, all is used"


@pytest.mark.parametrize(
    ("status", "body", "headers", "seconds"),
    [
        (429, TOO_MANY | {"policyName": "TEN_SECONDLY_ROLLING"}, {}, 10.0),
        (429, {"message": "You have reached your secondly limit.", "policyName": "SECONDLY"}, {}, 1.0),
        (429, {"title": "Error 1015: You are being rate limited", "retryable": True, "retry_after": 30}, {}, 30.0),
        (502, {"title": "Error 502: Bad gateway", "retry_after": 60}, {}, 60.0),
        (429, {"message": "slow down"}, {}, None),
        (429, {"retry_after": "soon"}, {}, None),
        (429, {"retry_after": True}, {}, None),
        (404, {"retry_after": 30}, {}, None),
    ],
    ids=["ten-secondly", "search", "cloudflare", "cloudflare-5xx", "untold", "words", "true", "no-refusal"],
)  # fmt: skip
def test_a_refusal_without_retry_after_tells_in_its_body(
    status: int, body: Any, headers: Mapping[str, str], seconds: float | None
) -> None:
    assert limits.retry_after(Response(status, headers, json.dumps(body).encode(), 0.0)) == seconds


def test_a_429_without_retry_after_is_waited_out(store: Store, hubspot: StandIn) -> None:
    hubspot.says["/crm/v3/objects/products"] = [(429, TOO_MANY), {"results": [record(1, name="Seat")]}]
    report = sync(store, "products")
    assert report.status == "succeeded"
    assert rows(store, "products")["1"]["name"] == "Seat"


def test_a_429_with_retry_after_is_waited_out_exactly(store: Store, hubspot: StandIn) -> None:
    hubspot.says["/crm/v3/objects/products"] = [(429, TOO_MANY, {"Retry-After": "1"}), {"results": [record(1)]}]
    assert sync(store, "products").status == "succeeded"


def test_a_search_that_is_refused_leaves_the_general_budget_open(store: Store, hubspot: StandIn) -> None:
    sync(store, "products")
    refusal = {"message": "You have reached your secondly limit.", "policyName": "SECONDLY"}
    hubspot.says["/crm/v3/objects/products/search"] = [(429, refusal, {"Retry-After": "500"})]
    report = sync(store, "products")
    assert "rate limit" in str(report.objects["products"].error)
    closed = blocked(store)
    assert closed["search"] > 400
    assert closed["general"] < 60


@pytest.fixture
def no_whole_hour_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within five minutes of one a sync waits for it. Each week ends with a whole hour, too."""
    monkeypatch.setattr(limits, "HOUR", 7 * 24 * limits.HOUR)


def test_the_daily_quota_of_all_apps_stops_the_sync_until_it_is_renewed(
    store: Store, hubspot: StandIn, no_whole_hour_soon: None
) -> None:
    """No pause of seconds helps, and one of a day would be in vain: it is midnight somewhere at each whole hour."""
    refusal = {"message": "You have reached your daily limit.", "errorType": "RATE_LIMIT", "policyName": "DAILY"}
    hubspot.says["/crm/v3/objects/products"] = [(429, refusal)]
    report = sync(store, "products")
    assert "quota is used up" in str(report.objects["products"].error)
    assert len([path for path, _ in hubspot.asked if path == "/crm/v3/objects/products"]) == 1
    assert until_a_whole_hour(store)


def test_the_daily_reserve_is_kept_by_headers(store: Store, hubspot: StandIn, no_whole_hour_soon: None) -> None:
    used = DAILY | {"x-hubspot-ratelimit-daily-remaining": "20000"}
    hubspot.says["/crm/v3/properties/products"] = [(200, {"results": []}, used)]
    sync(store, "products")
    assert until_a_whole_hour(store)


def test_general_and_search_budgets_are_kept_apart(store: Store, connect: Register, hubspot: StandIn) -> None:
    sync(store, "products")
    sync(store, "products")
    assert blocked(store).keys() == {"general", "search"}
    assert HubSpot.budgets(connect(hubspot.url)).keys() == {"search"}
