"""Passes: what changed, what is gone, and where a pass goes on after it was interrupted."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.control.rules import RULES
from churnguard_pipelines.syncing.rules import preview_rule
from tests.connectors.dying import sync_that_dies
from tests.connectors.rest.conftest import MakeRule
from tests.connectors.rest.quirky import Quirky, Reply, Request

PAGED = {"pagination": {"type": "offset", "parameter": "at"}}


def records(*numbers: int) -> list[dict[str, Any]]:
    return [{"id": n} for n in numbers]


def test_a_full_read_finds_what_is_gone_and_what_came_back(rule: MakeRule, api: Quirky) -> None:
    api.says("/list", records(1, 2, 3), records(1, 3), records(1, 2, 3))
    made = rule()
    made.runs()
    assert made.runs().objects["records"].counts.deleted == 1
    assert (made.keys(), made.keys(deleted=True)) == (["1", "3"], ["2"])
    made.runs()
    assert made.keys() == ["1", "2", "3"]


def test_one_empty_answer_deletes_nothing_and_two_do(rule: MakeRule, api: Quirky) -> None:
    api.says("/list", records(1, 2), [], [])
    made = rule()
    made.runs()
    made.runs()
    assert made.keys() == ["1", "2"]
    made.runs()
    assert made.keys() == []


def test_an_interrupted_pass_goes_on_where_it_was_and_deletes_nothing(rule: MakeRule, api: Quirky) -> None:
    held, broken = records(1, 2, 3, 4), True

    def listed(request: Request) -> Any:
        at = int(request.query.get("at", 0))
        return Reply(b"{}", 500) if at >= 2 and broken else held[at : at + 2]

    api.routes["/list"] = listed
    made = rule(**PAGED)
    assert "500" in made.fails()
    assert made.keys() == ["1", "2"]
    broken = False
    asked = len(api.asked)
    made.runs()
    assert [request.query["at"] for request in api.asked[asked:]] == ["2", "4"]
    assert made.keys() == ["1", "2", "3", "4"]
    held = records(2, 3)
    made.runs()
    assert made.keys() == ["2", "3"], "an uninterrupted pass tells what is gone"


def test_a_killed_pass_loses_nothing_and_deletes_nothing(rule: MakeRule, api: Quirky) -> None:
    """Wherever it dies: what is at the source stays, and the next whole pass tells what is gone."""
    held = records(*range(1, 9))
    api.routes["/list"] = lambda request: held[int(request.query["at"]) : int(request.query["at"]) + 2]
    made = rule(**PAGED)
    made.runs()
    held = records(*range(2, 10))
    for statement in itertools.count(15, 15):
        if not sync_that_dies(made.store, statement, "records", integration_id=made.rule_id):
            break
        assert set(made.keys()) >= {str(n) for n in range(2, 9)}
    assert statement > 15, "none died"
    made.runs()
    assert made.keys() == [str(n) for n in range(2, 10)]
    assert made.keys(deleted=True) == ["1"]


def test_a_pass_whose_cursor_is_not_good_any_more_begins_anew(rule: MakeRule, api: Quirky) -> None:
    broken: list[Any] = [Reply(b"{}", 500)]

    def listed(request: Request) -> Any:
        cursor = request.query.get("cursor")
        if cursor is None:
            return {"rows": records(1), "next_cursor": "new" if not broken else "old"}
        if cursor == "old":
            return broken.pop() if broken else Reply(b'{"message": "expired"}', 410)
        return {"rows": records(2)}

    api.routes["/list"] = listed
    made = rule(data_path="rows")
    made.fails()
    made.runs()
    assert made.keys() == ["1", "2"]


def test_an_endpoint_that_was_changed_is_read_anew(rule: MakeRule, api: Quirky) -> None:
    api.says("/list", records(1))
    api.says("/other", records(2))
    made = rule()
    made.runs()
    made.change(endpoint_url=f"{api.url}/other")
    made.runs()
    assert made.keys() == ["2"]


CHANGES: dict[str, Any] = {"incremental": {"parameter": "since", "field": "at", "end_parameter": "until"}, "key": "id"}


@pytest.mark.parametrize(
    ("latest", "options", "asked"),
    [
        pytest.param("2026-01-31T10:00:00Z", {}, "2026-01-31T09:59:00Z", id="UTC"),
        pytest.param("2026-01-31T10:00:00.123+02:00", {"lag": 1}, "2026-01-31T09:59:59.123+02:00", id="offset"),
        pytest.param("2026-01-31 10:00:00", {}, "2026-01-31 09:59:00", id="no zone, and none is made up"),
        pytest.param("2026-01-31", {"lag": 86400}, "2026-01-30", id="a day"),
        pytest.param(1_769_853_600, {"format": "epoch"}, "1769853540", id="seconds"),
        pytest.param(1_769_853_600_000, {"format": "epoch_ms", "lag": 1}, "1769853599000", id="milliseconds"),
        pytest.param(17, {}, "17", id="a number that counts"),
        pytest.param("2026-01-31T10:00:00Z", {"format": "date"}, "2026-01-31", id="as the API wants it"),
    ],
)
def test_what_changed_is_asked_for_in_the_source_s_own_form(
    rule: MakeRule, api: Quirky, latest: Any, options: dict[str, Any], asked: str
) -> None:
    api.says("/list", [{"id": 1, "at": latest}], [{"id": 2, "at": latest}])
    made = rule(incremental=CHANGES["incremental"] | options, key="id")
    made.runs()
    made.runs()
    assert [request.query.get("since") for request in api.asked] == [None, asked]
    assert made.keys() == ["1", "2"], "a read of what changed deletes nothing"
    made.runs(DataSyncMode.FULL)
    assert "since" not in api.asked[-1].query
    assert made.keys() == ["2"], "one of everything does"


def test_times_without_an_order_are_refused(rule: MakeRule, api: Quirky) -> None:
    api.says("/list", [{"id": 1, "at": "2026-01-31T10:00:00"}, {"id": 2, "at": "2026-01-31T10:00:00Z"}])
    assert "the values of `at` have no order" in rule(**CHANGES).fails()


def test_a_window_of_time_is_filled_again_beside_the_checkpoint(rule: MakeRule, api: Quirky) -> None:
    api.says("/list", [{"id": n, "at": f"2026-0{n}-15T00:00:00Z"} for n in range(1, 5)])
    made = rule(**CHANGES)
    window = Window(datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    assert made.run(window=window).status == "succeeded"
    assert api.asked[-1].query == {"since": "2026-02-01T00:00:00Z", "until": "2026-04-01T00:00:00Z"}
    assert made.keys() == ["2", "3"]
    made.runs()
    assert "since" not in api.asked[-1].query
    assert made.keys() == ["1", "2", "3", "4"]


def test_a_window_needs_a_parameter(rule: MakeRule, api: Quirky) -> None:
    api.says("/list", records(1))
    window = Window(datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    report = rule().run(window=window)
    assert "no parameter of time" in (report.objects["records"].error or "")


def test_a_preview_says_what_it_finds_and_stores_nothing(rule: MakeRule, api: Quirky) -> None:
    listed = [{"id": n, "at": "2026-01-31T10:00:00Z", "plan": {"tier": "pro"}, "lines": [{"sku": "a"}]} for n in (1, 2)]
    api.says("/list", {"items": listed, "next_cursor": "x"})
    made = rule(data_path="items")
    seen = preview_rule(made.store, RULES.get(made.store, made.rule_id).configuration)
    assert (seen.count, seen.key, seen.key_detected) == (2, ["id"], True)
    assert (seen.paging, seen.paging_detected) == ("a cursor from `next_cursor`, sent as `cursor`", True)
    types = {each.path: str(each.type) for each in seen.fields}
    assert types == {"id": "bigint", "at": "timestamptz", "plan.tier": "text", "lines": "jsonb"}
    assert seen.lists == ["lines"]
    with made.store.operator() as connection:
        assert not connection.exec_driver_sql("SELECT count(*) FROM ingest.syncs").scalar()
