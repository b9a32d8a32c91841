"""Budgets: what is left stands in headers, what is too much is 429 in one of three ways."""

from __future__ import annotations

import httpx
import pytest

from churnguard_pipelines.sandbox.hubspot.handle import PortalHandle
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.hubspot.conftest import hubspot, search

LIST = "/crm/v3/objects/contacts"


def test_what_is_left_of_the_real_limits(sandbox: Sandbox) -> None:
    handle = sandbox.hubspot("acme")
    with hubspot(sandbox, handle.token) as api:
        headers = [api.get(LIST).headers for _ in range(2)]
        for silent in (search(api, "contacts"), api.get("/crm/v3/owners")):
            assert silent.status_code == 200
            assert not [name for name in silent.headers if "ratelimit" in name]
    assert [each["x-hubspot-ratelimit-remaining"] for each in headers] == ["189", "188"]
    assert headers[0]["x-hubspot-ratelimit-max"] == "190"
    assert headers[0]["x-hubspot-ratelimit-interval-milliseconds"] == "10000"
    assert headers[0]["x-hubspot-ratelimit-secondly"] == "19"
    assert headers[0]["x-hubspot-ratelimit-daily"] == "650000"


def test_more_than_ten_seconds_allow(sandbox: Sandbox, portal: PortalHandle, api: httpx.Client) -> None:
    portal.limit(per_interval=3)
    answers = [api.get(LIST) for _ in range(5)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
    assert {each.json()["policyName"] for each in answers[3:]} == {"TEN_SECONDLY_ROLLING"}
    assert ["retry-after" in each.headers for each in answers[3:]] == [False, True]
    with hubspot(sandbox, portal.token_without("tickets")) as other:
        assert other.get(LIST).status_code == 200


def test_search_has_a_budget_of_its_own(portal: PortalHandle, api: httpx.Client) -> None:
    portal.limit(searches=2)
    answers = [search(api, "contacts") for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert answers[2].json()["policyName"] == "SECONDLY"
    assert api.get(LIST).status_code == 200


def test_the_day_is_shared_by_all_apps(sandbox: Sandbox, portal: PortalHandle, api: httpx.Client) -> None:
    portal.limit(daily=3)
    with hubspot(sandbox, portal.token_without("tickets")) as other:
        assert other.get(LIST).headers["x-hubspot-ratelimit-daily-remaining"] == "2"
        assert api.get(LIST).headers["x-hubspot-ratelimit-daily-remaining"] == "1"
        assert search(api, "contacts").status_code == 200
        refused = other.get(LIST)
    assert (refused.status_code, refused.json()["policyName"]) == (429, "DAILY")
    with hubspot(sandbox, sandbox.hubspot("globex").token) as stranger:
        assert stranger.get(LIST).status_code == 200


def test_an_oauth_app_has_its_own_ceiling_and_no_daily_headers(sandbox: Sandbox) -> None:
    handle = sandbox.hubspot("acme")
    form = {"grant_type": "refresh_token", "refresh_token": handle.install()}
    form |= {"client_id": handle.client_id, "client_secret": handle.client_secret}
    token = httpx.post(f"{sandbox.url}/oauth/v1/token", data=form).json()["access_token"]
    with hubspot(sandbox, token) as api:
        headers = api.get(LIST).headers
    assert (headers["x-hubspot-ratelimit-max"], headers["x-hubspot-ratelimit-secondly"]) == ("110", "11")
    assert "x-hubspot-ratelimit-daily" not in headers


def test_cloudflare_steps_in_with_a_body_of_its_own(portal: PortalHandle, api: httpx.Client) -> None:
    portal.limit(edge=1)
    refused = [api.get(LIST) for _ in range(2)][1]
    assert refused.status_code == 429
    assert "retry-after" not in refused.headers
    assert refused.json()["retry_after"] >= 1
    assert refused.json()["error_code"] == 1015


def test_limits_over_http(sandbox: Sandbox, portal: PortalHandle, api: httpx.Client) -> None:
    changed = httpx.patch(f"{sandbox.url}/_hubspot/acme/limits", json={"per_interval": 1})
    assert changed.json()["limits"]["per_interval"] == 1
    assert [api.get(LIST).status_code for _ in range(2)] == [200, 429]
    assert portal.refused == 1
    unknown = httpx.patch(f"{sandbox.url}/_hubspot/acme/limits", json={"speed": 1})
    assert (unknown.status_code, unknown.json()) == (400, {"error": "unknown limits: speed"})


# Faults of the sandbox


@pytest.mark.parametrize("body", ["json", "html", "empty"])
def test_a_status_so_many_times(sandbox: Sandbox, api: httpx.Client, body: str) -> None:
    sandbox.fault("status", "/crm/*", status=502, times=1, body=body)
    failed = api.get(LIST)
    assert failed.status_code == 502
    if body == "json":
        assert set(failed.json()) == {"status", "message", "correlationId"}
    assert api.get(LIST).status_code == 200


def test_a_token_is_revoked_until_faults_are_cleared(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.fault("revoke", "/crm/*", skip=1, times=1)
    assert [api.get(LIST).status_code for _ in range(3)] == [200, 401, 401]
    sandbox.clear_faults()
    assert api.get(LIST).status_code == 200


def test_a_page_that_lies(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.fault("has_more_lie", LIST, mode="empty", times=1)
    empty = api.get(LIST).json()
    assert (empty["results"], "paging" in empty) == ([], True)
    sandbox.fault("bad_record", LIST, record=1, field="createdAt", value="soon", times=1)
    assert api.get(LIST).json()["results"][1]["createdAt"] == "soon"


def test_a_slower_pace_on_request(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.fault("rate_limit", "/crm/*", rate=1, retry_after=2)
    refused = [api.get(LIST) for _ in range(2)][1]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")


def test_every_answer_may_take_its_time(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.fault("latency", "/crm/*", seconds=0.15)
    assert api.get(LIST).elapsed.total_seconds() >= 0.15
