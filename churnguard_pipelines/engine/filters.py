"""An integration's filters, compiled to one predicate over a record."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from churnguard_pipelines.engine import values
from churnguard_pipelines.engine.values import TypeMismatch
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import DataFilter
from churnguard_pipelines.records import ColumnType, Table

Predicate = Callable[[Mapping[str, Any]], bool]

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


def look(record: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value at a path, None where there is none."""
    node: Any = record
    for name in path:
        if not isinstance(node, dict):
            return None
        node = node.get(name)
    return node


def compile_filters(table: Table, filters: Sequence[DataFilter]) -> Predicate | None:
    """True for records that pass every filter meant for this table; None where there is none.

    A missing or null field equals null, differs from everything else and is on no side of an order. Fields declared
    as timestamps compare as moments, so an ISO date filters epoch seconds. Raises ``InvalidConfiguration``.
    """
    predicates = [_predicate(table, each) for each in filters if each.objects is None or table.object in each.objects]
    if not predicates:
        return None
    return lambda record: all(predicate(record) for predicate in predicates)


def _predicate(table: Table, each: DataFilter) -> Predicate:
    path = tuple(each.field.split("."))
    if each.operator == "exists":
        wanted = each.value is not False
        return lambda record: (look(record, path) is not None) == wanted
    if each.operator in ("in", "not_in") and not isinstance(each.value, (list, tuple, set)):
        raise InvalidConfiguration(
            f"the filter on {each.field} compares with `{each.operator}`, which needs a list.",
            remedy="Write the value as [first, second].",
        )
    comparable = _moment if _is_moment(table, each.field) else _same
    compare = _comparison(each, comparable)
    return lambda record: compare(comparable(look(record, path)))


def _comparison(each: DataFilter, comparable: Callable[[Any], Any]) -> Callable[[Any], bool]:
    if each.operator in ("in", "not_in"):
        several = [comparable(value) for value in each.value]
        return lambda found: (found in several) == (each.operator == "in")
    wanted = comparable(each.value)
    if each.value is not None and wanted is None:
        raise InvalidConfiguration(
            f"the filter on {each.field} needs a date and time.", remedy="Write it in ISO 8601, e.g. 2024-01-31."
        )
    if each.operator in ("eq", "ne"):
        return lambda found: (found == wanted) == (each.operator == "eq")
    order = _ORDER[each.operator]

    def ordered(found: Any) -> bool:
        try:
            return found is not None and order(found, wanted)
        except TypeError:  # text against a number: on no side
            return False

    return ordered


def _is_moment(table: Table, field: str) -> bool:
    moments = (ColumnType.TIMESTAMP, ColumnType.DATE)
    return any(column.source_path == field and column.type in moments for column in table.columns)


def _moment(value: Any) -> Any:
    try:
        return None if value is None else values.moment(value)
    except TypeMismatch:
        return None


def _same(value: Any) -> Any:
    return value
