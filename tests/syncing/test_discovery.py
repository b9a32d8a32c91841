"""What an account has now is listed without a sync: objects, and the fields of one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.discovery import FoundField, FoundObject, found_fields, found_objects
from tests.connectors.toy import Account, accounts


@pytest.fixture
def crm(store: Store, organization: Organization, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with accounts(store, monkeypatch) as opened:
        yield opened()


def objects(account: Account) -> dict[str, FoundObject]:
    return {each.object: each for each in found_objects(account.store, get_integration(account.store, "acme-crm"))}


def fields(account: Account, name: str) -> dict[str, FoundField]:
    _, found = found_fields(account.store, get_integration(account.store, "acme-crm"), name)
    return {each.name: each for each in found}


def test_an_account_s_own_objects_are_listed_beside_the_declared_ones(crm: Account) -> None:
    crm.adds_objects("Invoice__c", "Asset__c", label="Ours")
    found = objects(crm)
    assert list(found) == ["contacts", "deals", "Asset__c", "Invoice__c"]
    assert found["Asset__c"] == FoundObject("Asset__c", "Ours", custom=True, key=("id",))
    assert found["contacts"].view is None, "no sync has read it yet"
    crm.sync()
    assert objects(crm)["contacts"].view == "views.acme_crm_contacts"


def test_fields_are_listed_with_type_label_picklist_and_formula(crm: Account) -> None:
    crm.has_fields(
        "contacts",
        {"name": "tier", "type": "picklist", "label": "Customer tier", "values": ["gold", "silver"]},
        {"name": "score", "type": "number", "formula": True},
    )
    found = fields(crm, "contacts")
    assert found["id"] == FoundField("id", "text", declared=True, key=True)
    assert found["email"] == FoundField("email", "text", declared=True)
    assert found["tier"] == FoundField("tier", "text", "Customer tier", ("gold", "silver"))
    assert found["score"] == FoundField("score", "numeric", formula=True)
    crm.sync()
    crm.has_fields("contacts", score="number")
    assert fields(crm, "contacts")["tier"].gone


def test_what_is_not_there_is_said(crm: Account) -> None:
    with pytest.raises(NotFound, match="no object 'nothing'"):
        fields(crm, "nothing")


def test_objects_are_chosen_by_name_or_pattern(crm: Account) -> None:
    crm.adds_objects("Invoice__c", "Asset__c", "Asset__hd")
    crm.configure(objects=["contacts", "*__c"], exclude=["Asset*"])
    assert {name for name, each in objects(crm).items() if each.wanted} == {"contacts", "Invoice__c"}
    assert set(crm.sync().objects) == {"contacts", "Invoice__c"}
    assert set(crm.sync("Inv*").objects) == {"Invoice__c"}
