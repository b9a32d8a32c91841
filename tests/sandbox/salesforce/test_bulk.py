"""The simulated Bulk API 2.0: jobs, pages of results, refusals."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from churnguard_pipelines.sandbox.serve import Sandbox, serve
from tests.sandbox.conftest import ANCHOR
from tests.sandbox.salesforce.conftest import DATA, query, refusal, salesforce

JOBS = f"{DATA}/jobs/query"


def start(api: httpx.Client, soql: str, operation: str = "query") -> dict[str, Any]:
    answer = api.post(JOBS, json={"operation": operation, "query": soql})
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def finished(api: httpx.Client, id: str) -> dict[str, Any]:
    """The job once it is over; it is asked again and again, as a client does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job: dict[str, Any] = api.get(f"{JOBS}/{id}").json()
        if job["state"] not in ("UploadComplete", "InProgress"):
            return job
        time.sleep(0.01)
    raise AssertionError(f"{id} does not end")


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_job_from_its_start_to_its_last_page(world: Sandbox) -> None:
    with salesforce(world) as api:
        columns = "Id, Name, Description, AnnualRevenue, IsDeleted, SystemModstamp, NumberOfEmployees"
        job = start(api, f"SELECT {columns} FROM Account")
        assert (job["state"], job["object"], job["operation"]) == ("UploadComplete", "Account", "query")
        assert api.get(f"{JOBS}/{job['id']}").json()["state"] in ("UploadComplete", "InProgress")
        total = finished(api, job["id"])["numberRecordsProcessed"]
        found: list[dict[str, str]] = []
        locator = None
        while locator != "null":
            parameters = {"maxRecords": "100", **({"locator": locator} if locator else {})}
            page = api.get(f"{JOBS}/{job['id']}/results", params=parameters)
            assert page.headers["content-encoding"] == "gzip"
            assert len(rows(page.text)) == int(page.headers["sforce-numberofrecords"]) <= 100
            found += rows(page.text)
            locator = page.headers["sforce-locator"]
        assert len(found) == total
        shown = query(api, f"SELECT {columns} FROM Account")
        assert [row["Id"] for row in found] == [record["Id"] for record in shown]
        for row, record in zip(found, shown, strict=True):
            assert row["Description"] == (record["Description"] or "")
            assert row["IsDeleted"] == "false"
            assert row["SystemModstamp"] == record["SystemModstamp"].replace("+0000", "Z")
            assert float(row["AnnualRevenue"] or 0) == (record["AnnualRevenue"] or 0)
        assert any("\n" in row["Description"] for row in found)
        assert "9.0E7" in {row["AnnualRevenue"] for row in found}
        assert api.delete(f"{JOBS}/{job['id']}").status_code == 204
        assert refusal(api.get(f"{JOBS}/{job['id']}"))[:2] == (404, "NOT_FOUND")


def test_query_all_takes_the_recycle_bin_too(world: Sandbox) -> None:
    with salesforce(world) as api:
        job = start(api, "SELECT Id, IsDeleted FROM Account", "queryAll")
        finished(api, job["id"])
        deleted = {row["IsDeleted"] for row in rows(api.get(f"{JOBS}/{job['id']}/results").text)}
        assert deleted == {"true", "false"}


@pytest.mark.parametrize(
    ("soql", "code", "says"),
    [
        ("SELECT Id, BillingAddress FROM Account", "API_ERROR", "Selecting compound data not supported in Bulk Query"),
        ("SELECT Id, Body FROM Attachment", "FEATURENOTENABLED", "Binary field not supported"),
        ("SELECT Id FROM OpportunityStage", "INVALIDENTITY", "is not supported by the Bulk API."),
        ("SELECT COUNT() FROM Account", "API_ERROR", "not supported in Bulk Query"),
        ("SELECT Id FROM Account LIMIT 5 OFFSET 5", "API_ERROR", "OFFSET"),
        ("SELECT Nothing__c FROM Account", "INVALID_FIELD", "No such column"),
    ],
    ids=["compound", "base64", "entity", "aggregate", "offset", "field"],
)
def test_what_the_bulk_api_does_not_take(world: Sandbox, soql: str, code: str, says: str) -> None:
    with salesforce(world) as api:
        refused = refusal(api.post(JOBS, json={"operation": "query", "query": soql}))
        assert refused[:2] == (400, code)
        assert says in refused[2]


