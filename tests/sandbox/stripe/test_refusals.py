"""What the simulated API refuses, in Stripe's words, and how it misbehaves on request."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import httpx
import pytest

from churnguard_pipelines.sandbox.serve import Sandbox, serve
from tests.sandbox.conftest import ANCHOR, client


def test_a_key_is_needed(world: Sandbox) -> None:
    refused = httpx.get(f"{world.url}/v1/customers")
    assert refused.status_code == 401
    assert refused.json()["error"]["message"].startswith("You did not provide an API key.")


def test_a_wrong_key_is_shown_masked(world: Sandbox) -> None:
    with client(world, "rk_live_thisisasecretvalue1234") as api:
        refused = api.get("/v1/customers")
    assert refused.status_code == 401
    assert refused.json()["error"]["message"] == "Invalid API Key provided: rk_live_******************1234"


def test_a_key_may_come_as_the_user_of_basic_authentication(world: Sandbox) -> None:
    assert httpx.get(f"{world.url}/v1/account", auth=("rk_sandbox_globex", "")).json()["country"] == "DE"


def test_a_restricted_key_names_the_permission_it_lacks(world: Sandbox) -> None:
    with client(world, "rk_sandbox_acme_no_payouts") as api:
        assert api.get("/v1/customers").status_code == 200
        refused = api.get("/v1/payouts")
        assert api.get("/v1/balance_transactions").status_code == 403
    assert refused.status_code == 403
    error = refused.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert (
        "does not have the required permissions for this endpoint on account 'acct_1SandboxAcme0001'"
        in error["message"]
    )
    assert "Having the 'rak_payout_read' permission would allow this request to continue." in error["message"]


def test_a_connected_account_is_read_through_its_platform(world: Sandbox) -> None:
    with client(world, "rk_sandbox_globex") as api:
        theirs = api.get("/v1/account", headers={"stripe-account": "acct_1SandboxAcme0001"})
        unknown = api.get("/v1/account", headers={"stripe-account": "acct_nobody"})
    assert theirs.json()["business_profile"]["name"] == "Acme Analytics"
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (403, "account_invalid")


@pytest.mark.parametrize(
    ("query", "status", "code", "param"),
    [
        ("customers?colour=red", 400, "parameter_unknown", "colour"),
        ("customers?created[since]=1", 400, "parameter_unknown", "created[since]"),
        ("customers?limit=many", 400, "parameter_invalid_integer", "limit"),
        ("customers?created[gte]=soon", 400, "parameter_invalid_integer", "created[gte]"),
        ("customers?starting_after=cus_nobody", 404, "resource_missing", "starting_after"),
        ("invoices/in_none", 404, "resource_missing", "id"),
        ("unicorns", 404, None, None),
    ],
)
def test_bad_requests(world: Sandbox, query: str, status: int, code: str | None, param: str | None) -> None:
    with client(world) as api:
        refused = api.get(f"/v1/{query}")
    error = refused.json()["error"]
    assert (refused.status_code, error.get("code"), error.get("param")) == (status, code, param)


def test_a_deleted_customer_leaves_a_stub(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    gone, kept = account.insert_customer(), account.insert_customer()
    account.delete_customer(gone)
    with client(sandbox) as api:
        assert api.get(f"/v1/customers/{gone}").json() == {"id": gone, "object": "customer", "deleted": True}
        listed = [customer["id"] for customer in api.get("/v1/customers").json()["data"]]
        assert api.get("/v1/customers", params={"starting_after": gone}).status_code == 404
    assert kept in listed
    assert gone not in listed


def test_answers_carry_stripes_headers(world: Sandbox) -> None:
    with client(world) as api:
        answer = api.get("/v1/customers", headers={"stripe-version": "2026-05-27.dahlia"})
    assert answer.headers["stripe-version"] == "2026-05-27.dahlia"
    assert answer.headers["request-id"].startswith("req_")
    assert parsedate_to_datetime(answer.headers["date"]).timestamp() == ANCHOR


def test_more_than_the_quota_is_429(tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        serve(tmp_path_factory.mktemp("quota"), seed=1, anchor=ANCHOR, scale=0, rate=5) as sandbox,
        client(sandbox) as api,
    ):
        statuses = [api.get("/v1/customers").status_code for _ in range(7)]
        refused = next(answer for answer in iter(lambda: api.get("/v1/customers"), None) if answer.status_code == 429)
    assert statuses[:5] == [200] * 5
    assert refused.json()["error"]["code"] == "rate_limit"
    assert "retry-after" not in refused.headers


# Faults


@pytest.mark.parametrize(("body", "kind"), [("json", "application/json"), ("html", "text/html"), ("empty", None)])
def test_a_status_so_many_times(sandbox: Sandbox, body: str, kind: str | None) -> None:
    sandbox.fault("status", "/v1/invoices", status=503, times=2, body=body, retry_after=3)
    with client(sandbox) as api:
        assert api.get("/v1/customers").status_code == 200
        failed = api.get("/v1/invoices")
        assert (failed.status_code, failed.headers["retry-after"]) == (503, "3")
        assert kind is None or failed.headers["content-type"] == kind
        assert [api.get("/v1/invoices").status_code for _ in range(2)] == [503, 200]


def test_retry_after_as_a_date(sandbox: Sandbox) -> None:
    sandbox.fault("status", status=429, retry_after=60, retry_after_date=True)
    with client(sandbox) as api:
        failed = api.get("/v1/invoices")
    wait = parsedate_to_datetime(failed.headers["retry-after"]) - parsedate_to_datetime(failed.headers["date"])
    assert 59 <= wait.total_seconds() <= 61


def test_faults_over_http(sandbox: Sandbox) -> None:
    with client(sandbox) as api:
        assert httpx.post(f"{sandbox.url}/_faults", json={"kind": "html", "path": "/v1/charges"}).status_code == 201
        assert api.get("/v1/charges").headers["content-type"] == "text/html"
        httpx.delete(f"{sandbox.url}/_faults")
        assert api.get("/v1/charges").json()["object"] == "list"
        unknown = httpx.post(f"{sandbox.url}/_faults", json={"kind": "weather"})
    assert unknown.status_code == 400
    assert "unknown kind of fault 'weather'" in unknown.json()["error"]


def test_a_cut_answer(sandbox: Sandbox) -> None:
    sandbox.fault("cut", "/v1/prices", times=1)
    with client(sandbox) as api:
        with pytest.raises(httpx.RemoteProtocolError):
            api.get("/v1/prices")
        assert api.get("/v1/prices").status_code == 200


def test_a_hanging_answer(sandbox: Sandbox) -> None:
    sandbox.fault("hang", "/v1/prices", times=1)
    with client(sandbox, timeout=0.2) as api:
        with pytest.raises(httpx.ReadTimeout):
            api.get("/v1/prices")
        assert api.get("/v1/prices").status_code == 200


@pytest.mark.parametrize("kind", ["slow", "latency"])
def test_slow_answers(sandbox: Sandbox, kind: str) -> None:
    sandbox.fault(kind, seconds=0.15)
    began = time.monotonic()
    with client(sandbox) as api:
        assert api.get("/v1/prices").status_code == 200
    assert time.monotonic() - began >= 0.15


def test_lies_about_has_more(sandbox: Sandbox) -> None:
    with client(sandbox) as api:
        first = api.get("/v1/prices", params={"limit": 100}).json()
        last = first["data"][-1]["id"]
        sandbox.fault("has_more_lie", "/v1/prices", mode="forever")
        beyond = api.get("/v1/prices", params={"limit": 100, "starting_after": last}).json()
        sandbox.clear_faults()
        sandbox.fault("has_more_lie", "/v1/prices", mode="repeat")
        again = api.get("/v1/prices", params={"limit": 100, "starting_after": last}).json()
        sandbox.clear_faults()
        sandbox.fault("has_more_lie", "/v1/prices", mode="empty")
        empty = api.get("/v1/prices").json()
    assert (beyond["data"], beyond["has_more"]) == ([], True)
    assert (again["data"], again["has_more"]) == (first["data"], True)
    assert (empty["data"], empty["has_more"]) == ([], True)


def test_a_record_of_a_wrong_type(sandbox: Sandbox) -> None:
    sandbox.fault("bad_record", "/v1/prices", record=2, times=1)
    with client(sandbox) as api:
        created = [price["created"] for price in api.get("/v1/prices").json()["data"]]
    assert created[2] == "soon"
    assert all(isinstance(each, int) for each in created[:2] + created[3:])


def test_a_revoked_key_stays_revoked(sandbox: Sandbox) -> None:
    sandbox.fault("revoke", key="rk_sandbox_acme", skip=1, times=1)
    with client(sandbox) as api, client(sandbox, "rk_sandbox_globex") as other:
        statuses = [api.get("/v1/prices").status_code for _ in range(3)]
        assert other.get("/v1/prices").status_code == 200
        assert api.get("/v1/prices").json()["error"]["code"] == "api_key_expired"
    assert statuses == [200, 401, 401]


def test_a_lower_quota_with_retry_after(sandbox: Sandbox) -> None:
    sandbox.fault("rate_limit", rate=1, retry_after=1)
    with client(sandbox) as api:
        answers = [api.get("/v1/prices") for _ in range(4)]
    assert answers[0].status_code == 200
    assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 429} == {"1"}
