"""The simulated Mailchimp's bounds, pages, refusals and hidden rows, as its documentation and probes of it tell."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from churnguard_pipelines.sandbox.mailchimp.ids import iso
from churnguard_pipelines.sandbox.serve import Sandbox, serve

ANCHOR = 1_780_000_000


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with serve(tmp_path_factory.mktemp("sandbox"), seed=3, anchor=ANCHOR, scale=0.03) as served:
        yield served


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{sandbox.url}/3.0/", auth=("any", sandbox.mailchimp("acme").api_key)) as client:
        yield client


def get(client: httpx.Client, path: str, **parameters: Any) -> Any:
    return client.get(path, params=parameters).raise_for_status().json()


def test_since_is_exclusive_and_before_is_not(client: httpx.Client) -> None:
    [first, *_] = get(client, "lists")["lists"]
    rows = get(client, f"lists/{first['id']}/members", count=1000, sort_field="last_changed", sort_dir="ASC")["members"]
    moment = rows[5]["last_changed"]
    path = f"lists/{first['id']}/members"
    since = get(client, path, count=1000, since_last_changed=moment)["members"]
    before = get(client, path, count=1000, before_last_changed=moment)["members"]
    assert moment not in {row["last_changed"] for row in since}
    assert moment in {row["last_changed"] for row in before}
    assert len(since) + len(before) == len(rows)


def test_archived_members_show_up_only_by_their_status(client: httpx.Client) -> None:
    [first, *_] = get(client, "lists")["lists"]
    path = f"lists/{first['id']}/members"
    assert "archived" not in {row["status"] for row in get(client, path, count=1000)["members"]}
    assert {row["status"] for row in get(client, path, status="archived")["members"]} == {"archived"}


@pytest.mark.parametrize(("count", "shown"), [(None, 10), (3, 3), (1_000_000, 1000)], ids=str)
def test_too_large_a_count_is_clamped_without_a_word(
    tmp_path_factory: pytest.TempPathFactory, count: int | None, shown: int
) -> None:
    with serve(tmp_path_factory.mktemp("sandbox"), anchor=ANCHOR, scale=0, bulk=1100) as served:
        auth = ("any", served.mailchimp("bulk").api_key)
        [audience] = httpx.get(f"{served.url}/3.0/lists", auth=auth).json()["lists"]
        asked = {} if count is None else {"count": count}
        page = httpx.get(f"{served.url}/3.0/lists/{audience['id']}/members", params=asked, auth=auth, timeout=30).json()
        assert (len(page["members"]), page["total_items"]) == (shown, 1100)


def test_flags_add_rows_to_a_segment_but_not_to_its_total(client: httpx.Client) -> None:
    [first, *_] = get(client, "lists")["lists"]
    for segment in get(client, f"lists/{first['id']}/segments")["segments"]:
        path = f"lists/{first['id']}/segments/{segment['id']}/members"
        plain = get(client, path, count=1000)
        more = get(client, path, count=1000, include_unsubscribed="true", include_cleaned="true")
        if len(more["members"]) > len(plain["members"]):
            assert more["total_items"] == plain["total_items"] == len(plain["members"])
            return
    pytest.fail("nobody left a segment")


def test_activity_since_leaves_events_out_and_no_recipient(client: httpx.Client) -> None:
    [report, *_] = [each for each in get(client, "reports", count=1000)["reports"] if each["opens"]["opens_total"]]
    path = f"reports/{report['id']}/email-activity"
    everything = get(client, path, count=1000)
    late = get(client, path, count=1000, since=report["opens"]["last_open"])
    assert len(late["emails"]) == len(everything["emails"]) == late["total_items"]
    assert any(each["activity"] for each in everything["emails"])
    assert not any(event["action"] == "open" for each in late["emails"] for event in each["activity"])


def test_drafts_have_an_empty_time_of_sending_and_no_report(client: httpx.Client) -> None:
    [draft] = [each for each in get(client, "campaigns", count=1000)["campaigns"] if each["status"] == "save"]
    assert draft["send_time"] == ""
    assert draft["id"] not in {each["id"] for each in get(client, "reports", count=1000)["reports"]}
    assert get(client, f"reports/{draft['id']}/email-activity")["emails"] == []


def test_what_is_left_out_is_left_out_and_both_ways_together_are_refused(client: httpx.Client) -> None:
    assert "_links" in get(client, "campaigns")["campaigns"][0]
    assert "_links" not in get(client, "campaigns", exclude_fields="campaigns._links")["campaigns"][0]
    assert get(client, "lists", fields="lists.id", count=1)["lists"][0].keys() == {"id"}
    assert client.get("lists", params={"fields": "lists.id", "exclude_fields": "_links"}).status_code == 400


def test_refusals_are_problem_details(sandbox: Sandbox, client: httpx.Client) -> None:
    refused = httpx.get(f"{sandbox.url}/3.0/lists", auth=("any", "0123-us1"))
    assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json; charset=utf-8")
    assert refused.json()["title"] == "API Key Invalid"
    assert client.get("lists/nowhere").json()["status"] == 404
    assert client.get("lists", params={"count": "-1"}).status_code == 400


def test_metadata_err_with_status_200(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/oauth2/metadata"
    unknown = httpx.get(url, headers={"authorization": "OAuth nothing"})
    assert (unknown.status_code, unknown.json()) == (200, {"error": "invalid_token"})
    token = sandbox.mailchimp("acme").token
    assert httpx.get(url, headers={"authorization": f"OAuth {token}"}).json()["dc"] == "us21"


def test_an_eleventh_connection_is_refused(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("latency", "/3.0/ping", seconds=0.3)
    with ThreadPoolExecutor(14) as pool:
        statuses = list(pool.map(lambda _: client.get("ping").status_code, range(14)))
    sandbox.clear_faults()
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 10


def test_the_mailings_of_a_business_come_out_the_same_after_a_restart(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("sandbox")
    with serve(folder, seed=3, anchor=ANCHOR, scale=0.02) as served:
        served.account("acme").mail_tick(60)
        before = {name: served.mailchimp("acme").rows(name) for name in ("members", "campaigns", "email_activity")}
    with serve(folder) as served:
        assert {name: served.mailchimp("acme").rows(name) for name in before} == before


def test_members_are_customers_and_others(sandbox: Sandbox) -> None:
    """As in life: some customers are in no audience, and some members are no customers."""
    emails = {row["email_address"] for row in sandbox.mailchimp("acme").rows("members")}
    customers = {each["email"] for each in sandbox.account("acme").objects("customers")}
    assert emails & customers
    assert emails - customers
    assert customers - emails
    assert iso(None) == ""
