"""simple-salesforce, whose authors know neither our sandbox nor our connector, finds a Salesforce there."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from simple_salesforce.api import Salesforce, SFType
from simple_salesforce.exceptions import SalesforceMalformedRequest, SalesforceResourceNotFound

from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.salesforce.conftest import query, salesforce


class WithoutTls(HTTPAdapter):
    """The client knows ``https://`` only."""

    def send(self, request: requests.PreparedRequest, *arguments: Any, **named: Any) -> requests.Response:
        request.url = (request.url or "").replace("https://", "http://", 1)
        return super().send(request, *arguments, **named)


@pytest.fixture
def client(sandbox: Sandbox) -> Salesforce:
    session = requests.Session()
    session.mount("https://", WithoutTls())
    return Salesforce(
        instance_url=sandbox.url.replace("http://", "https://"), session_id="00Dsandbox_acme", session=session,
        version="66.0",
    )  # fmt: skip


def account(client: Salesforce) -> SFType:
    found = client.Account
    assert isinstance(found, SFType)
    return found


def test_it_reads_every_page_of_a_query(client: Salesforce, sandbox: Sandbox) -> None:
    theirs = {record["Id"] for record in client.query_all("SELECT Id FROM Contact")["records"]}
    assert theirs
    assert theirs == {record["Id"] for record in query(salesforce(sandbox), "SELECT Id FROM Contact")}


def test_it_describes_objects_and_gets_records(client: Salesforce) -> None:
    names = {field["name"] for field in account(client).describe()["fields"]}
    assert {"Id", "Name", "SystemModstamp"} <= names
    first = client.query("SELECT Id, Name FROM Account LIMIT 1")["records"][0]
    assert account(client).get(first["Id"])["Name"] == first["Name"]


def test_it_understands_refusals(client: Salesforce) -> None:
    with pytest.raises(SalesforceMalformedRequest, match="INVALID_FIELD"):
        client.query("SELECT NoSuchField FROM Account")
    with pytest.raises(SalesforceResourceNotFound):
        account(client).get("001000000000000AAA")
