"""An endpoint that means harm, or is broken: one clear sentence, within its budgets, and the next read goes on."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from churnguard_pipelines.engine.mapping import MOST_NEW_FIELDS
from churnguard_pipelines.store.ingest.drift import list_drift
from tests.connectors.rest.conftest import MakeRule
from tests.connectors.rest.quirky import Quirky, Reply

CURSOR = {"type": "cursor", "parameter": "cursor", "path": "next"}
PLACES = ("query", "body", "header")
LONG, LINES, ZERO, UMLAUT = "x" * 100_000, "a\r\nX-Admin: 1", "a\0b", "n\u00e4chste"


def cursor(into: str) -> dict[str, Any]:
    return {"data_path": "data", "http_method": "POST", "pagination": CURSOR | {"into": into}}


class TestAPlaceThatCannotBeAskedFor:
    """It is not kept either: the next read would fail at it again, for ever."""

    @pytest.mark.parametrize(
        ("into", "told"),
        [
            *((into, told) for into in PLACES for told in (LONG, ZERO)),
            *(("header", told) for told in (LINES, UMLAUT)),
        ],
        ids=lambda value: value if value in PLACES else repr(value[:3]),
    )
    def test_as_a_cursor(self, rule: MakeRule, api: Quirky, into: str, told: str) -> None:
        api.says("/list", {"data": [{"id": 1}], "next": told}, {"data": [{"id": 1}, {"id": 2}]})
        made = rule(**cursor(into))
        assert "its cursor cannot be sent" in made.fails()
        assert made.keys() == ["1"], "what came with it is kept"
        made.runs()
        assert made.keys() == ["1", "2"]

    @pytest.mark.parametrize("into", PLACES)
    def test_a_long_cursor_and_one_of_digits_are_sent(self, rule: MakeRule, api: Quirky, into: str) -> None:
        for told in ("x" * 8_000, 10**3000):
            api.says("/list", {"data": [{"id": 1}], "next": told}, {"data": [{"id": 2}]})
            made = rule(**cursor(into))
            made.runs()
            assert made.keys() == ["1", "2"]

    @pytest.mark.parametrize(
        "told", ["http://[", "//[", "http://h:99999/", "/list?a\0b", f"/{LONG}"], ids=lambda told: repr(told[:12])
    )
    def test_as_a_url(self, rule: MakeRule, api: Quirky, told: str) -> None:
        api.says("/list", {"data": [{"id": 1}], "next": told}, {"data": [{"id": 1}, {"id": 2}]})
        made = rule(data_path="data", pagination={"type": "next_url", "path": "next"})
        assert "its next page is at what is no address" in made.fails()
        made.runs()
        assert made.keys() == ["1", "2"]

    def test_as_a_link_header_without_end(self, rule: MakeRule, api: Quirky) -> None:
        links = ", ".join(f'</list?page={n}>; rel="next{n}"' for n in range(20_000))
        api.says("/list", Reply(b'[{"id": 1}]', headers={"Link": links[:60_000]}))
        made = rule(pagination={"type": "link_header"})
        made.runs()
        assert len(api.asked) == 1

    def test_pages_that_alternate_without_a_record_end(self, rule: MakeRule, api: Quirky) -> None:
        turns = itertools.cycle(["a", "b"])
        api.routes["/list"] = lambda request: {"data": [], "next": next(turns)}
        assert "its list has no end" in rule(data_path="data", pagination=CURSOR | {"max_pages": 20}).fails()
        assert len(api.asked) == 20


class TestAnAnswerThatIsBeingMade:
    def test_a_pause_that_is_no_number_is_not_one(self, rule: MakeRule, api: Quirky) -> None:
        api.says("/list", Reply(status=202, headers={"Retry-After": "123456789x"}), [{"id": 1}])
        rule().runs()

    def test_a_place_that_is_no_address_is_named(self, rule: MakeRule, api: Quirky) -> None:
        api.says("/list", Reply(status=202, headers={"Location": "http://["}))
        assert "what is no address" in rule().fails()

    def test_it_is_given_up_in_the_end(self, rule: MakeRule, api: Quirky, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("churnguard_pipelines.connectors.rest.requests.MOST_POLLING", 0.5)
        api.says("/list", Reply(status=202, headers={"Retry-After": "0"}))
        assert "has been working on its answer" in rule().fails()
        assert len(api.asked) <= 7, "asked again without a pause"


class TestParents:
    def made(self, rule: MakeRule, api: Quirky, *parents: Any, **fields: Any) -> Any:
        api.says("/parents", *parents)
        api.says("/parents/1/items", [{"id": "a"}])
        api.says("/parents/2/items", [{"id": "b"}])
        return rule(
            endpoint_url=f"{api.url}/parents/{{parent}}/items",
            parent={"endpoint_url": f"{api.url}/parents"},
            key="id",
            **fields,
        )

    def test_while_one_has_no_key_nothing_counts_as_gone(self, rule: MakeRule, api: Quirky) -> None:
        made = self.made(rule, api, [{"id": 1}, {"id": 2}], [{"id": 1}, {"id": None}], [{"id": 1}])
        made.runs()
        made.runs()
        assert len(made.keys()) == 2, "the one without a key may be any of them"
        made.runs()
        assert len(made.keys()) == 1

    def test_if_none_has_a_key_that_is_an_error(self, rule: MakeRule, api: Quirky) -> None:
        made = self.made(rule, api, [{"id": 1}, {"id": 2}], [{"uid": 1}, {"uid": 2}])
        made.runs()
        for _ in range(2):
            assert "no parent record has a `id`" in made.fails()
        assert len(made.keys()) == 2

    @pytest.mark.parametrize("key", ["..", ".", "x" * 5_000], ids=["up", "here", "long"])
    def test_a_key_is_one_step_of_the_path(self, rule: MakeRule, api: Quirky, key: str) -> None:
        assert "no parent record has a `id`" in self.made(rule, api, [{"id": key}]).fails()
        assert {request.path for request in api.asked} == {"/parents"}

    def test_a_key_goes_into_the_query_as_well(self, rule: MakeRule, api: Quirky) -> None:
        api.says("/parents", [{"id": "a&admin=1"}])
        api.says("/items", [{"id": 1}])
        made = rule(endpoint_url=f"{api.url}/items?of={{parent}}", parent={"endpoint_url": f"{api.url}/parents"})
        made.runs()
        assert api.asked[-1].query == {"of": "a&admin=1"}


class TestTimesAtTheEdges:
    def since(self, rule: MakeRule, api: Quirky, *values: Any, **incremental: Any) -> Any:
        """What the second read asks for."""
        api.says("/list", [{"id": n, "at": value} for n, value in enumerate(values)])
        made = rule(key="id", incremental={"parameter": "since", "field": "at", **incremental})
        made.runs()
        made.runs()
        return api.asked[-1].query.get("since")

    @pytest.mark.parametrize("first", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"])
    def test_before_the_first_is_everything(self, rule: MakeRule, api: Quirky, first: str) -> None:
        assert self.since(rule, api, first) is None
        assert self.since(rule, api, first, start="2020-01-01") == "2020-01-01"

    @pytest.mark.parametrize(
        ("good", "far", "asked", "how"),
        [
            pytest.param("2026-01-31T10:00:00Z", "9999-12-31T23:59:59Z", "2026-01-31T09:59:00Z", {}, id="text"),
            pytest.param("2026-01-31", "9999-12-31", "2026-01-30", {}, id="date"),
            pytest.param(1_700_000_060, 99_999_999_999_999, "1700000000", {"format": "epoch"}, id="epoch"),
        ],
    )
    def test_what_is_to_come_does_not_hide_what_changes_before(
        self, rule: MakeRule, api: Quirky, good: Any, far: Any, asked: str, how: dict[str, Any]
    ) -> None:
        assert self.since(rule, api, good, far, **how) == asked

    def test_a_time_without_separators_keeps_its_form(self, rule: MakeRule, api: Quirky) -> None:
        assert self.since(rule, api, "20260131T101010Z") == "20260131T100910Z"
        assert self.since(rule, api, "20260131T101010.5+0200") == "20260131T100910+0200"

    def test_a_time_that_goes_back_is_not_followed(self, rule: MakeRule, api: Quirky) -> None:
        made = rule(key="id", incremental={"parameter": "since", "field": "at", "lag": 0})
        for at in ("2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"):
            api.says("/list", [{"id": 1, "at": at}])
            made.runs()
        assert api.asked[-1].query["since"] == "2026-02-01T00:00:00Z"


class TestKeys:
    @pytest.mark.parametrize("ids", [(1, "1"), ("true", True)], ids=["number and text", "truth and text"])
    def test_one_text_is_one_key(self, rule: MakeRule, api: Quirky, ids: tuple[Any, Any]) -> None:
        api.says("/list", [{"id": each, "n": n} for n, each in enumerate(ids)])
        assert "two different records have one key" in rule(key="id").fails()

    def test_case_and_normalization_are_the_sources_to_know(self, rule: MakeRule, api: Quirky) -> None:
        keys = ["a", "A", "\u00e9", "e\u0301"]
        api.says("/list", [{"id": each} for each in keys])
        made = rule(key="id")
        made.runs()
        assert sorted(made.keys()) == sorted(keys)

    def test_fields_of_our_names_keep_their_values(self, rule: MakeRule, api: Quirky) -> None:
        api.says("/list", [{"id": 1, "record_key": 5, "source_record_key": 6}])
        made = rule(key="id")
        made.runs()
        assert sorted(made.rows()[0]["extra"].values()) == [1, 5, 6]


class TestFiles:
    def rejected(self, rule: MakeRule, api: Quirky, body: bytes) -> str:
        api.says("/list", Reply(body, type="text/csv"))
        return rule(key="id", response_format="csv").fails()

    def test_columns_have_a_limit(self, rule: MakeRule, api: Quirky) -> None:
        assert "more than 50,000 cells in a row" in self.rejected(rule, api, b"id," + b"," * 1_000_000 + b"\n1\n")

    def test_cells_of_a_row_over_many_lines_have_one(self, rule: MakeRule, api: Quirky) -> None:
        assert "more than 50,000 cells in a row" in self.rejected(rule, api, b"id,b\n" + b'"\n",' * 60_000)

    def test_rows_of_a_long_file_have_none(self, rule: MakeRule, api: Quirky) -> None:
        rows = b"".join(b"%d,x\n" % n for n in range(30_000))
        api.says("/list", Reply(b"\r\n\nid,b\n" + rows, type="text/csv"))
        assert rule(key="id", response_format="csv").runs().objects["records"].counts.read == 30_000

    def test_an_element_is_no_html_for_its_first_letters(self, rule: MakeRule, api: Quirky) -> None:
        api.says("/list", Reply(b"<headlines><item><id>1</id></item></headlines>", type="text/xml"))
        made = rule(response_format="xml", data_path="headlines.item", key="id")
        made.runs()
        assert made.keys() == ["1"]


@pytest.mark.parametrize(
    "login",
    [
        {"credential_type": "bearer", "access_token": "s3cret\nvalue"},
        {"credential_type": "api_key", "api_key": "s3cret\r\nvalue"},
        {"credential_type": "api_key", "api_key": "s3cret", "custom_fields": {"header": "X-s3cret\n"}},
        {"credential_type": "api_key", "api_key": "s3cret\u2026", "custom_fields": {"header": "X-\u2026"}},
    ],
    ids=["bearer", "key", "header", "ellipsis"],
)
def test_a_secret_that_no_header_can_hold_is_not_told(rule: MakeRule, api: Quirky, login: dict[str, Any]) -> None:
    told = rule(authentication=login).fails()
    assert "another character that headers cannot hold" in told
    assert "s3cret" not in told
    assert not api.asked


def test_names_of_fields_are_no_sql(rule: MakeRule, api: Quirky) -> None:
    """In the paths of mappings and of child tables: quotes, placeholders, and more than an identifier holds."""
    names = ["it's", 'say "x"', "100%", "%(own)s", "%s", ":own", "a\\b", "{x}", "$1", "x" * 300, "\u00e9\u202e"]
    record = {name: f"value {n}" for n, name in enumerate(names)}
    api.says("/list", [{"id": 1, **record, "o'k": {'"%s"': [record]}}])
    mappings = {name: f"c{n}" for n, name in enumerate(names)}
    lines = {"path": """["o'k"]['"%s"']""", "field_mappings": mappings}
    made = rule(key="id", field_mappings=mappings, children={"lines": lines})
    made.runs()
    for row in (*made.rows(), *made.rows("records_lines")):
        assert [row[f"c{n}"] for n in range(len(names))] == list(record.values())


def test_a_record_of_many_fields_does_not_fill_the_list_of_new_ones(rule: MakeRule, api: Quirky) -> None:
    long = {str(n): "".join(map(chr, range(0x4E00 + n, 0x4E00 + n + 5_000))) for n in range(3)}  # no compressing of it
    api.says("/list", [{"id": 1, **dict.fromkeys(long.values(), 1), **{f"field{n}": n for n in range(20_000)}}])
    made = rule(key="id")
    made.runs()
    assert len(made.rows()[0]["extra"]) == 20_004
    assert len(list_drift(made.store, made.rule_id)["records"]) <= MOST_NEW_FIELDS