def test_states_that_refuse(sandbox: Sandbox) -> None:
    sandbox.salesforce.limits("acme").bulk_polls = 1000
    with salesforce(sandbox) as api:
        path = f"{JOBS}/{start(api, 'SELECT Id FROM Account')['id']}"
        assert refusal(api.get(f"{path}/results"))[1] == "INVALIDJOBSTATE"
        assert refusal(api.delete(path))[1] == "INVALIDJOBSTATE"
        assert api.patch(path, json={"state": "Aborted"}).json()["state"] == "Aborted"
        assert refusal(api.patch(path, json={"state": "Aborted"}))[1] == "INVALIDJOBSTATE"
        sandbox.salesforce.limits("acme").bulk_polls = 0
        sandbox.fault("fail_job", "/services/data/*", value="Retry limit exceeded", times=1)
        failed = finished(api, start(api, "SELECT Id FROM Account")["id"])
        assert (failed["state"], failed["errorMessage"]) == ("Failed", "Retry limit exceeded")


def test_results_that_end_too_early_and_locators_of_nothing(sandbox: Sandbox) -> None:
    with salesforce(sandbox) as api:
        id = start(api, "SELECT Id FROM Contact")["id"]
        total = finished(api, id)["numberRecordsProcessed"]
        sandbox.fault("truncate", "/services/data/*", times=1)
        cut = api.get(f"{JOBS}/{id}/results")
        assert len(rows(cut.text)) < int(cut.headers["sforce-numberofrecords"]) == total
        assert len(rows(api.get(f"{JOBS}/{id}/results").text)) == total
        for locator in ("!", "OTk5OTk5"):
            refused = refusal(api.get(f"{JOBS}/{id}/results", params={"locator": locator}))
            assert refused[:2] == (400, "INVALIDLOCATOR")


def test_limits_of_a_day_and_of_a_week(sandbox: Sandbox) -> None:
    sandbox.salesforce.limits("acme").bulk_jobs = 1
    with salesforce(sandbox) as api:
        id = start(api, "SELECT Id FROM Account")["id"]
        refused = api.post(JOBS, json={"operation": "query", "query": "SELECT Id FROM Account"})
        assert refusal(refused)[:2] == (400, "LIMIT_EXCEEDED")
        assert api.get(f"{DATA}/limits").json()["DailyBulkV2QueryJobs"] == {"Max": 1, "Remaining": 0}
        finished(api, id)
        sandbox.account("acme").advance(7 * 86_400 + 1)
        assert refusal(api.get(f"{JOBS}/{id}/results"))[0] == 404


def test_an_account_of_any_size(tmp_path: Path) -> None:
    with serve(tmp_path, seed=1, anchor=ANCHOR, scale=0, bulk=30_000) as sandbox, salesforce(sandbox, "bulk") as api:
        counted = api.get(f"{DATA}/query", params={"q": "SELECT COUNT() FROM Contact"}).json()
        assert counted["totalSize"] == 30_000
        id = start(api, "SELECT Id, Email FROM Contact ORDER BY Id LIMIT 20000")["id"]
        assert finished(api, id)["numberRecordsProcessed"] == 20_000
        first = rows(api.get(f"{JOBS}/{id}/results", params={"maxRecords": "15000"}).text)
        after = first[-1]["Id"]
        last = query(api, f"SELECT Id FROM Contact WHERE Id > '{after}' ORDER BY Id")
        assert len({row["Id"] for row in first} | {record["Id"] for record in last}) == 30_000
        again = start(api, "SELECT Id, Email FROM Contact ORDER BY Id LIMIT 20000")["id"]
        finished(api, again)
        assert api.delete(f"{JOBS}/{id}").status_code == 204
        assert rows(api.get(f"{JOBS}/{again}/results", params={"maxRecords": "15000"}).text) == first
