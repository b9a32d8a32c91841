"""A column of a batch comes to what each of its values comes to alone, whatever the values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from churnguard_pipelines.engine.columnwise import shown
from churnguard_pipelines.engine.mapping import NEAR, Mapped, Mapper
from churnguard_pipelines.engine.values import CONVERTERS, TypeMismatch, viewed
from churnguard_pipelines.records import BIGINT, NUMERIC, TEXT, TIMESTAMP, Column, ColumnType, Record, Table
from tests.engine.customers import CUSTOMERS, mapped

HOSTILE: list[Any] = [
    None, "", "text", "0", "-1", "007", "1.50", "1e5", "1e999999", "NaN", "Infinity", "true", "FALSE", "\0", "a\ud800",
    True, False, 0, -0.0, 1, -1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**400, 10**4200, 0.5, 1e308, 1e16,
    float("nan"), float("inf"), Decimal("-0"), Decimal("NaN"), Decimal("sNaN"), Decimal("1E+5000"), Decimal("1.10"),
    "2026-01-31", "2026-02-30", "0000-01-01", "0001-01-01", "9999-12-31", "\u0662026-01-31",
    "2026-01-31T10:00:00Z", "2026-01-31 10:00:00.5Z", "2026-01-31T10:00:00+00:00",
    "2026-01-31T10:00:00+0000", "2026-01-31T10:00:00-00:00", "2026-01-31T10:00:00+05:30", "2026-01-31T24:00:00Z",
    "2026-12-31T23:59:60Z", "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00", "10000-01-01T00:00:00Z",
    "\u0662026-01-31T10:00:00Z", "2026-W05-6", "20260131T100000Z", 1769853600, -62135596801, 253402300800,
    1769853600000, 1769853600.5, datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 1, 31), date(2026, 1, 31),  # noqa: DTZ001
    {}, [], {"a": "\0"}, ["\ud800"], {"a": 2**70}, b"bytes",
]  # fmt: skip
moments = st.datetimes().map(lambda each: each.isoformat() + "Z")
values = st.sampled_from(HOSTILE) | st.integers() | st.floats() | st.text(max_size=5) | moments
alike = st.sampled_from(HOSTILE).flatmap(lambda each: st.lists(st.sampled_from([each, None]), min_size=1, max_size=4))
kinds = pytest.mark.parametrize("kind", list(ColumnType), ids=str)


def alone(kind: ColumnType, value: Any) -> Any:
    """What it comes to, or the reason why it is not stored."""
    try:
        return None if value is None else CONVERTERS[kind](value)
    except TypeMismatch as mismatch:
        return f"rejected: field: {mismatch}"


def together(kind: ColumnType, column: Sequence[Any]) -> list[Any]:
    table = Table("test", "things", "id", (Column("field", kind),))
    records = [Record({"id": str(place), "field": value}, 1) for place, value in enumerate(column)]
    found = Mapper(table).rows(records)
    ends = {row[0]: row[2] for row in found.rows} | {each.key: f"rejected: {each.reason}" for each in found.rejected}
    return [ends[str(place)] for place in range(len(column))]


def same(kind: ColumnType, one: Any, other: Any) -> bool:
    """To PostgreSQL: a moment is the same in each of its spellings, a number in each of Python's types."""
    if kind is TIMESTAMP and isinstance(one, str) and isinstance(other, str) and "rejected" not in one + other:
        return datetime.fromisoformat(one) == datetime.fromisoformat(other)
    if kind is NUMERIC:
        return str(one) == str(other)
    return type(one) is type(other) and repr(one) == repr(other)


@kinds
@given(column=st.lists(values, max_size=6) | alike)
@example(column=HOSTILE)
def test_a_column_comes_to_what_its_values_come_to(kind: ColumnType, column: list[Any]) -> None:
    for value, found in zip(column, together(kind, column), strict=True):
        assert same(kind, alone(kind, value), found), (value, found)


@kinds
@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_a_value_among_its_like_comes_to_what_it_comes_to_alone(kind: ColumnType, value: Any) -> None:
    assert all(same(kind, alone(kind, value), found) for found in together(kind, [value, value, None])[:2])


@kinds
@given(column=st.lists(values.filter(lambda each: not isinstance(each, (bytes, date, Decimal))), max_size=6))
@example(column=[1.0, 1.7976931348623155e308])
@example(column=[-1.797e308, None])
def test_a_view_that_shows_a_column_shows_each_of_its_values(kind: ColumnType, column: list[Any]) -> None:
    if shown(kind, column):
        for value in column:
            if value is not None:
                viewed(kind, value)


def test_a_value_that_does_not_fit_costs_its_own_record_only_wherever_it_is_in_the_batch() -> None:
    balances: list[Any] = [1] * (2 * NEAR + 1)
    for place in (0, NEAR - 1, NEAR, 2 * NEAR):
        balances[place] = "much"
    found = together(BIGINT, balances)
    assert found == [1 if each == 1 else "rejected: field: expected a whole number, got text" for each in balances]


def test_what_is_no_object_is_rejected_among_those_that_are() -> None:
    found = mapped({"id": "a"}, [], None, "text", 7, {"id": "b"}, {})
    assert [row[0] for row in found.rows] == ["a", "b"]
    assert [each.reason for each in found.rejected] == [
        "expected an object, got a list",
        "expected an object, got nothing",
        "expected an object, got text",
        "expected an object, got a whole number",
        "id: missing",
    ]


def test_nothing_comes_of_nothing() -> None:
    assert mapped() == Mapped()


@pytest.mark.parametrize("on_the_way", [None, 7, "text", [], [{"id": "p"}], {}, {"plan": "p"}, {"plan": None}], ids=str)
def test_a_path_through_what_is_no_object_leads_to_nothing_and_all_of_it_is_kept(on_the_way: Any) -> None:
    beside = {"id": "b", "subscription": {"plan": {"id": "p"}}}
    first, second = mapped({"id": "a", "subscription": on_the_way}, beside).rows
    plan = [column.name for column in CUSTOMERS.columns].index("plan") + 2
    assert (first[plan], second[plan]) == (None, "p")
    assert second[-1] is None
    assert ("subscription" in (first[-1] or "")) == (on_the_way is not None or first[-1] is not None)


def test_a_key_on_a_path_is_found_and_missing_on_the_way() -> None:
    table = Table("test", "things", "meta.id", (Column("name", TEXT), Column("size", NUMERIC, path="meta.size")))
    payloads: list[Any] = [{"meta": {"id": 7, "size": 1.5}}, {"meta": {"id": True}}, {"meta": None}, {"meta": [1]}, {}]
    found = Mapper(table).rows([Record(each, 1) for each in payloads])
    assert found.rows == [("7", 1, None, 1.5, None)]
    assert [each.reason for each in found.rejected] == [
        "meta.id: expected text or a whole number, got true or false",
        *["meta.id: missing"] * 3,
    ]


@pytest.mark.parametrize("depth", [10, 300, 500, 900, 1020])
@pytest.mark.parametrize("field", ["metadata", "undeclared"])
def test_a_zero_in_the_depth_costs_its_own_record_only(field: str, depth: int) -> None:
    deep: Any = "\0"
    for _ in range(depth):
        deep = [deep]
    found = mapped({"id": "a"}, {"id": "b", field: deep}, {"id": "c"})
    assert [row[0] for row in found.rows] == ["a", "c"]
    assert [each.key for each in found.rejected] == ["b"]
