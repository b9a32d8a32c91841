"""Search: what it finds, how late, how far, and what it does not take."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from churnguard_pipelines.sandbox.hubspot.handle import PortalHandle
from churnguard_pipelines.sandbox.hubspot.portal import Portal
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.hubspot.conftest import read_all, search, where

MODIFIED = "lastmodifieddate"


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["results"]]


def test_a_search_by_date_finds_what_a_list_shows_in_order(quiet: httpx.Client) -> None:
    listed = read_all(quiet, "/crm/v3/objects/contacts", limit=100)
    middle = sorted(each["updatedAt"] for each in listed)[len(listed) // 2]
    found = search(quiet, "contacts", where(MODIFIED, "GTE", middle), sorts=[MODIFIED]).json()
    expected = [each for each in listed if each["properties"][MODIFIED] >= middle]
    assert found["total"] == len(expected)
    assert {each["id"] for each in found["results"]} == {each["id"] for each in expected}
    dates = [each["properties"][MODIFIED] for each in found["results"]]
    assert dates == sorted(dates)


def test_instants_may_be_milliseconds_or_text(quiet: httpx.Client) -> None:
    text = quiet.get("/crm/v3/objects/deals?limit=1").json()["results"][0]["properties"]["hs_lastmodifieddate"]
    millis = round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)
    beyond = text.replace("Z", "999Z")  # what is finer than a millisecond counts for nothing
    found = [ids(search(quiet, "deals", where("hs_lastmodifieddate", "EQ", each))) for each in (text, millis, beyond)]
    assert found[0] == found[1] == found[2] != []


def test_pages_follow_by_count(quiet: httpx.Client) -> None:
    first = search(quiet, "contacts", limit=5).json()
    second = search(quiet, "contacts", limit=5, after=first["paging"]["next"]["after"]).json()
    assert first["paging"]["next"] == {"after": "5"}
    assert not {each["id"] for each in first["results"]} & {each["id"] for each in second["results"]}


OPERATORS: dict[str, tuple[list[dict[str, Any]], Any]] = {
    "EQ": ([where("country", "EQ", "DE")], lambda p: p["country"] == "DE"),
    "NEQ": ([where("country", "NEQ", "DE")], lambda p: p["country"] != "DE"),
    "IN": ([where("country", "IN", values=["de", "FR"])], lambda p: p["country"] in ("DE", "FR")),
    "NOT_IN": ([where("country", "NOT_IN", values=["DE", "FR"])], lambda p: p["country"] not in ("DE", "FR")),
    "HAS_PROPERTY": ([where("nps", "HAS_PROPERTY")], lambda p: p["nps"] is not None),
    "NOT_HAS_PROPERTY": ([where("nps", "NOT_HAS_PROPERTY")], lambda p: p["nps"] is None),
    "BETWEEN": ([where("nps", "BETWEEN", 3, highValue="8")], lambda p: p["nps"] and 3 <= int(p["nps"]) <= 8),
    "LT": ([where("nps", "LT", 10)], lambda p: p["nps"] and int(p["nps"]) < 10),
    "CONTAINS_TOKEN": ([where("email", "CONTAINS_TOKEN", "*gmail.com")], lambda p: "gmail.com" in (p["email"] or "")),
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators(quiet: httpx.Client, operator: str) -> None:
    filters, fits = OPERATORS[operator]
    names = "country,nps,email"
    listed = read_all(quiet, "/crm/v3/objects/contacts", limit=100, properties=names)
    expected = {each["id"] for each in listed if fits(each["properties"])}
    assert set(ids(search(quiet, "contacts", *filters, limit=200))) == expected
    assert expected


def test_groups_are_alternatives_and_filters_conditions(quiet: httpx.Client) -> None:
    german, french = where("country", "EQ", "DE"), where("country", "EQ", "FR")
    either = quiet.post(
        "/crm/v3/objects/contacts/search", json={"filterGroups": [{"filters": [german]}, {"filters": [french]}]}
    )
    both = search(quiet, "contacts", german, french)
    totals = [search(quiet, "contacts", each).json()["total"] for each in (german, french)]
    assert (either.json()["total"], both.json()["total"]) == (sum(totals), 0)


@pytest.mark.parametrize(
    "query",
    [
        pytest.param({"limit": 201}, id="limit above 200"),
        pytest.param({"filterGroups": [{"filters": [where("no_such", "EQ", 1)]}]}, id="unknown property"),
        pytest.param({"filterGroups": [{"filters": [where("nps", "LIKE", 1)]}]}, id="unknown operator"),
        pytest.param({"filterGroups": [{"filters": [where("nps", "EQ")]}]}, id="no value"),
        pytest.param({"filterGroups": [{"filters": []}] * 6}, id="six groups"),
        pytest.param({"filterGroups": [{"filters": [where("nps", "GT", 1)] * 7}]}, id="seven filters"),
        pytest.param({"sorts": ["nps", "email"]}, id="two sorts"),
        pytest.param({"sorts": ["no_such"]}, id="sort by an unknown property"),
        pytest.param({"after": "9999", "limit": 2}, id="beyond 10,000"),
    ],
)
def test_what_it_does_not_take_it_does_not_explain(quiet: httpx.Client, query: dict[str, Any]) -> None:
    refused = quiet.post("/crm/v3/objects/contacts/search", json=query)
    assert (refused.status_code, refused.json()["message"]) == (400, "There was a problem with the request.")


def test_since_the_epoch_is_500(quiet: httpx.Client) -> None:
    assert search(quiet, "contacts", where(MODIFIED, "GTE", 0)).status_code == 500
    assert search(quiet, "contacts", where(MODIFIED, "GTE", 1000)).status_code == 200


def test_ten_thousand_results_and_no_more(api: httpx.Client, portal: PortalHandle) -> None:
    def burst(it: Portal) -> None:
        for number in range(10_050):
            it.create("notes", {"hs_note_body": f"burst {number}"}, at=1_700_000_000_000)

    portal.act(burst)
    instant = where("hs_lastmodifieddate", "EQ", 1_700_000_000_000)
    last = search(api, "notes", instant, limit=100, after="9900", sorts=["hs_object_id"])
    assert (last.json()["total"], len(last.json()["results"])) == (10_050, 100)
    assert last.json()["paging"]["next"]["after"] == "10000"
    assert search(api, "notes", instant, limit=100, after="10000").status_code == 400
    known = last.json()["results"][-1]["id"]
    beyond = search(api, "notes", instant, where("hs_object_id", "GT", known), sorts=["hs_object_id"])
    assert beyond.json()["total"] == 50


def test_search_lags_behind_what_lists_show_and_not_in_order(
    sandbox: Sandbox, api: httpx.Client, portal: PortalHandle
) -> None:
    portal.limit(index_delay=40)
    account = sandbox.account("acme")
    for number in range(8):
        account.crm("create", kind="ticket", subject=f"lag {number}")
    made = [each["id"] for each in portal.objects("tickets") if each["properties"]["subject"].startswith("lag")]
    visible = []
    for seconds in (0, 15, 30):
        account.advance(seconds)
        visible.append(ids(search(api, "tickets", where("subject", "CONTAINS_TOKEN", "lag"))))
    assert [len(each) for each in visible] == [0, 2, 8]
    assert visible[1] != made[:2]


def test_search_shows_a_record_as_it_was_indexed(sandbox: Sandbox, api: httpx.Client, portal: PortalHandle) -> None:
    account = sandbox.account("acme")
    id = portal.objects("tickets")[0]["id"]
    only = {"filterGroups": [{"filters": [where("hs_object_id", "EQ", id)]}], "properties": ["subject"]}
    before = api.post("/crm/v3/objects/tickets/search", json=only).json()
    portal.limit(index_delay=40)
    account.advance(10)
    account.crm("update", kind="ticket", id=1, subject="new words")
    assert portal.objects("tickets")[0]["properties"]["subject"] == "new words"
    assert api.post("/crm/v3/objects/tickets/search", json=only).json() == before
    account.advance(60)
    after = api.post("/crm/v3/objects/tickets/search", json=only).json()["results"][0]
    assert after["properties"]["subject"] == "new words"


def test_archived_and_merged_records_leave_search(sandbox: Sandbox, api: httpx.Client) -> None:
    account = sandbox.account("acme")
    one, two, three = ids(search(api, "contacts", sorts=["hs_object_id"]))[:3]
    account.crm("delete", kind="contact", id=1)
    account.crm("merge", kind="contact", winner=2, loser=3)
    left = ids(search(api, "contacts", sorts=["hs_object_id"]))
    assert one not in left
    assert two in left
    assert three not in left
