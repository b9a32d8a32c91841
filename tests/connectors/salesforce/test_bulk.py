"""Many records come by a query job of Bulk; what Bulk refuses comes by REST."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from churnguard_pipelines.connectors.salesforce import bulk, stretch
from churnguard_pipelines.model import DataSyncMode
from tests.connectors.salesforce.conftest import Reader
from tests.connectors.salesforce.org import STRING, Org, locator_of, refusal
from tests.engine.loopback import Answer, Asked, as_json

JUST_NOW = timedelta()
KINDS = {
    "Name": STRING, "Seats__c": "double", "Users__c": "int", "Active__c": "boolean", "Since__c": "date",
    "Seen__c": "datetime", "Notes__c": "textarea",
}  # fmt: skip


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch, org: Org) -> None:
    """More than four are many, and three come in a page of a job's results."""
    monkeypatch.setattr(stretch, "THRESHOLD", 4)
    org.has("Account", KINDS)
    org.job_page = 3


def values(number: int) -> dict[str, Any]:
    return {
        "Name": f"Account {number}", "Seats__c": 9.0e7 if number % 2 else 0.1, "Users__c": number,
        "Active__c": number > 2,
        "Since__c": "2026-01-31" if number else None, "Seen__c": "2026-01-31T10:00:00.000+0000",
        "Notes__c": f'line one,\nline "two"\r\n{number}' if number else None,
    }  # fmt: skip


def kept(reader: Reader) -> dict[str, dict[str, Any]]:
    return {key: {"Name": row["name"]} | {each: row["extra"].get(each) for each in KINDS if each != "Name"}
            for key, row in reader.alive().items()}  # fmt: skip


def test_many_records_come_by_a_job_with_their_types_nulls_and_newlines(org: Org, reader: Reader) -> None:
    """Large doubles print as ``9.0E7``, empty is null, and a text may hold lines, quotes and commas."""
    sent = {org.add("Account", **values(number)): values(number) for number in range(8)}
    report = reader.sync()
    assert report.status == "succeeded", report.error
    assert kept(reader) == sent
    assert len(org.asked("/results")) == 3
    assert not org.jobs, "the results are let go of"


