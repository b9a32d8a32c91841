"""The simulated Salesforce's REST API: what it shows is the CRM, and what it refuses is what Salesforce refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from churnguard_pipelines.sandbox.business.crm_schema import Field
from churnguard_pipelines.sandbox.salesforce.fields import java_double
from churnguard_pipelines.sandbox.salesforce.objects import SOBJECTS
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.conftest import ANCHOR
from tests.sandbox.salesforce.conftest import DATA, names, query, refusal, salesforce

MOMENT = "%Y-%m-%dT%H:%M:%S.000+0000"
QUERYABLE = [each for each in SOBJECTS if not each.restricted]


@pytest.mark.parametrize("entity", QUERYABLE, ids=[each.name for each in QUERYABLE])
def test_every_described_field_can_be_selected(world: Sandbox, entity: Any) -> None:
    with salesforce(world) as api:
        described = api.get(f"{DATA}/sobjects/{entity.name}/describe").json()
        columns = [field["name"] for field in described["fields"]]
        records = query(api, f"SELECT {', '.join(columns)} FROM {entity.name}")
        assert records
        assert all(list(record) == ["attributes", *columns] for record in records)
        assert len({record["Id"] for record in records}) == len(records)
        counted = api.get(f"{DATA}/query", params={"q": f"SELECT COUNT() FROM {entity.name}"}).json()
        assert counted == {"totalSize": len(records), "done": True, "records": []}
        for field in described["fields"]:
            if field["filterable"]:
                soql = f"SELECT Id FROM {entity.name} WHERE {field['name']} = null LIMIT 1"
                assert api.get(f"{DATA}/query", params={"q": soql}).status_code == 200


def test_what_is_described(world: Sandbox) -> None:
    with salesforce(world) as api:
        fields = {f["name"]: f for f in api.get(f"{DATA}/sobjects/Account/describe").json()["fields"]}
        assert fields["Health__c"]["calculated"]
        assert not fields["Health__c"]["updateable"]
        assert fields["BillingAddress"]["type"] == "address"
        assert [value["value"] for value in fields["Plan__c"]["picklistValues"]] == ["Starter", "Team", "Business"]
        assert fields["Churn_Risk__c"]["custom"]
        listed = {each["name"]: each for each in api.get(f"{DATA}/sobjects").json()["sobjects"]}
        assert listed["Workspace__c"]["custom"]
    with salesforce(world, "globex") as api:
        assert "Churn_Risk__c" not in names(api, "Account")
        assert "Region__c" in names(api, "Account")


def test_pages_of_2000_and_an_order(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    for number in range(2100):
        account.crm("create", kind="lead", last_name=f"Lead {number}")
    with salesforce(sandbox) as api:
        soql = "SELECT Id FROM Lead ORDER BY Id"
        first = api.get(f"{DATA}/query", params={"q": soql}).json()
        assert (len(first["records"]), first["done"]) == (2000, False)
        assert first["totalSize"] > 2100
        records = query(api, soql)
        assert len(records) == first["totalSize"]
        assert [record["Id"] for record in records] == sorted(record["Id"] for record in records)
        keyset = query(api, f"SELECT Id FROM Lead WHERE Id > '{records[99]['Id']}' ORDER BY Id LIMIT 5")
        assert [r["Id"] for r in keyset] == [r["Id"] for r in records[100:105]]
        closing = query(api, "SELECT Id FROM Lead ORDER BY Id LIMIT 1 OFFSET 1999")
        assert closing[0]["Id"] == records[1999]["Id"]
        wide = ",".join(["Id"] * 400)
        assert len(api.get(f"{DATA}/query", params={"q": f"SELECT {wide} FROM Lead"}).json()["records"]) == 500
        options = {"sforce-query-options": "batchSize=200"}
        assert len(api.get(f"{DATA}/query", params={"q": soql}, headers=options).json()["records"]) == 200


def test_conditions(world: Sandbox) -> None:
    with salesforce(world) as api:
        columns = "Id, Name, SystemModstamp, NumberOfEmployees, Industry, Type"
        everything = query(api, f"SELECT {columns} FROM Account")

        def ids(where: str) -> set[str]:
            return {record["Id"] for record in query(api, f"SELECT Id FROM Account WHERE {where}")}

        def those(wanted: Any) -> set[str]:
            return {record["Id"] for record in everything if wanted(record)}

        stamp = "2026-03-01T00:00:00.000+0000"
        since = those(lambda r: r["SystemModstamp"] >= stamp)
        assert ids("SystemModstamp >= 2026-03-01T00:00:00Z") == since
        assert ids("NOT (SystemModstamp < 2026-03-01T01:00:00+01:00)") == since
        assert ids("NumberOfEmployees > 100 AND (Industry = 'banking' OR Industry IN ('Retail', 'Media'))") == those(
            lambda r: r["NumberOfEmployees"] and r["NumberOfEmployees"] > 100
            and r["Industry"] in ("Banking", "Retail", "Media")
        )  # fmt: skip
        assert ids("Name LIKE '%GmbH'") == those(lambda r: r["Name"].lower().endswith("gmbh"))
        assert ids("Industry = null") == those(lambda r: r["Industry"] is None)
        assert ids("Type NOT IN ('Prospect')") == those(lambda r: r["Type"] != "Prospect")
        quoted = everything[0]["Name"].replace("'", "\\'")
        assert everything[0]["Id"] in ids(f"Name = '{quoted}'")
        assert ids(f"Id = '{everything[0]['Id'][:15]}'") == {everything[0]["Id"]}


@pytest.mark.parametrize(
    ("soql", "code", "says"),
    [
        ("SELECT Id FROM Account WHERE", "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        ("SELECT Id FROM Account WHERE Name = 'a' AND Id = null OR Id = null", "MALFORMED_QUERY", "unexpected token"),
        ("SELECT Id FROM Account LIMIT x", "MALFORMED_QUERY", "unexpected token"),
        ("SELECT Id FROM Nothing__c", "INVALID_TYPE", "sObject type 'Nothing__c' is not supported"),
        ("SELECT Nothing__c FROM Account", "INVALID_FIELD", "No such column 'Nothing__c' on entity 'Account'"),
        ("SELECT Id FROM Account WHERE Description = 'x'", "INVALID_FIELD", "can not be filtered in a query call"),
        ("SELECT Id FROM Account ORDER BY BillingAddress", "INVALID_FIELD", "can not be sorted in a query call"),
        ("SELECT Id FROM Account WHERE SystemModstamp > '2026-01-01'", "INVALID_FIELD", "must be of type dateTime"),
        ("SELECT Id FROM Account LIMIT 1 OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset"),
        ("SELECT FIELDS(ALL) FROM Account", "MALFORMED_QUERY", "must have a LIMIT of at most 200"),
        ("SELECT Id FROM ContentDocumentLink", "MALFORMED_QUERY", "Implementation restriction: ContentDocumentLink"),
    ],
    ids=["end", "and or", "limit", "object", "field", "filter", "sort", "type", "offset", "fields", "restricted"],
)
def test_refused_queries(world: Sandbox, soql: str, code: str, says: str) -> None:
    with salesforce(world) as api:
        status, given, message = refusal(api.get(f"{DATA}/query", params={"q": soql}))
        assert (status, given) == (400, code)
        assert says in message


def test_a_cursor_field_that_refuses_a_condition(world: Sandbox) -> None:
    soql = "SELECT Id FROM ContentDocumentLink WHERE SystemModstamp > 2026-01-01T00:00:00Z AND LinkedEntityId = null"
    with salesforce(world) as api:
        assert refusal(api.get(f"{DATA}/query", params={"q": soql}))[1] == "INVALID_FIELD"


def test_permissions_and_field_level_security_hide_as_if_there_were_nothing(world: Sandbox) -> None:
    with salesforce(world, "acme_no_Case_hide_Account.Phone") as api:
        assert refusal(api.get(f"{DATA}/query", params={"q": "SELECT Id FROM Case"}))[1] == "INVALID_TYPE"
        assert refusal(api.get(f"{DATA}/sobjects/Case/describe"))[:2] == (404, "NOT_FOUND")
        assert "Case" not in {each["name"] for each in api.get(f"{DATA}/sobjects").json()["sobjects"]}
        assert "Phone" not in names(api, "Account")
        assert refusal(api.get(f"{DATA}/query", params={"q": "SELECT Phone FROM Account"}))[1] == "INVALID_FIELD"


def test_an_object_that_is_described_but_may_not_be_read(world: Sandbox) -> None:
    with salesforce(world, "acme_deny_Task") as api:
        assert "Subject" in names(api, "Task")
        assert refusal(api.get(f"{DATA}/query", params={"q": "SELECT Id FROM Task"}))[:2] == (
            403,
            "INSUFFICIENT_ACCESS",
        )
        assert query(api, "SELECT Id FROM Case LIMIT 1")


def test_a_new_record_is_seen_later_than_it_is_stamped(sandbox: Sandbox) -> None:
    sandbox.salesforce.limits("acme").lag = 120
    account = sandbox.account("acme")
    account.crm("create", kind="company", name="Late")
    with salesforce(sandbox) as api:
        account.advance(119)
        assert query(api, "SELECT Id FROM Account WHERE Name = 'Late'") == []
        account.advance(1)
        (record,) = query(api, "SELECT CreatedDate FROM Account WHERE Name = 'Late'")
        assert record["CreatedDate"] == datetime.fromtimestamp(account.now - 120, UTC).strftime(MOMENT)


def test_a_uri_has_16384_bytes(world: Sandbox) -> None:
    with salesforce(world) as api:
        for length, status in ((15_000, 400), (16_300, 431), (17_000, 414)):
            assert api.get(f"{DATA}/query?q=" + "x" * (length - len(DATA))).status_code == status


def test_query_all_shows_the_recycle_bin_for_15_days_and_what_was_merged(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    kept, lost, gone = (account.crm("create", kind="company", name=f"Company {n}") for n in range(3))
    with salesforce(sandbox) as api:
        soql = "SELECT Id, IsDeleted, MasterRecordId FROM Account WHERE Name LIKE 'Company _' ORDER BY Id"
        ids = [record["Id"] for record in query(api, soql)]
        account.advance(3600)
        account.crm("merge", kind="company", winner=kept, loser=lost)
        account.crm("delete", kind="company", id=gone)
        assert [record["Id"] for record in query(api, soql)] == ids[:1]
        shown = query(api, soql, "queryAll")
        assert [r["IsDeleted"] for r in shown] == [False, True, True]
        assert shown[1]["MasterRecordId"] == ids[0]
        account.advance(15 * 86_400 + 1)
        assert [record["Id"] for record in query(api, soql, "queryAll")] == ids[:1]


def utc(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def test_deleted_ids_by_whole_minutes_for_15_days(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    account.advance(60 - ANCHOR % 60)
    deleted, purged = (account.crm("create", kind="contact", last_name="Gone") for _ in range(2))
    start = account.now
    account.advance(90)
    account.crm("delete", kind="contact", id=deleted)
    account.crm("purge", kind="contact", id=purged)
    account.advance(90)
    path = f"{DATA}/sobjects/Contact/deleted/"
    with salesforce(sandbox) as api:
        window = {"start": utc(start + 59), "end": utc(start + 180)}
        answer = api.get(path, params=window).json()
        assert len(answer["deletedRecords"]) == 2
        assert answer["latestDateCovered"].startswith(utc(start + 180)[:16])
        assert answer["earliestDateAvailable"] < utc(start - 14 * 86_400)
        for since, till in ((start, start + 59), (start - 17 * 86_400, start), (start + 600, start + 900)):
            refused = refusal(api.get(path, params={"start": utc(since), "end": utc(till)}))
            assert refused[:2] == (400, "INVALID_REPLICATION_DATE")
        sandbox.salesforce.limits("acme").deleted_ids = 1
        assert refusal(api.get(path, params=window))[:2] == (400, "EXCEEDED_ID_LIMIT")
        sandbox.salesforce.limits("acme").deleted_log_days = 0.0001
        assert api.get(path, params=window).json()["earliestDateAvailable"] > utc(start)
        assert refusal(api.get(f"{DATA}/sobjects/User/deleted/", params=window))[1] == "INVALID_TYPE_FOR_OPERATION"


def test_every_answer_says_what_was_used_and_over_the_limit_nothing_goes(sandbox: Sandbox) -> None:
    sandbox.salesforce.limits("acme").api_requests = 3
    with salesforce(sandbox) as api:
        used = [api.get(f"{DATA}/limits").headers["sforce-limit-info"] for _ in range(3)]
        assert used == ["api-usage=1/3", "api-usage=2/3", "api-usage=3/3"]
        assert refusal(api.get(f"{DATA}/limits"))[:2] == (403, "REQUEST_LIMIT_EXCEEDED")
        sandbox.account("acme").advance(86_400)
        assert api.get(f"{DATA}/limits").json()["DailyApiRequests"] == {"Max": 3, "Remaining": 2}


def test_versions_come_and_are_retired(sandbox: Sandbox) -> None:
    with salesforce(sandbox) as api:
        listed = [each["version"] for each in api.get("/services/data").json()]
        assert (listed[0], listed[-1]) == ("31.0", "66.0")
        assert refusal(api.get("/services/data/v99.0/limits"))[:2] == (404, "NOT_FOUND")
        sandbox.salesforce.orgs["acme"].retired = 60
        assert refusal(api.get("/services/data/v59.0/limits"))[:2] == (410, "UNSUPPORTED_API_VERSION")


def test_fields_and_objects_come_and_go_while_it_runs(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    account.crm("add_field", kind="company", made=Field("tier", "text", "Tier"))
    company = account.crm("create", kind="company", name="Here", tier="gold")
    with salesforce(sandbox) as api:
        assert query(api, "SELECT Tier__c FROM Account WHERE Name = 'Here'")[0]["Tier__c"] == "gold"
        account.crm("retype_field", kind="company", name="tier", type="number")
        account.crm("update", kind="company", id=company, tier=9e7)
        assert b'"Tier__c":9.0E7' in api.get(
            f"{DATA}/query", params={"q": "SELECT Tier__c FROM Account WHERE Name = 'Here'"}
        ).content  # fmt: skip
        account.crm("remove_field", kind="company", name="tier")
        assert refusal(api.get(f"{DATA}/query", params={"q": "SELECT Tier__c FROM Account"}))[1] == "INVALID_FIELD"
        sandbox.salesforce.orgs["acme"].removed.add("Workspace__c")
        assert refusal(api.get(f"{DATA}/query", params={"q": "SELECT Id FROM Workspace__c"}))[1] == "INVALID_TYPE"


def test_a_formula_changes_without_a_date(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    company = account.crm("create", kind="company", name="Here")
    with salesforce(sandbox) as api:
        soql = "SELECT Health__c, SystemModstamp FROM Account WHERE Name = 'Here'"
        (before,) = query(api, soql)
        account.advance(60)
        account.crm("recalculate", kind="company", id=company, health=0.25)
        (after,) = query(api, soql)
        assert (before["Health__c"], after["Health__c"]) == (None, 0.25)
        assert after["SystemModstamp"] == before["SystemModstamp"]


def test_a_bad_day(sandbox: Sandbox) -> None:
    with salesforce(sandbox) as api:
        sandbox.fault("status", "/services/data/*", status=503, body="html", times=1)
        assert "<html>" in api.get(f"{DATA}/limits").text
        sandbox.fault("status", "/services/data/*", status=503, times=1)
        assert refusal(api.get(f"{DATA}/limits"))[:2] == (503, "SERVER_UNAVAILABLE")
        sandbox.fault("bad_record", "/services/data/*", field="Name", value=7, times=1)
        page = api.get(f"{DATA}/query", params={"q": "SELECT Name FROM Account LIMIT 2"}).json()
        assert page["records"][0]["Name"] == 7
        assert api.get("/services/data", headers={"authorization": "Basic eA=="}).status_code == 401


def test_connections_that_break_and_sessions_that_end(sandbox: Sandbox) -> None:
    with salesforce(sandbox) as api:
        sandbox.fault("cut", "/services/data/*", times=1)
        with pytest.raises(httpx.RemoteProtocolError):
            api.get(f"{DATA}/sobjects")
        sandbox.fault("hang", "/services/data/*", key="acme", times=1)
        with pytest.raises(httpx.ReadTimeout):
            api.get(f"{DATA}/limits", timeout=0.05)
        sandbox.fault("expire", "/services/data/*", times=1)
        assert refusal(api.get(f"{DATA}/limits"))[:2] == (401, "INVALID_SESSION_ID")
        assert refusal(api.get(f"{DATA}/limits"))[:2] == (401, "INVALID_SESSION_ID")
        sandbox.clear_faults()
        assert api.get(f"{DATA}/limits").status_code == 200
    assert sandbox.requests_to("salesforce") == 5


def test_doubles_are_printed_as_java_does() -> None:
    printed = [java_double(value) for value in (9e7, 0.5, -1.25e10, 1e-4, 9999999.5, 12345678.9, 0, 100)]
    assert printed == ["9.0E7", "0.5", "-1.25E10", "1.0E-4", "9999999.5", "1.23456789E7", "0.0", "100.0"]
