"""Associations, labels and lists: they change without any record's date."""

from __future__ import annotations

import httpx

from churnguard_pipelines.sandbox.hubspot.handle import PortalHandle
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.hubspot.conftest import read_all

BATCH = "/crm/v4/associations/{}/{}/batch/read"


def pairs(api: httpx.Client, source: str, target: str) -> set[tuple[int, int, int]]:
    """(id, id, type id) by batch reads of every record."""
    ids = [each["id"] for each in read_all(api, f"/crm/v3/objects/{source}", limit=100)]
    found = set()
    for start in range(0, len(ids), 50):
        inputs = [{"id": id} for id in ids[start : start + 50]]
        answer = api.post(BATCH.format(source, target), json={"inputs": inputs})
        assert answer.status_code in (200, 207)
        for each in answer.json()["results"]:
            id = int(each["from"]["id"])
            found |= {(id, to["toObjectId"], kind["typeId"]) for to in each["to"] for kind in to["associationTypes"]}
    return found


def test_batch_reads_give_every_association_from_both_ends(api: httpx.Client, portal: PortalHandle) -> None:
    forth = pairs(api, "deals", "contacts")
    assert forth == portal.associations("deals", "contacts")
    assert {(two, one) for one, two, _ in pairs(api, "contacts", "deals")} == {(one, two) for one, two, _ in forth}
    assert {kind for *_, kind in forth} > {3}


def test_a_record_without_any_is_an_error_of_its_own(quiet: httpx.Client) -> None:
    answer = quiet.post(BATCH.format("contacts", "tickets"), json={"inputs": [{"id": "5"}]})
    assert (answer.status_code, answer.json()["numErrors"]) == (207, 1)
    assert answer.json()["errors"][0]["subCategory"] == "crm.associations.NO_ASSOCIATIONS_FOUND"


def test_dated_paths_of_associations(quiet: httpx.Client) -> None:
    inputs = {"inputs": [{"id": quiet.get("/crm/v3/objects/contacts?limit=1").json()["results"][0]["id"]}]}
    dated = quiet.post("/crm/associations/2026-03/contacts/companies/batch/read", json=inputs).json()
    old = quiet.post(BATCH.format("contacts", "companies"), json=inputs).json()
    assert dated["results"] == old["results"] != []


def test_labels_are_listed_and_carried_beside_the_plain_type(quiet: httpx.Client) -> None:
    labels = quiet.get("/crm/v4/associations/contacts/companies/labels").json()["results"]
    assert {(each["typeId"], each["label"]) for each in labels} > {(279, None), (1, "Primary")}
    assert {each["category"] for each in labels} == {"HUBSPOT_DEFINED", "USER_DEFINED"}
    contact = quiet.get("/crm/v3/objects/contacts?limit=1").json()["results"][0]["id"]
    (company,) = quiet.get(f"/crm/v4/objects/contacts/{contact}/associations/companies").json()["results"]
    assert [each["label"] for each in company["associationTypes"]] == ["Primary", None]


def test_no_date_moves_with_an_association(sandbox: Sandbox, api: httpx.Client, portal: PortalHandle) -> None:
    def dates() -> dict[str, str]:
        return {each["id"]: each["updatedAt"] for type in ("deals", "contacts") for each in portal.objects(type)}

    account, before = sandbox.account("acme"), dates()
    account.advance(60)
    linked = portal.associations("deals", "contacts")
    source, target = ("deal", 1), ("contact", 5)
    account.crm("associate", source, target, label="Influencer")
    made = portal.associations("deals", "contacts") - linked
    account.crm("associate", source, target, label="Decision maker")
    assert len(portal.associations("deals", "contacts") - linked - made) == 1
    account.crm("dissociate", source, target)
    assert portal.associations("deals", "contacts") == {each for each in linked if each[:2] != next(iter(made))[:2]}
    assert dates() == before


def test_an_archived_record_is_associated_with_nothing(sandbox: Sandbox, api: httpx.Client) -> None:
    before = pairs(api, "deals", "companies")
    sandbox.account("acme").crm("delete", kind="company", id=1)
    assert len(pairs(api, "deals", "companies")) < len(before)
    sandbox.account("acme").crm("undelete", kind="company", id=1)
    assert pairs(api, "deals", "companies") == before


def test_what_a_merged_record_had_its_survivor_has(sandbox: Sandbox, api: httpx.Client, portal: PortalHandle) -> None:
    loser = int(portal.objects("companies")[0]["id"])
    deals = {deal for deal, company, _ in pairs(api, "deals", "companies") if company == loser}
    survivor = int(portal.objects("companies")[1]["id"])
    sandbox.account("acme").crm("merge", kind="company", winner=2, loser=1)
    now = pairs(api, "deals", "companies")
    assert loser not in {company for _, company, _ in now}
    assert deals <= {deal for deal, company, _ in now if company == survivor}


def test_lists_are_found_by_search_and_members_read_by_page(quiet: httpx.Client) -> None:
    found: list[dict[str, object]] = []
    while True:
        page = quiet.post("/crm/v3/lists/search", json={"count": 2, "offset": len(found)}).json()
        found += page["lists"]
        if not page["hasMore"]:
            break
    assert len(found) == page["total"] == 5
    users = next(each for each in found if each["name"] == "Users of the product")
    members = read_all(quiet, f"/crm/v3/lists/{users['listId']}/memberships", limit=2)
    contacts = {each["id"] for each in read_all(quiet, "/crm/v3/objects/contacts", limit=100)}
    assert {each["recordId"] for each in members} <= contacts
    assert members
    assert quiet.get("/crm/v3/lists/12345/memberships").status_code == 404


def test_lists_lose_who_is_archived_and_follow_merges(
    sandbox: Sandbox, api: httpx.Client, portal: PortalHandle
) -> None:
    path = "/crm/lists/2026-03/90/memberships"
    first, second = [each["recordId"] for each in read_all(api, path)][:2]
    numbers = {each["id"]: place for place, each in enumerate(portal.objects("contacts"))}
    one, two = (int(id) for id in (first, second))
    kept = next(id for id in numbers if int(id) not in (one, two))
    of_crm = {str(id): (int(id) - 20_000_000_000) // 3 for id in (first, second, kept)}
    account = sandbox.account("acme")
    account.crm("delete", kind="contact", id=of_crm[first])
    assert first not in {each["recordId"] for each in read_all(api, path)}
    account.crm("merge", kind="contact", winner=of_crm[kept], loser=of_crm[second])
    now = {each["recordId"] for each in read_all(api, path)}
    assert second not in now
    assert kept in now
