"""What goes wrong with a rule is said in one clear sentence; what came before is kept, and other rules go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from churnguard_pipelines.connectors.rest import formats
from tests.connectors.rest.conftest import MakeRule
from tests.connectors.rest.quirky import Quirky, Reply, Request

GOOD = [{"id": n} for n in range(1, 4)]
HTML = Reply(b"<!DOCTYPE html><html><title>Sign in</title></html>", type="text/html")


def text(body: str, type: str = "application/json") -> Reply:
    return Reply(body.encode(), type=type)


@pytest.mark.parametrize(
    ("reply", "fields", "words"),
    [
        pytest.param({"items": GOOD}, {}, "a document that is no list", id="no list"),
        pytest.param({"items": GOOD}, {}, "there are lists at items (3)", id="no list, says where one is"),
        pytest.param({"items": GOOD}, {"data_path": "data.rows"}, "nothing at `data.rows`", id="path of nothing"),
        pytest.param({"items": 7}, {"data_path": "items"}, "what is no list at `items`", id="path of a number"),
        pytest.param(HTML, {}, "HTML instead of JSON", id="HTML"),
        pytest.param(HTML, {"response_format": "csv"}, "HTML instead of CSV", id="HTML for CSV"),
        pytest.param(text(""), {}, "an empty body", id="nothing"),
        pytest.param(text('[{"id": 1'), {}, "cut or damaged JSON", id="cut"),
        pytest.param(text('[{"id": 1, "x": NaN}]'), {}, "NaN, which is no JSON and no number", id="NaN"),
        pytest.param(Reply(b'[{"id": "\xe4"}]'), {}, "text that is not utf-8", id="another encoding"),
        pytest.param(
            text("[]", "text/json; charset=klingon"), {}, "an encoding that is not known", id="unknown encoding"
        ),
        pytest.param(
            text("a-", "text/json; charset=punycode"), {}, "an encoding that is not known", id="slow encoding"
        ),
        pytest.param([{"id": 1}, {"id": 1, "n": 2}], {"key": "id"}, "different records have one key", id="key twice"),
        pytest.param([{"n": 1}, {"n": 1}], {}, "no field of its records tells them apart", id="no key"),
        pytest.param(
            text('<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>', "text/xml"),
            {"response_format": "xml", "data_path": "x"},
            "declares a document type", id="entities",
        ),
        pytest.param(text("id\n" + '"' + "a" * 20), {"response_format": "csv"}, "CSV that cannot be read", id="quote"),
        pytest.param(text("[" + "[]," * 2_100_000 + "[]]"), {}, "more than 2,000,000 values", id="bomb of brackets"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_records_is_named(
    rule: MakeRule, api: Quirky, reply: Any, fields: dict[str, Any], words: str
) -> None:
    api.says("/list", reply)
    assert words in rule(**fields).fails()


def test_a_host_that_cannot_be_reached_is_named(rule: MakeRule) -> None:
    assert "cannot be reached" in rule(endpoint_url="http://127.0.0.1:1/list").fails()


def test_a_host_longer_than_any_is_named(rule: MakeRule) -> None:
    assert "there is no host" in rule(endpoint_url=f"http://{'a' * 2075}").fails()


def test_a_user_in_the_url_is_refused(rule: MakeRule, api: Quirky) -> None:
    told = rule(endpoint_url=api.url.replace("://", "://me:s3cret@") + "/list").fails()
    assert "its endpoint_url holds a user or password" in told
    assert not api.asked


@pytest.mark.parametrize(
    ("route", "fields", "words"),
    [
        pytest.param(
            lambda request: {"data": GOOD, "next": "again"},
            {"data_path": "data", "pagination": {"type": "cursor", "parameter": "cursor", "path": "next"}},
            "round in a circle", id="a cursor that stays",
        ),
        pytest.param(
            lambda request: {"data": GOOD, "next": f"/list?n={int(request.query.get('n', 0)) + 1}"},
            {"data_path": "data"}, "round in a circle", id="new pages with old records",
        ),
        pytest.param(
            lambda request: [{"id": int(request.query.get("page", 1))}],
            {"pagination": {"type": "page", "max_pages": 5}}, "5 pages were read, and its list has no end",
            id="records without end",
        ),
        pytest.param(
            lambda request: GOOD,
            {"pagination": {"type": "page", "parameter": "p", "size_parameter": "n", "size": 3}},
            "its second page is the first one again", id="a parameter that is ignored",
        ),
        pytest.param(
            lambda request: {"data": GOOD, "next": "http://169.254.169.254/latest"},
            {"data_path": "data"}, "its next page is at another host", id="a page elsewhere",
        ),
    ],
)  # fmt: skip
def test_pages_that_do_not_end_well_end_with_an_error_and_keep_what_came(
    rule: MakeRule, api: Quirky, route: Callable[[Request], Any], fields: dict[str, Any], words: str
) -> None:
    api.routes["/list"] = route
    made = rule(**fields)
    assert words in made.fails()
    assert made.keys()
    assert len(api.asked) < 10


def test_a_server_that_repeats_its_last_page_for_ever_has_an_end(rule: MakeRule, api: Quirky) -> None:
    pages = {1: GOOD[:2], 2: GOOD[2:]}
    api.routes["/list"] = lambda request: pages[min(int(request.query.get("page", 1)), 2)]
    made = rule(pagination={"type": "page"})
    made.runs()
    assert made.keys() == ["1", "2", "3"]
    assert len(api.asked) == 3


def test_a_record_without_its_key_is_set_aside_and_nothing_counts_as_gone(rule: MakeRule, api: Quirky) -> None:
    api.says("/list", GOOD, [{"id": 1}, {"no": "id"}])
    made = rule(key="id")
    made.runs()
    second = made.runs()
    assert second.objects["records"].counts.rejected == 1
    assert made.keys() == ["1", "2", "3"], "the record without a key may be any of them"


def test_one_rule_s_trouble_is_its_own(rule: MakeRule, api: Quirky) -> None:
    api.says("/bad", HTML)
    api.says("/list", GOOD)
    bad, good = rule(rule_id="bad", endpoint_url=f"{api.url}/bad"), rule(rule_id="good")
    assert "HTML" in bad.fails()
    good.runs()
    assert good.keys() == ["1", "2", "3"]


class TestWhatAStatusMeans:
    def test_nothing_is_no_error_where_the_rule_says_so(self, rule: MakeRule, api: Quirky) -> None:
        made = rule(endpoint_url=f"{api.url}/nowhere")
        assert "404" in made.fails()
        made.change(responses={404: "empty"})
        made.runs()
        assert made.keys() == []

    def test_204_has_no_records(self, rule: MakeRule, api: Quirky) -> None:
        api.says("/list", Reply(status=204))
        rule().runs()

    def test_202_is_asked_again_where_it_says(self, rule: MakeRule, api: Quirky) -> None:
        api.says("/list", Reply(status=202, headers={"Location": "/jobs/1", "Retry-After": "0"}))
        api.says("/jobs/1", Reply(status=202, headers={"Retry-After": "0"}), GOOD)
        made = rule()
        made.runs()
        assert [request.path for request in api.asked] == ["/list", "/jobs/1", "/jobs/1"]
        assert made.keys() == ["1", "2", "3"]

    def test_a_refusal_is_retried_and_a_wrong_key_is_not(self, rule: MakeRule, api: Quirky) -> None:
        api.says("/list", Reply(status=503), Reply(status=429, headers={"Retry-After": "0"}), GOOD)
        made = rule(retry_attempts=3)
        made.runs()
        api.says("/list", Reply(b'{"message": "key s3cret-value is revoked"}', 401))
        made.change(authentication={"credential_type": "bearer", "access_token": "s3cret-value"})
        told = made.fails()
        assert "refused the credentials" in told
        assert "s3cret-value" not in told


class TestWhatIsKeptExactly:
    def test_numbers_have_all_their_digits(self, rule: MakeRule, api: Quirky) -> None:
        big, long = 2**53 + 1, "0.1234567890123456789"
        api.says("/list", text(f'[{{"id": {10**30}, "big": {big}, "long": {long}, "short": 0.1}}]'))
        made = rule(field_mappings={"long": "long:numeric", "big": "big:bigint"})
        made.runs()
        (row,) = made.rows()
        assert (row["record_key"], row["big"], str(row["long"])) == (str(10**30), big, long)
        assert row["extra"]["short"] == 0.1

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "latin-1"])
    def test_texts_in_other_encodings(self, rule: MakeRule, api: Quirky, encoding: str) -> None:
        kind = "application/json; charset=latin-1" if encoding == "latin-1" else "application/json"
        api.says("/list", Reply(json.dumps([{"id": "ü"}], ensure_ascii=False).encode(encoding), type=kind))
        made = rule()
        made.runs()
        assert made.keys() == ["ü"]

    def test_a_record_s_own_field_of_our_key_s_name(self, rule: MakeRule, api: Quirky) -> None:
        api.says("/list", [{"id": 1, "record_key": "theirs"}])
        made = rule()
        made.runs()
        assert made.rows()[0]["extra"] == {"id": 1, "source_record_key": "theirs"}

    @pytest.mark.parametrize("body", ["a,a\n1,2", "a,a_2,a\n1,2,3"])
    def test_columns_of_one_name(self, body: str) -> None:
        names = formats._unique(body.splitlines()[0].split(","))
        assert len(set(names)) == len(names)
