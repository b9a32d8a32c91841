"""Objects that an integration declares by a query of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.salesforce.queries import queries_of
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import SyncConfiguration
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection, sync_integration
from tests.conftest import configuration
from tests.connectors.salesforce.test_sandbox import Crm


class Querying(Crm):
    def configure(self, user: str = "acme", *objects: str, **queries: Any) -> None:
        made = configuration(
            "acme-crm", provider_name="salesforce", integration_type="crm", base_url=self.sandbox.url,
            credentials={"credential_type": "bearer", "access_token": f"00Dsandbox_{user}"},
            sync_config={"requests_per_minute": 60_000, "objects": list(queries), "queries": queries},
        )  # fmt: skip
        replace_integration(self.store, made, actor="test")

    def part(self, name: str) -> dict[str, dict[str, Any]]:
        with self.store.organization("acme") as connection:
            view = connection.scalar(
                sa.text("SELECT view_name FROM ingest.objects WHERE object = :object"), {"object": name}
            )
            rows = connection.execute(sa.text(f"SELECT * FROM views.{view} WHERE deleted_at IS NULL")).mappings()
            return {row["id"]: dict(row) for row in rows}

    def big(self, kind: str = "Account") -> set[str]:
        return {key for key, row in self.theirs(kind).items() if (row["NumberOfEmployees"] or 0) > 100}


@pytest.fixture
def crm(store: Store, organization: object, sandbox: Sandbox) -> Iterator[Querying]:
    made = Querying(store, sandbox)
    with made.api:
        yield made


def test_a_query_is_an_object_with_its_fields_and_its_records(crm: Querying) -> None:
    crm.configure(Big="SELECT Id, Name, NumberOfEmployees, SystemModstamp FROM Account WHERE NumberOfEmployees > 100")
    crm.sync()
    rows = crm.part("Big")
    assert rows.keys() == crm.big() != set()
    some = next(iter(rows.values()))
    assert isinstance(some["NumberOfEmployees"], int)
    assert "Industry" not in some


def test_what_changes_comes_and_what_does_not_fit_any_more_is_gone_after_a_day(crm: Querying) -> None:
    crm.configure(Big="SELECT Id, Name, NumberOfEmployees, SystemModstamp FROM Account WHERE NumberOfEmployees > 100")
    crm.sync()
    companies = crm.account.read_crm(lambda found: [each.id for each in found.records("company")])
    crm.account.crm("update", kind="company", id=companies[0], employees=9_999)
    crm.account.crm("update", kind="company", id=companies[1], employees=1)
    crm.account.advance(600)
    crm.sync()
    assert crm.part("Big").keys() >= crm.big()
    crm.account.advance(2 * 86_400)
    crm.sync()
    assert crm.part("Big").keys() == crm.big()


def test_without_a_cursor_it_is_read_in_whole(crm: Querying) -> None:
    crm.configure(Names="SELECT Id, Name FROM Account")
    crm.sync()
    company = crm.account.read_crm(lambda found: next(iter(found.records("company"))).id)
    crm.account.crm("delete", kind="company", id=company)
    crm.account.advance(600)
    crm.sync()
    assert crm.part("Names").keys() == crm.theirs("Account").keys()


def test_a_field_that_is_not_there_is_named_and_the_others_go_on(crm: Querying) -> None:
    crm.configure(Wrong="SELECT Id, Nothing__c FROM Account", Right="SELECT Id, Name FROM Contact")
    report = sync_integration(crm.store, "acme-crm", sync_id="wrong-query")
    assert "no field Nothing__c" in str(report.objects["Wrong"].error)
    assert report.objects["Right"].status == "succeeded"
    lines = {line.object: line for line in check_connection(crm.store, "acme-crm").objects}
    assert not lines["Wrong"].readable
    assert lines["Right"].readable


@pytest.mark.parametrize(
    ("query", "why"),
    [
        pytest.param("DELETE FROM Account", "must be SELECT", id="no-select"),
        pytest.param("SELECT Name FROM Account", "must select Id", id="no-key"),
        pytest.param("SELECT Id, Owner.Name FROM Account", "fields of the object itself", id="a-relation"),
        pytest.param("SELECT Id, (SELECT Id FROM Cases) FROM Account", "fields of the object itself", id="a-subquery"),
        pytest.param("SELECT Id, COUNT(Id) FROM Account", "fields of the object itself", id="an-aggregate"),
        pytest.param("SELECT Id FROM Account LIMIT 5", "nothing or a WHERE", id="a-limit"),
        pytest.param("SELECT Id FROM Account WHERE a = 1 ORDER BY Id", "has ORDER", id="an-order"),
        pytest.param("SELECT Id FROM Account WHERE Id IN (SELECT AccountId FROM Case)", "has SELECT", id="a-semi-join"),
        pytest.param("SELECT Id FROM Account WHERE a = 1) OR (b = 2", "do not match", id="parentheses"),
        pytest.param("SELECT Id FROM Account WHERE Name = 'x", "be understood", id="an-open-text"),
        pytest.param("SELECT Id FROM Account WHERE", "nothing or a WHERE", id="an-empty-where"),
        pytest.param("SELECT " + "a, " * 4_000, "longer", id="too-long"),
    ],
)  # fmt: skip
def test_what_is_no_query_of_records_is_refused(query: str, why: str) -> None:
    with pytest.raises(InvalidConfiguration, match=why):
        queries_of(
            configuration("x", provider_name="salesforce", sync_config=SyncConfiguration(queries={"Mine": query}))
        )


@pytest.mark.parametrize("name", ["Account", "Mine__c", "a b", "", "x" * 41])
def test_a_name_that_is_taken_or_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfiguration, match="cannot be an object's name"):
        queries_of(configuration("x", sync_config=SyncConfiguration(queries={name: "SELECT Id FROM Account"})))


def test_what_a_where_says_is_sent_as_it_was_understood() -> None:
    text = "select Id from Opportunity where (Name = 'O\\'Neil' and Amount>=10.5) or CloseDate = LAST_N_DAYS:30"
    query = queries_of(configuration("x", sync_config=SyncConfiguration(queries={"Mine": text})))["Mine"]
    assert query.conditions == ("(( Name = 'O\\'Neil' and Amount >= 10.5 ) or CloseDate = LAST_N_DAYS:30)",)
