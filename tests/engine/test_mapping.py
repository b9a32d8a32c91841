"""Provider records become rows of a raw table, or rejected records with a reason; nothing is dropped."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import DataFilter
from churnguard_pipelines.records import (
    BIGINT,
    JSON,
    TEXT,
    TIMESTAMP,
    Column,
    Record,
    Table,
)
from tests.engine.customers import CUSTOMERS, mapped, named, row


def reason(payload: Any) -> str:
    result = mapped(payload)
    assert not result.rows
    return result.rejected[0].reason


def test_a_record_that_fits_goes_straight_into_its_columns() -> None:
    found = mapped(
        {
            "id": "cus_1",
            "email": "zoë@example.com",
            "balance": -1250,
            "rate": "0.0525",
            "score": 0.5,
            "delinquent": False,
            "created": 1_700_000_000,
            "born": "1990-02-28",
            "metadata": {"tier": "gold", "seats": 4},
        }
    )
    assert found.rows == [
        (
            "cus_1",
            7,
            "zoë@example.com",
            -1250,
            Decimal("0.0525"),
            0.5,
            False,
            "2023-11-14 22:13:20+00",
            "1990-02-28",
            '{"tier":"gold","seats":4}',
            None,
            None,
        )
    ]
    assert (found.rejected, found.filtered, found.drift) == ([], 0, [])


def test_missing_and_null_fields_are_null() -> None:
    assert mapped({"id": "cus_1", "email": None}).rows == [("cus_1", 7, *[None] * 10)]


def test_undeclared_fields_go_to_extra_as_they_came() -> None:
    assert json.loads(row({"id": "a", "address": {"city": "Kyōto"}, "tags": [1, None]})["extra"]) == {
        "address": {"city": "Kyōto"},
        "tags": [1, None],
    }


def test_a_dotted_path_takes_its_value_and_leaves_the_rest_in_extra() -> None:
    payload: dict[str, Any] = {"id": "a", "subscription": {"id": "sub_1", "plan": {"id": "gold", "amount": 5}}}
    found = row(payload)
    assert found["plan"] == "gold"
    assert json.loads(found["extra"]) == {"subscription": {"id": "sub_1", "plan": {"amount": 5}}}
    assert payload["subscription"]["plan"] == {"id": "gold", "amount": 5}, "the caller's record is left alone"


@pytest.mark.parametrize("subscription", ["sub_1", None, [], {}, {"plan": "gold"}, {"plan": None}])
def test_a_dotted_path_that_leads_nowhere_is_null_and_what_is_there_stays(subscription: Any) -> None:
    found = row({"id": "a", "subscription": subscription})
    assert found["plan"] is None
    assert json.loads(found["extra"]) == {"subscription": subscription}


def test_a_field_declared_itself_stays_whole_when_another_column_reads_inside_it() -> None:
    table = Table("p", "o", "id", (Column("seats", BIGINT, path="metadata.seats"), Column("metadata", JSON)))
    assert Mapper(table).rows([Record({"id": "a", "metadata": {"seats": 3}}, 1)]).rows == [
        ("a", 1, 3, '{"seats":3}', None)
    ]


@pytest.mark.parametrize(
    ("column", "value", "stored"),
    [
        ("email", 12, "12"),
        ("email", 1.5, "1.5"),
        ("email", True, "true"),
        ("email", {"a": [1]}, '{"a":[1]}'),
        ("email", "", ""),
        ("balance", 12.0, 12),
        ("balance", "-12", -12),
        ("balance", 2**63 - 1, 2**63 - 1),
        ("rate", 1.25, 1.25),
        ("rate", 3, 3),
        ("rate", "1e3", Decimal("1e3")),
        ("rate", 10**30, Decimal(10**30)),
        ("score", 3, 3.0),
        ("score", "2.5", 2.5),
        ("delinquent", "true", True),
        ("delinquent", "False", False),
        ("created", 0, "1970-01-01 00:00:00+00"),
        ("created", -1, "1969-12-31 23:59:59+00"),
        ("created", 1.5, "1970-01-01 00:00:01.500000+00:00"),
        ("created", "2024-02-29T10:00:00.123Z", "2024-02-29T10:00:00.123Z"),
        ("created", "2024-02-29T10:00:00.1234567Z", "2024-02-29 10:00:00.123456+00:00"),
        ("created", "2024-02-29T10:00:00+02:00", "2024-02-29 08:00:00+00:00"),
        ("created", "2024-02-29 10:00:00", "2024-02-29 10:00:00+00:00"),
        ("created", "2024-02-29", "2024-02-29 00:00:00+00:00"),
        ("created", datetime(2024, 2, 29, tzinfo=UTC), "2024-02-29 00:00:00+00:00"),
        ("created", "", None),
        ("born", "2024-02-29T00:00:00Z", "2024-02-29"),
        ("born", date(2024, 2, 29), "2024-02-29"),
        ("born", "", None),
        ("metadata", "text", '"text"'),
        ("metadata", False, "false"),
        ("metadata", 2**70, "1180591620717411303424"),
        ("metadata", {"when": Decimal("1.10")}, '{"when":"1.10"}'),
        ("metadata", r"not a NUL: \u0000", r'"not a NUL: \\u0000"'),
    ],
)
def test_values_are_brought_to_the_column_s_type(column: str, value: Any, stored: Any) -> None:
    found = row({"id": "a", column: value})[column]
    assert (found, type(found)) == (stored, type(stored))


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("email", "a\0b", "holds a NUL character"),
        ("email", "\ud800", "half of a surrogate pair"),
        ("email", {"a": "\0"}, "holds a NUL character"),
        ("balance", 1.5, "expected a whole number, got one with a fraction"),
        ("balance", "12 EUR", "expected a whole number, got text"),
        ("balance", True, "expected a whole number, got true or false"),
        ("balance", 2**63, "beyond 64 bits"),
        ("balance", float("inf"), "not a finite number"),
        ("rate", "NaN", "expected a number, got text"),
        ("rate", "1e999999", "beyond what can be stored"),
        ("rate", [1], "expected a number, got a list"),
        ("score", "1e999", "beyond what can be stored"),
        ("score", 10**400, "beyond what can be stored"),
        ("delinquent", 1, "expected true or false, got a whole number"),
        ("delinquent", "yes", "expected true or false, got text"),
        ("created", 1_700_000_000_000, "epoch seconds are meant, not milliseconds"),
        ("created", 1e18, "outside the years 1 to 9999"),
        ("created", float("nan"), "outside the years 1 to 9999"),
        ("created", "yesterday", "ISO 8601"),
        ("created", True, "expected a date and time"),
        ("born", "2024-02-30", "a date in ISO 8601"),
        ("born", "2024-02-29T10:00:00", "a time of day"),
        ("born", 20240229, "expected a date, got a whole number"),
        ("metadata", {"a": ["\0"]}, "holds a NUL character"),
        ("metadata", {"\0": 1}, "holds a NUL character"),
        ("metadata", ["\udfff"], "half of a surrogate pair"),
    ],
)
def test_a_value_that_does_not_fit_rejects_the_record_and_says_where_and_why(column: str, value: Any, why: str) -> None:
    payload = {"id": "cus_1", column: value}
    result = mapped(payload, {"id": "cus_2"})
    (rejected,) = result.rejected
    assert rejected.key == "cus_1"
    assert rejected.reason.startswith(f"{column}: ")
    assert why in rejected.reason
    assert rejected.payload is payload
    assert [found[0] for found in result.rows] == ["cus_2"], "the others go on"


def test_a_reason_never_repeats_the_value() -> None:
    assert "secret" not in reason({"id": "a", "balance": "secret"})


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("text", "expected an object, got text"),
        (None, "expected an object, got nothing"),
        ([{"id": "a"}], "expected an object, got a list"),
        ({}, "id: missing"),
        ({"id": None}, "id: missing"),
        ({"id": ""}, "id: missing"),
        ({"id": 1.5}, "id: expected text or a whole number, got a number"),
        ({"id": True}, "id: expected text or a whole number, got true or false"),
        ({"id": "x" * 501}, "id: longer than 500 characters"),
        ({"id": "a\0"}, "id: holds a NUL character"),
    ],
)
def test_a_record_without_identity_is_rejected_without_a_key(payload: Any, why: str) -> None:
    (rejected,) = mapped(payload).rejected
    assert rejected.key is None
    assert why in rejected.reason


def test_numbers_are_good_keys_and_become_text() -> None:
    assert row({"id": 42})["key"] == "42"


def test_an_undeclared_field_that_cannot_be_stored_rejects_the_record_too() -> None:
    (rejected,) = mapped({"id": "a", "note": "\0"}).rejected
    assert rejected.key == "a"
    assert "an undeclared field: holds a NUL character" in rejected.reason


def test_new_fields_are_reported_once_with_their_type_and_never_their_value() -> None:
    mapper = Mapper(CUSTOMERS)
    first = mapper.rows([Record({"id": "a", "nickname": "Zed", "subscription": {"x": 1}}, 1)])
    second = mapper.rows([Record({"id": "b", "nickname": "Yan", "age": 3}, 1)])
    assert [(drift.column, drift.kind, drift.detail) for drift in first.drift] == [("nickname", "new_field", "text")]
    assert [(drift.column, drift.detail) for drift in second.drift] == [("age", "a whole number")]
    assert "Zed" not in repr(first.drift)


def test_a_provider_that_uses_data_as_field_names_does_not_report_for_ever() -> None:
    mapper = Mapper(CUSTOMERS)
    drift = [mapper.rows([Record({"id": "a", f"user_{number}": 1}, 1)]).drift for number in range(1500)]
    assert sum(map(len, drift)) == 1000


def test_a_type_that_changed_at_the_provider_is_reported_as_drift_once() -> None:
    result = mapped({"id": "a", "balance": "12 EUR"}, {"id": "b", "balance": "13 EUR"})
    assert [(drift.column, drift.kind) for drift in result.drift] == [("balance", "type_mismatch")]
    assert len(result.rejected) == 2


class TestWhatAViewShows:
    SEATS = Column("seats", BIGINT, path="custom.seats")

    def test_it_stays_in_extra_and_what_does_not_fit_is_drift_once(self) -> None:
        mapper = Mapper(CUSTOMERS, viewed=[self.SEATS])
        result = mapper.rows([Record({"id": name, "custom": {"seats": "a few"}}, 1) for name in "ab"])
        assert [named(mapper, row)["extra"] for row in result.rows] == ['{"custom":{"seats":"a few"}}'] * 2
        assert [(drift.column, drift.kind) for drift in result.drift] == [("seats", "type_mismatch")]
        assert result.rejected == []

    @pytest.mark.parametrize("value", [5, "5", 5.0, None])
    def test_what_fits_is_no_drift(self, value: object) -> None:
        result = Mapper(CUSTOMERS, viewed=[self.SEATS]).rows([Record({"id": "a", "custom": {"seats": value}}, 1)])
        assert result.drift == []

    def test_a_moment_that_only_python_reads_is_drift(self) -> None:
        mapper = Mapper(CUSTOMERS, viewed=[Column("born", TIMESTAMP)])
        result = mapper.rows([Record({"id": "a", "born": "20260131T100000Z"}, 1)])
        assert [drift.kind for drift in result.drift] == ["type_mismatch"]


class TestFilters:
    RECORDS = (
        {"id": "a", "balance": 5, "plan": {"tier": "gold"}, "created": 1_700_000_000},
        {"id": "b", "balance": None, "plan": {"tier": "free"}, "created": 1_600_000_000},
        {"id": "c", "balance": "5", "plan": "gold"},
    )

    @pytest.mark.parametrize(
        ("field", "operator", "value", "kept"),
        [
            ("plan.tier", "eq", "gold", "a"),
            ("plan.tier", "ne", "gold", "bc"),
            ("balance", "eq", None, "b"),
            ("balance", "gte", 5, "a"),
            ("balance", "lt", 6, "a"),
            ("plan.tier", "in", ["gold", "free"], "ab"),
            ("plan.tier", "not_in", ["free"], "ac"),
            ("balance", "exists", None, "ac"),
            ("balance", "exists", True, "ac"),
            ("balance", "exists", False, "b"),
            ("created", "gt", "2023-01-01", "a"),
            ("created", "lte", "2023-01-01T00:00:00+01:00", "b"),
        ],
    )
    def test_only_records_that_compare_true_are_kept(self, field: str, operator: str, value: Any, kept: str) -> None:
        result = mapped(*self.RECORDS, filters=[DataFilter(field=field, operator=operator, value=value)])
        assert "".join(found[0] for found in result.rows) == kept
        assert result.filtered == 3 - len(kept)

    def test_several_filters_must_all_hold(self) -> None:
        filters = [DataFilter(field="balance", operator="exists"), DataFilter(field="plan.tier", value="gold")]
        assert [found[0] for found in mapped(*self.RECORDS, filters=filters).rows] == ["a"]

    def test_a_filter_for_other_objects_does_nothing_here(self) -> None:
        result = mapped(*self.RECORDS, filters=[DataFilter(field="id", value="none", objects=["invoices"])])
        assert len(result.rows) == 3

    def test_a_broken_record_is_rejected_rather_than_filtered(self) -> None:
        assert len(mapped("text", filters=[DataFilter(field="id", value="a")]).rejected) == 1

    @pytest.mark.parametrize(("field", "operator", "value"), [("plan", "in", "gold"), ("created", "gt", "last week")])
    def test_a_filter_that_cannot_work_is_refused_at_once(self, field: str, operator: str, value: Any) -> None:
        with pytest.raises(InvalidConfiguration, match=f"the filter on {field}"):
            Mapper(CUSTOMERS, filters=[DataFilter(field=field, operator=operator, value=value)])


def test_generated_names_cannot_break_out_of_the_row_function() -> None:
    hostile = "x', None); raise SystemExit  # "
    table = Table("p", "o", hostile, (Column("a", TEXT, path="b'c"), Column("d", TEXT, path='e"\n')))
    result = Mapper(table).rows([Record({hostile: "k", "b'c": "1", 'e"\n': "2"}, 1)])
    assert result.rows == [("k", 1, "1", "2", None)]
    assert not re.search("SystemExit", repr(result.drift))


def test_a_misfit_among_many_is_found_and_the_others_are_as_they_are_alone() -> None:
    odd: dict[int, dict[str, Any]] = {
        7: {"balance": "1.5"},
        260: {"id": 3},
        300: {"email": 5, "score": "2"},
        511: {"created": "tomorrow"},
    }
    plain = {"email": "a@example.com", "balance": 5, "score": 0.5, "created": 1_709_200_800, "note": "x"}
    payloads = [{"id": f"cus_{number}", **plain, **odd.get(number, {})} for number in range(600)]
    together = mapped(*payloads)
    alone = [mapped(payload) for payload in payloads]
    assert together.rows == [row for each in alone for row in each.rows]
    assert together.rejected == [rejected for each in alone for rejected in each.rejected]
    assert [rejected.key for rejected in together.rejected] == ["cus_7", "cus_511"]
