"""What describes a portal: properties with their traps, custom objects, owners, pipelines, the account."""

from __future__ import annotations

from typing import Any

import httpx

from churnguard_pipelines.sandbox.business.crm_schema import Field
from churnguard_pipelines.sandbox.hubspot.handle import PortalHandle
from churnguard_pipelines.sandbox.hubspot.records import Property
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.hubspot.conftest import read_all


def properties(api: httpx.Client, type: str, **query: str) -> dict[str, dict[str, Any]]:
    found = api.get(f"/crm/v3/properties/{type}", params=query).json()["results"]
    return {each["name"]: each for each in found}


def test_properties_have_types_options_and_say_what_is_calculated(quiet: httpx.Client) -> None:
    companies = properties(quiet, "companies")
    assert (companies["numberofemployees"]["type"], companies["renewal_date"]["type"]) == ("number", "date")
    assert companies["industry"]["options"][0]["value"] == "AGRICULTURE"
    assert companies["health"]["calculated"] is True
    assert "calculationFormula" in companies["health"]
    assert companies["health"]["modificationMetadata"]["readOnlyValue"] is True
    assert (companies["plan"]["hubspotDefined"], companies["industry"]["hubspotDefined"]) == (False, True)


def test_labels_may_be_null(quiet: httpx.Client) -> None:
    assert properties(quiet, "deals")["hs_campaign"]["label"] is None
    assert None in {each["label"] for each in properties(quiet, "contacts")["lead_source"]["options"]}


def test_every_value_fits_its_type(quiet: httpx.Client) -> None:
    for type in ("contacts", "companies", "deals", "tickets"):
        defined = properties(quiet, type)
        for record in read_all(quiet, f"/crm/v3/objects/{type}", limit=100, properties=",".join(defined)):
            for name, value in record["properties"].items():
                if value is None:
                    continue
                kind = defined[name]["type"]
                options = {each["value"] for each in defined[name]["options"]}
                assert kind != "number" or float(value) is not None, name
                assert kind != "bool" or value in ("true", "false"), name
                assert kind != "datetime" or value.endswith("Z"), name
                assert not options or set(value.split(";")) <= options, (name, value)


def test_a_property_of_ones_own_comes_changes_its_type_and_goes(
    sandbox: Sandbox, api: httpx.Client, portal: PortalHandle
) -> None:
    account = sandbox.account("acme")
    account.crm("add_field", kind="contact", made=Field("tier", "text"))
    account.crm("update", kind="contact", id=1, tier="gold")
    assert properties(api, "contacts")["tier"]["type"] == "string"
    assert portal.objects("contacts")[0]["properties"]["tier"] == "gold"
    account.crm("retype_field", kind="contact", name="tier", type="integer")
    assert properties(api, "contacts")["tier"]["type"] == "number"
    assert portal.objects("contacts")[0]["properties"]["tier"] is None
    account.crm("remove_field", kind="contact", name="tier")
    assert "tier" not in properties(api, "contacts")
    assert "tier" in properties(api, "contacts", archived="true")
    assert api.get("/crm/v3/properties/contacts/tier").status_code == 404
    assert "tier" not in properties(api, "companies")
    with httpx.Client(
        base_url=sandbox.url, headers={"authorization": f"Bearer {sandbox.hubspot('globex').token}"}
    ) as other:
        assert "tier" not in properties(other, "contacts", archived="true")


def test_a_custom_object_is_found_in_the_schemas(quiet: httpx.Client) -> None:
    (schema,) = quiet.get("/crm/v3/schemas").json()["results"]
    assert (schema["name"], schema["fullyQualifiedName"]) == ("workspaces", "p62515_workspaces")
    assert schema["labels"] == {"singular": "Workspace", "plural": "Workspaces"}
    assert {each["name"] for each in schema["properties"]} > {"name", "seats", "plan", "last_login"}
    ends = {(each["fromObjectTypeId"], each["toObjectTypeId"]) for each in schema["associations"]}
    assert (schema["objectTypeId"], "0-2") in ends
    assert quiet.get("/crm-object-schemas/2026-03/schemas").json()["results"] == [schema]
    assert quiet.get(f"/crm/v3/objects/{schema['objectTypeId']}").json()["results"]


def test_a_custom_object_comes_and_goes(api: httpx.Client, portal: PortalHandle) -> None:
    of_crates = [Property("name"), Property("weight", "number")]
    portal.act(lambda it: it.define_object("crates", ("Crate", "Crates"), of_crates, "name"))
    portal.act(lambda it: it.create("crates", {"name": "first", "weight": "2.5"}))
    (made,) = api.get("/crm/v3/objects/p62515_crates?properties=name,weight").json()["results"]
    assert (made["properties"]["name"], made["properties"]["weight"]) == ("first", "2.5")
    portal.act(lambda it: it.define_property("crates", Property("weight", "string")))
    assert properties(api, "p62515_crates")["weight"]["type"] == "string"
    portal.act(lambda it: it.remove_property("crates", "weight"))
    assert "weight" not in api.get("/crm/v3/objects/p62515_crates?properties=weight").json()["results"][0]["properties"]
    portal.act(lambda it: it.remove_object("crates"))
    assert api.get("/crm/v3/objects/p62515_crates").status_code == 400
    assert len(api.get("/crm/v3/schemas").json()["results"]) == 1


def test_owners_who_left_are_archived(quiet: httpx.Client) -> None:
    here, gone = (read_all(quiet, "/crm/v3/owners", limit=3, archived=archived) for archived in ("false", "true"))
    assert (len(here), len(gone)) == (7, 1)
    assert gone[0]["userId"] is None
    owners = {each["id"] for each in here + gone}
    named = {each["properties"]["hubspot_owner_id"] for each in
             read_all(quiet, "/crm/v3/objects/deals", limit=100, properties="hubspot_owner_id")}  # fmt: skip
    assert named <= owners


def test_deals_stand_in_the_pipelines_stages(quiet: httpx.Client) -> None:
    for type, name, stage in (("deals", "pipeline", "dealstage"), ("tickets", "hs_pipeline", "hs_pipeline_stage")):
        places = {
            (pipeline["id"], each["id"])
            for pipeline in quiet.get(f"/crm/v3/pipelines/{type}").json()["results"]
            for each in pipeline["stages"]
        }
        found = read_all(quiet, f"/crm/v3/objects/{type}", limit=100, properties=f"{name},{stage}")
        assert {(each["properties"][name], each["properties"][stage]) for each in found} <= places
    assert quiet.get("/crm/v3/pipelines/deals/default/stages").json()["results"][0]["metadata"]["isClosed"] == "false"


def test_what_the_account_is(quiet: httpx.Client) -> None:
    details = quiet.get("/account-info/v3/details").json()
    assert (details["portalId"], details["companyCurrency"]) == (62515, "USD")
    assert quiet.get("/account-info/2026-03/details").json() == details
    usage = quiet.get("/account-info/v3/api-usage/daily/private-apps").json()["results"][0]
    assert usage["currentUsage"] > 0
