"""The portal is the business's CRM in HubSpot's words, whatever happened to it and in whatever order it was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from churnguard_pipelines.sandbox.hubspot.handle import PortalHandle
from churnguard_pipelines.sandbox.hubspot.types import STANDARD
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from tests.sandbox.conftest import ANCHOR

TYPES = [*(kind.name for kind in STANDARD), "p62515_workspaces"]
LINKS = [("contacts", "companies"), ("deals", "companies"), ("deals", "contacts"), ("tickets", "contacts"),
         ("p62515_workspaces", "companies")]  # fmt: skip


def everything(portal: PortalHandle) -> dict[str, Any]:
    found: dict[str, Any] = {
        f"{type} {archived}": portal.objects(type, archived=archived) for type in TYPES for archived in (True, False)
    }
    return {**found, **{f"{one} {other}": sorted(portal.associations(one, other)) for one, other in LINKS}}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_followed_a_life_is_what_a_restart_reads(tmp_path: Path, seed: int) -> None:
    with serve(tmp_path, seed=seed, anchor=ANCHOR, scale=0.01) as sandbox:
        portal, account = sandbox.hubspot("acme"), sandbox.account("acme")
        first = everything(portal)
        for _ in range(60):
            account.crm_tick(5)
            account.tick()
            portal.act(lambda it: it.id)
        followed = everything(portal)
        kinds = {event["subscriptionType"] for event in portal.act(lambda it: it.events)}
    assert followed != first
    assert {"contact.creation", "contact.associationChange", "deal.propertyChange", "contact.merge"} <= kinds
    with serve(tmp_path) as sandbox:
        assert everything(sandbox.hubspot("acme")) == followed


def test_what_it_tells_is_what_it_shows(sandbox: Sandbox, portal: PortalHandle) -> None:
    """Replayed over the records as they were, the events give the records as they are."""
    account = sandbox.account("acme")
    names = {"0-1": "contacts", "0-2": "companies", "0-3": "deals", "0-5": "tickets"}
    before = {name: {each["id"]: each["properties"] for each in portal.objects(name)} for name in names.values()}
    account.crm_tick(200)
    for event in portal.act(lambda it: it.events):
        if (name := names.get(event.get("objectTypeId", ""))) is None:
            continue
        id, kind = str(event["objectId"]), event["subscriptionType"].partition(".")[2]
        match kind:
            case "creation" | "restore":
                before[name].setdefault(id, {})
            case "propertyChange" if id in before[name]:
                before[name][id] = {**before[name][id], event["propertyName"]: event["propertyValue"] or None}
            case "deletion" | "privacyDeletion":
                before[name].pop(id, None)
            case "merge":
                for loser in event["mergedObjectIds"]:
                    before[name].pop(str(loser), None)
    now = {name: {each["id"]: each["properties"] for each in portal.objects(name)} for name in names.values()}
    assert {name: set(rows) for name, rows in before.items()} == {name: set(rows) for name, rows in now.items()}
    told = {(e["objectId"], e["propertyName"]) for e in portal.act(lambda it: it.events) if "propertyName" in e}
    for name, rows in now.items():
        for id, properties in rows.items():
            for property, value in properties.items():
                if (int(id), property) in told:
                    assert before[name][id].get(property) == value, (name, id, property)


def test_customers_who_come_later_come_into_the_portal(sandbox: Sandbox, portal: PortalHandle) -> None:
    known = {each["id"] for each in portal.objects("companies")}
    sandbox.account("acme").insert_customer(name="Late Ltd", email="late@late.example.com")
    new = [each for each in portal.objects("companies") if each["id"] not in known]
    assert "late.example.com" in {each["properties"]["domain"] for each in new}
    assert "company.creation" in {event["subscriptionType"] for event in portal.act(lambda it: it.events)}