def test_a_record_is_the_same_by_either_way(org: Org, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        org.add("Account", **values(number))
    reader.sync()
    by_job = {key: (row["name"], row["extra"], row["system_modstamp"]) for key, row in reader.alive().items()}
    monkeypatch.setattr(stretch, "THRESHOLD", 1000)
    org.passes(minutes=10)
    reader.sync(mode=DataSyncMode.FULL)
    assert {key: (row["name"], row["extra"], row["system_modstamp"]) for key, row in reader.alive().items()} == by_job


def test_few_records_need_no_job(org: Org, reader: Reader) -> None:
    org.add("Account", **values(1))
    reader.sync()
    assert not org.asked("/jobs/query")


def test_a_job_is_waited_for(org: Org, reader: Reader) -> None:
    org.states = ["UploadComplete", "InProgress", "InProgress"]
    keys = {org.add("Account", **values(number)) for number in range(5)}
    reader.sync()
    assert reader.alive().keys() == keys


def test_many_changes_come_by_a_job_with_what_was_deleted(org: Org, reader: Reader) -> None:
    keys = [org.add("Account", **values(number)) for number in range(6)]
    reader.sync()
    org.passes(minutes=10)
    for key in keys[1:]:
        org.change("Account", key, Name="after")
    org.delete("Account", keys[5])
    reader.later()
    (job,) = [asked for asked in org.asked("/jobs/query") if asked.method == "POST"][1:]
    assert b'"queryAll"' in job.body
    assert {row["name"] for row in reader.alive().values()} == {"Account 0", "after"}
    assert reader.kinds() == {keys[5]: "soft"}


def test_a_job_is_taken_up_again_where_a_sync_was_cut_off(org: Org, reader: Reader) -> None:
    keys = {org.add("Account", **values(number)) for number in range(8)}

    def cut_off(asked: Asked) -> Answer | None:
        return Answer(500, b"[]") if locator_of(asked) == "6" else None

    org.overrides = [cut_off]
    assert reader.sync().status == "failed"
    assert len(reader.alive()) == 6
    org.overrides = []
    before = len(org.api.asked)
    reader.later()
    assert reader.alive().keys() == keys
    again = org.api.asked[before:]
    assert [locator_of(asked) for asked in again if asked.path.endswith("/results")] == ["6"]
    assert not [asked for asked in again if asked.method == "POST"]


def test_a_job_whose_results_are_gone_is_made_anew(org: Org, reader: Reader) -> None:
    """Salesforce keeps them for a week."""
    keys = {org.add("Account", **values(number)) for number in range(8)}
    org.overrides = [lambda asked: Answer(500, b"[]") if locator_of(asked) == "6" else None]
    reader.sync()
    org.overrides = []
    org.jobs.clear()
    reader.later()
    assert reader.alive().keys() == keys


def test_truncated_results_are_fetched_again(org: Org, reader: Reader) -> None:
    """Fewer lines than ``Sforce-NumberOfRecords`` says, or one that is cut, would be a silent gap."""
    keys = {org.add("Account", **values(number)) for number in range(5)}
    cuts: Iterator[Callable[[bytes], bytes]] = iter(
        [lambda body: body.rsplit(b"\n", 2)[0] + b"\n", lambda body: body[:-20]]
    )

    def cut(asked: Asked) -> Answer | None:
        if not asked.path.endswith("/results") or (shorten := next(cuts, None)) is None:
            return None
        answer = org._own(asked)
        answer.body = gzip.compress(shorten(gzip.decompress(answer.body)))
        return answer

    org.overrides = [cut]
    assert reader.sync().status == "succeeded"
    assert reader.alive().keys() == keys
    assert len(org.asked("/results")) == 4


def test_results_that_stay_truncated_are_an_error_and_nothing_is_taken_for_read(org: Org, reader: Reader) -> None:
    keys = {org.add("Account", **values(number)) for number in range(5)}

    def cut(asked: Asked) -> Answer | None:
        if locator_of(asked) != "3":
            return None
        answer = org._own(asked)
        answer.headers["Sforce-NumberOfRecords"] = "3"
        return answer

    org.overrides = [cut]
    report = reader.sync()
    assert report.status == "failed"
    assert "2 of 3 records came" in str(report.objects["Account"].error)
    org.overrides = []
    reader.later()
    assert reader.alive().keys() == keys


@pytest.mark.parametrize(
    "code", ["API_ERROR", "INVALIDENTITY", "FEATURENOTENABLED"],
)  # fmt: skip
def test_what_bulk_refuses_comes_by_rest(org: Org, reader: Reader, code: str) -> None:
    keys = {org.add("Account", **values(number)) for number in range(8)}
    words = "Entity is not supported by the Bulk API"
    org.overrides = [lambda asked: refusal(code, 400, words) if asked.method == "POST" else None]
    assert reader.sync().status == "succeeded"
    assert reader.alive().keys() == keys


def test_a_job_that_fails_comes_by_rest(org: Org, reader: Reader) -> None:
    """“Selecting compound data not supported in Bulk Query”, which is said only then."""
    org.states = ["InProgress", "Failed"]
    keys = {org.add("Account", **values(number)) for number in range(8)}
    assert reader.sync().status == "succeeded"
    assert reader.alive().keys() == keys


def test_compound_fields_are_read_by_their_parts_and_files_by_rest(org: Org, reader: Reader) -> None:
    org.has("Account", KINDS | {"BillingAddress": "address", "BillingCity": STRING, "Logo__c": "base64"})
    for number in range(6):
        org.add("Account", **values(number), BillingCity="Graz", Logo__c="/services/data/v65.0/…/Body")
    reader.sync()
    assert not org.asked("/jobs/query")
    assert not any("BillingAddress" in text for text in org.queries())
    assert {row["billing_city"] for row in reader.alive().values()} == {"Graz"}


@pytest.mark.parametrize("limit", ["DailyBulkV2QueryJobs", "DailyBulkV2QueryFileStorageMB"])
def test_a_share_of_the_day_s_jobs_is_left_to_other_tools(org: Org, reader: Reader, limit: str) -> None:
    org.limits = {limit: {"Max": 10_000, "Remaining": 2_000}}
    keys = {org.add("Account", **values(number)) for number in range(8)}
    assert reader.sync().status == "succeeded"
    assert reader.alive().keys() == keys
    assert not org.jobs
    assert not [asked for asked in org.api.asked if asked.method == "POST"]


def test_a_job_that_somebody_ended_is_made_anew(org: Org, reader: Reader) -> None:
    org.states = ["Aborted"]
    keys = {org.add("Account", **values(number)) for number in range(8)}
    assert reader.sync().status == "succeeded"
    assert reader.alive().keys() == keys
    assert len([asked for asked in org.api.asked if asked.method == "POST"]) == 2


def test_results_larger_than_an_answer_may_be_come_in_smaller_pages(
    org: Org, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PAGE", 8_000)
    org.job_page = 100_000
    keys = {org.add("Account", **values(number)) for number in range(6)}

    def too_large(asked: Asked) -> Answer | None:
        if asked.path.endswith("/results") and int(asked.query["maxRecords"][0]) > 2_000:
            return Answer(200, gzip.compress(bytes(65 << 20), 1), {"Content-Encoding": "gzip"})
        return None

    org.overrides = [too_large]
    assert reader.sync().status == "succeeded"
    assert reader.alive().keys() == keys
    assert [asked.query["maxRecords"] for asked in org.asked("/results")] == [["8000"], ["2000"]]


def test_a_job_without_an_id_is_no_job(org: Org, reader: Reader) -> None:
    for number in range(8):
        org.add("Account", **values(number))
    org.overrides = [lambda asked: as_json({"id": "../../limits"}) if asked.method == "POST" else None]
    report = reader.sync()
    assert report.status == "failed"
    assert "made a bulk job without an id" in str(report.objects["Account"].error)
