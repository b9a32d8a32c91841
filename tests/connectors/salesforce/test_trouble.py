"""Whatever Salesforce says or does: a clear word at the object that it is about, and the others go on."""

from __future__ import annotations

import pytest

from churnguard_pipelines.connectors.salesforce import api
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.salesforce.conftest import NAME, Reader
from tests.connectors.salesforce.org import STRING, Org, Override, refusal
from tests.engine.loopback import Answer, Asked, as_json


@pytest.fixture(autouse=True)
def two_objects(org: Org, reader: Reader) -> None:
    org.has("Contact", {"LastName": STRING})
    org.add("Contact", LastName="Doe")
    org.add("Account", Name="Acme")
    reader.configure("Account", "Contact")


def refusing(code: str, status: int = 403, message: str = "no") -> Override:
    """Every query of accounts."""
    answer = refusal(code, status, message)
    return lambda asked: answer if "FROM Account" in asked.query.get("q", [""])[0] else None


def test_an_object_that_the_user_may_not_see_is_named_and_never_an_empty_table(org: Org, reader: Reader) -> None:
    org.hidden.add("Account")
    report = reader.sync()
    assert report.objects["Account"].status == "failed"
    assert "permission set" in str(report.objects["Account"].error)
    assert report.objects["Contact"].status == "succeeded"
    assert reader.alive("contact")
    assert reader.status() != "authentication_failed"


def test_a_check_names_objects_and_fields_that_are_hidden(org: Org, reader: Reader, store: Store) -> None:
    org.hidden.add("Account")
    report = check_connection(store, NAME)
    lines = {line.object: line for line in report.objects}
    assert report.identity == next(iter(org.records["Organization"]))
    assert not lines["Account"].readable
    assert lines["Contact"].readable
    assert "Email" in str(lines["Contact"].problem)


def test_a_field_that_is_hidden_while_it_is_read_is_named(org: Org, reader: Reader) -> None:
    org.overrides = [refusing("INVALID_FIELD", 400, "No such column 'Industry' on entity 'Account'")]
    report = reader.sync()
    assert "No such column 'Industry'" in str(report.objects["Account"].error)
    assert report.objects["Contact"].status == "succeeded"


@pytest.mark.parametrize(
    ("code", "status", "advice"),
    [
        ("INVALID_TYPE", 400, "read access"),
        ("TXN_SECURITY_METERING_ERROR", 403, "Exempt from Transaction Security"),
        ("API_ERROR", 400, "View All Data"),
        ("OPERATION_TOO_LARGE", 400, "View All Data"),
        ("API_DISABLED_FOR_ORG", 403, "API Enabled"),
        ("INSUFFICIENT_ACCESS", 403, "permission set"),
    ],
)
def test_a_permission_that_is_missing_is_named(org: Org, reader: Reader, code: str, status: int, advice: str) -> None:
    org.overrides = [refusing(code, status)]
    report = reader.sync()
    assert advice in str(report.objects["Account"].error)
    assert report.objects["Contact"].status == "succeeded"


def test_a_day_s_calls_that_are_used_up_are_waited_for(org: Org, reader: Reader) -> None:
    """A rolling day: nobody calls for a while, and what is read stays."""
    org.overrides = [refusing("REQUEST_LIMIT_EXCEEDED", 403, "TotalRequests Limit exceeded.")]
    report = reader.sync()
    assert "quota is used up" in str(report.objects["Account"].error)
    before = len(org.api.asked)
    again = reader.sync()
    assert "used up until" in str(again.error)
    assert len(org.api.asked) == before
    assert reader.status() != "authentication_failed"


def test_a_share_of_the_day_s_calls_is_left_to_the_customer(org: Org, reader: Reader) -> None:
    org.usage = "api-usage=80001/100000; per-app-api-usage=17/250(appName=sample-app)"
    report = reader.sync()
    assert report.status == "failed"
    assert "used up until" in str(report.error)
    assert len(org.api.asked) < 8


def test_calls_that_are_left_are_known(org: Org, reader: Reader) -> None:
    assert reader.sync().quota_left == 100_000 - 18


@pytest.mark.parametrize("status", [406, 420, 503])
def test_an_instance_that_is_being_set_up_is_asked_again(org: Org, reader: Reader, status: int) -> None:
    answers = iter([Answer(status, b"[]")])
    org.overrides = [lambda asked: next(answers, None) if "q" in asked.query else None]
    assert reader.sync().status == "succeeded"


