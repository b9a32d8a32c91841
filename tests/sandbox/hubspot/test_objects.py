"""Lists and batch reads: every record as it is, under both kinds of paths, with the limits HubSpot sets to a page."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from churnguard_pipelines.sandbox.hubspot.handle import PortalHandle
from churnguard_pipelines.sandbox.hubspot.types import STANDARD
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from tests.sandbox.hubspot.conftest import hubspot, read_all

TYPES = [kind.name for kind in STANDARD]


def test_a_list_is_complete_and_ascends_by_id(api: httpx.Client, portal: PortalHandle) -> None:
    for type in (*TYPES, "p62515_workspaces", "2-100515001"):
        listed = read_all(api, f"/crm/v3/objects/{type}", limit=7)
        assert [each["id"] for each in listed] == [each["id"] for each in portal.objects(type)]
        assert listed
        assert listed == sorted(listed, key=lambda each: int(each["id"]))


def test_a_dated_path_is_the_same_endpoint(quiet: httpx.Client) -> None:
    assert (
        quiet.get("/crm/objects/2026-03/deals").json()["results"]
        == quiet.get("/crm/v3/objects/deals").json()["results"]
    )


def test_a_version_that_is_retired_is_not_found(api: httpx.Client, portal: PortalHandle) -> None:
    portal.retire("2025-09")
    assert api.get("/crm/objects/2025-09/deals").status_code == 404
    assert api.get("/crm/objects/2026-03/deals").status_code == 200


def test_properties_asked_for_may_be_null_and_unknown_ones_are_absent(quiet: httpx.Client) -> None:
    found = read_all(quiet, "/crm/v3/objects/contacts", properties="nps,no_such_property", limit=100)
    assert {each["properties"]["nps"] for each in found} > {None}
    assert set(found[0]["properties"]) == {"nps", "createdate", "lastmodifieddate", "hs_object_id"}


def test_instants_have_a_fraction_only_where_there_is_one(quiet: httpx.Client) -> None:
    lengths = {len(each["createdAt"]) for each in read_all(quiet, "/crm/v3/objects/companies", limit=100)}
    assert lengths <= {20, 24}
    assert len(read_all(quiet, "/crm/v3/lists/90/memberships")[0]["membershipTimestamp"]) == 27


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=100", 200),
        ("limit=101", 400),
        ("limit=0", 400),
        ("limit=50&propertiesWithHistory=email", 200),
        ("limit=51&propertiesWithHistory=email", 400),
        ("after=later", 400),
    ],
)
def test_how_long_a_page_may_be(quiet: httpx.Client, query: str, status: int) -> None:
    assert quiet.get(f"/crm/v3/objects/contacts?{query}").status_code == status


def test_a_url_that_is_too_long_never_reaches_hubspot(quiet: httpx.Client) -> None:
    refused = quiet.get(
        "/crm/v3/objects/contacts", params={"properties": ",".join(f"property_{n}" for n in range(1500))}
    )
    assert refused.status_code == 414
    assert refused.headers["content-type"] == "text/html"


def test_an_unknown_type(quiet: httpx.Client) -> None:
    refused = quiet.get("/crm/v3/objects/unicorns")
    assert (refused.status_code, refused.json()["category"]) == (400, "VALIDATION_ERROR")
    assert refused.json()["message"] == "Unable to infer object type from: unicorns"


def test_a_batch_read_says_which_ids_it_lacks(quiet: httpx.Client) -> None:
    ids = [each["id"] for each in quiet.get("/crm/v3/objects/deals?limit=3").json()["results"]]
    whole = quiet.post("/crm/v3/objects/deals/batch/read", json={"inputs": [{"id": id} for id in ids]})
    assert (whole.status_code, [each["id"] for each in whole.json()["results"]]) == (200, ids)
    partial = quiet.post("/crm/v3/objects/deals/batch/read", json={"inputs": [{"id": ids[0]}, {"id": "5"}]})
    assert partial.status_code == 207
    assert partial.json()["errors"][0]["context"] == {"ids": ["5"]}
    many = quiet.post("/crm/v3/objects/deals/batch/read", json={"inputs": [{"id": str(n)} for n in range(101)]})
    assert many.status_code == 400


def test_archived_records_are_listed_apart_for_ninety_days(
    sandbox: Sandbox, api: httpx.Client, portal: PortalHandle
) -> None:
    first = api.get("/crm/v3/objects/tickets?limit=1").json()["results"][0]["id"]
    sandbox.account("acme").crm("delete", kind="ticket", id=1)
    assert first not in {each["id"] for each in read_all(api, "/crm/v3/objects/tickets")}
    (archived,) = [each for each in read_all(api, "/crm/v3/objects/tickets", archived="true") if each["id"] == first]
    assert archived["archived"] is True
    assert archived["archivedAt"]
    assert api.get(f"/crm/v3/objects/tickets/{first}").status_code == 404
    assert api.get(f"/crm/v3/objects/tickets/{first}?archived=true").status_code == 200
    sandbox.account("acme").advance(91 * 86_400)
    assert first not in {each["id"] for each in read_all(api, "/crm/v3/objects/tickets", archived="true")}


def test_a_merged_id_answers_for_its_survivor(sandbox: Sandbox, api: httpx.Client) -> None:
    survivor, loser, *_ = [each["id"] for each in api.get("/crm/v3/objects/contacts").json()["results"]]
    sandbox.account("acme").crm("merge", kind="contact", winner=1, loser=2)
    answered = api.get(f"/crm/v3/objects/contacts/{loser}?properties=hs_merged_object_ids").json()
    assert (answered["id"], answered["properties"]["hs_merged_object_ids"]) == (survivor, loser)
    inputs = {"inputs": [{"id": loser}, {"id": survivor}]}
    assert [each["id"] for each in api.post("/crm/v3/objects/contacts/batch/read", json=inputs).json()["results"]] == [
        survivor
    ]
    listed = [each["id"] for each in read_all(api, "/crm/v3/objects/contacts", limit=100)]
    assert loser not in listed
    assert loser not in {each["id"] for each in read_all(api, "/crm/v3/objects/contacts", archived="true")}


def test_a_privacy_deletion_leaves_nothing(sandbox: Sandbox, api: httpx.Client, portal: PortalHandle) -> None:
    gone = api.get("/crm/v3/objects/contacts?limit=1").json()["results"][0]["id"]
    sandbox.account("acme").crm("purge", kind="contact", id=1)
    for archived in ("false", "true"):
        assert api.get(f"/crm/v3/objects/contacts/{gone}?archived={archived}").status_code == 404
    assert portal.act(lambda it: it.events[-1]["subscriptionType"]) == "contact.privacyDeletion"


def test_ids_of_two_types_overlap(quiet: httpx.Client) -> None:
    first = {type: quiet.get(f"/crm/v3/objects/{type}?limit=1").json()["results"][0]["id"] for type in TYPES}
    assert len(set(first.values())) == 1


def test_history_of_a_property(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.account("acme").advance(60)
    sandbox.account("acme").crm("update", kind="deal", id=1, amount=1.5)
    found = api.get("/crm/v3/objects/deals?limit=1&propertiesWithHistory=amount").json()["results"][0]
    values = [each["value"] for each in found["propertiesWithHistory"]["amount"]]
    assert values[0] == "1.5"
    assert len(values) == 2


def test_the_calculated_move_without_the_date(sandbox: Sandbox, api: httpx.Client) -> None:
    names: dict[str, str | int] = {"properties": "health,num_associated_contacts", "limit": 1}
    before = api.get("/crm/v3/objects/companies", params=names).json()["results"][0]
    account = sandbox.account("acme")
    account.advance(60)
    account.crm("recalculate", kind="company", id=1, health=0.125)
    made = account.crm("create", kind="contact", last_name="New")
    account.crm("associate", ("contact", made), ("company", 1))
    after = api.get("/crm/v3/objects/companies", params=names).json()["results"][0]
    assert after["properties"]["health"] == "0.125"
    assert after["updatedAt"] == before["updatedAt"]
    counts = [int(each["properties"]["num_associated_contacts"]) for each in (before, after)]
    assert counts[1] == counts[0] + 1


def test_the_date_of_an_answer_is_the_portals_present(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.account("acme").advance(3600)
    told = parsedate_to_datetime(api.get("/crm/v3/objects/contacts").headers["date"])
    assert told.timestamp() == sandbox.account("acme").now


def test_an_account_of_any_size(tmp_path: Path) -> None:
    with serve(tmp_path, scale=0, bulk=1500) as sandbox, hubspot(sandbox, sandbox.hubspot("bulk").token) as api:
        assert len(read_all(api, "/crm/v3/objects/contacts", limit=100)) == 1500