def test_too_many_long_requests_at_once_are_asked_again(
    org: Org, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of the used up day, with other words."""
    monkeypatch.setattr(api, "BREATHER", 0.01)
    words = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
    answers = iter([refusal("REQUEST_LIMIT_EXCEEDED", 403, words)])
    org.overrides = [lambda asked: next(answers, None) if "q" in asked.query else None]
    assert reader.sync().status == "succeeded"


@pytest.mark.parametrize("status", [200, 503])
def test_a_maintenance_page_is_no_answer(org: Org, reader: Reader, status: int) -> None:
    page = Answer(
        status, b"<html><title>Salesforce is down for maintenance</title></html>", {"Content-Type": "text/html"}
    )
    org.overrides = [lambda asked: page]
    report = reader.sync()
    assert report.status == "failed"
    assert reader.status() != "authentication_failed"
    org.overrides = []
    org.passes(minutes=30)
    assert reader.rows_after_sync() == 1


def test_a_version_of_the_api_that_is_retired_is_named(org: Org, reader: Reader) -> None:
    reader.configure(api_version="20.0")
    org.overrides = [lambda asked: refusal("GONE", 410, "The requested resource is no longer available")]
    report = reader.sync()
    assert "no API of the version 20.0 any more" in str(report.error)
    assert "api_version" in str(report.error)


def test_a_version_that_is_none_is_refused(reader: Reader) -> None:
    reader.configure(api_version="../../evil")
    with pytest.raises(InvalidConfiguration, match="no version"):
        reader.sync()


def test_another_organization_is_not_mixed_in(org: Org, reader: Reader) -> None:
    """E.g. a sandbox's session where production's was."""
    reader.sync()
    org.records["Organization"] = {}
    org.add("Organization", Name="Sandbox")
    org.passes(minutes=10)
    report = reader.sync()
    assert report.status == "failed"
    assert "another account" in str(report.objects["Account"].error)


def test_an_own_object_that_was_deleted_leaves_the_others_and_its_rows(org: Org, reader: Reader) -> None:
    org.has("Invoice__c", {"Name": STRING})
    org.add("Invoice__c", Name="I-1")
    reader.configure("Account", "Invoice__c")
    reader.sync()
    del org.kinds["Invoice__c"]
    assert reader.later().objects.keys() == {"Account"}
    assert [row["Name"] for row in reader.view("Invoice__c")] == ["I-1"]


@pytest.mark.parametrize(
    "body",
    [
        [], {}, {"records": 7}, {"records": [7]}, {"records": [{"Name": "no id"}]},
        {"records": [{"Id": "001"}], "done": False}, {"records": [], "done": False, "nextRecordsUrl": "/x"},
        {"records": [{"Id": "001"}], "done": False, "nextRecordsUrl": "https://evil.example/query/01g"},
    ],
    ids=["list", "empty", "a number", "numbers", "no id", "no next page", "empty page", "elsewhere"],
)  # fmt: skip
def test_an_answer_that_is_none_is_the_object_s_own_trouble(org: Org, reader: Reader, body: object) -> None:
    org.overrides = [lambda asked: as_json(body) if "FROM Account" in asked.query.get("q", [""])[0] else None]
    report = reader.sync()
    assert report.objects["Account"].status == "failed"
    assert "Salesforce" in str(report.objects["Account"].error)
    assert report.objects["Contact"].status == "succeeded"


def test_a_page_that_names_itself_ends(org: Org, reader: Reader) -> None:
    url = "/services/data/v65.0/query/01g000000000001AAA-1"
    page = {"records": [{"Id": "001000000000001AAA"}], "done": False, "nextRecordsUrl": url}

    def endless(asked: Asked) -> Answer | None:
        return as_json(page) if "01g" in asked.path or "FROM Account" in asked.query.get("q", [""])[0] else None

    org.overrides = [endless]
    assert "again and again" in str(reader.sync().objects["Account"].error)


def test_a_description_that_is_none_is_the_object_s_own_trouble(org: Org, reader: Reader) -> None:
    org.overrides = [lambda asked: as_json({"name": "Account"}) if "Account/describe" in asked.path else None]
    report = reader.sync()
    assert "cannot be understood" in str(report.objects["Account"].error)
    assert report.objects["Contact"].status == "succeeded"
