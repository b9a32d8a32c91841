"""POST …/{type}/search. https://developers.hubspot.com/docs/api-reference/search/guide

Searches what the index has seen, not what is so; to the millisecond; no further than 10,000 results of one query; and
what it does not take it refuses without saying why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from churnguard_pipelines.sandbox.hubspot import errors
from churnguard_pipelines.sandbox.hubspot.index import Entry
from churnguard_pipelines.sandbox.hubspot.instants import iso_millis, millis
from churnguard_pipelines.sandbox.hubspot.portal import Portal, Table
from churnguard_pipelines.sandbox.hubspot.records import Property
from churnguard_pipelines.sandbox.hubspot.types import ID

MOST, MOST_GROUPS, MOST_IN_GROUP, MOST_FILTERS, LONGEST = 200, 5, 6, 18, 3000
_LOW, _HIGH = {"GTE", "GT", "BETWEEN", "EQ"}, {"LTE", "LT", "BETWEEN", "EQ"}

Test = Callable[[Entry], bool]
Found = list[Entry]


class Searches:
    """Searches one portal. The latest result of a query is kept, so that its pages do not each search anew."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._kept: dict[bytes, Found] = {}

    def search(self, table: Table, query: dict[str, Any]) -> tuple[int, Found, str | None]:
        """(total, the page's entries, the next page's `after`). Refusal where HubSpot would not answer."""
        limit, after = _number(query.get("limit", 10)), _number(query.get("after") or 0)
        if not 1 <= limit <= MOST or after < 0:
            raise errors.search_problem()
        if after + limit > self._portal.limits.search_window:
            raise errors.search_problem()
        now = self._portal.clock()
        table.index.catch_up(now)
        asked = {name: query.get(name) for name in ("filterGroups", "sorts", "query")}
        key = orjson.dumps([table.type.name, table.index.version, now if _moves(table, asked) else 0, asked])
        found = self._kept.get(key)
        if found is None:
            found = self._find(table, asked)
            self._kept = {**dict(list(self._kept.items())[-15:]), key: found}
        end = after + limit
        return len(found), found[after:end], str(end) if end < len(found) else None

    def _find(self, table: Table, asked: dict[str, Any]) -> Found:
        groups = [group.get("filters") or [] for group in asked["filterGroups"] or []]
        if len(groups) > MOST_GROUPS or sum(map(len, groups)) > MOST_FILTERS:
            raise errors.search_problem()
        if any(len(group) > MOST_IN_GROUP for group in groups):
            raise errors.search_problem()
        tests = [[self._test(table, filter) for filter in group] for group in groups]
        low, high = _range(table, groups)
        entries: Iterable[Entry] = table.index.between(low, high)
        found = [each for each in entries if not tests or any(all(test(each) for test in group) for group in tests)]
        if text := str(asked["query"] or "").lower():
            found = [each for each in found if any(text in value.lower() for value in each.values.values())]
        return self._sorted(table, found, asked["sorts"] or [])

    def _sorted(self, table: Table, found: Found, sorts: list[Any]) -> Found:
        """By one property at most; by id where none is given, or where two are equal."""
        if sorts in ([table.type.modified], [{"propertyName": table.type.modified, "direction": "ASCENDING"}]):
            return found  # as the index has them
        found.sort(key=lambda entry: entry.record.id)
        if not sorts:
            return found
        if len(sorts) > 1:
            raise errors.search_problem()
        given = sorts[0] if isinstance(sorts[0], dict) else {"propertyName": str(sorts[0])}
        name, falling = given.get("propertyName", ""), given.get("direction", "ASCENDING") == "DESCENDING"
        definition = _defined(table, name)
        read = self._reader(table, definition)
        found.sort(key=lambda entry: _sortable(definition, read(entry)), reverse=falling)
        return found

    def _reader(self, table: Table, definition: Property) -> Callable[[Entry], str | None]:
        name, compute = definition.name, definition.compute
        if compute is not None:
            return lambda entry: compute(entry.record)
        if name == ID:
            return lambda entry: str(entry.record.id)
        if name == table.type.modified:
            return lambda entry: str(entry.updated)
        if name == table.type.created:
            return lambda entry: str(entry.record.created)
        return lambda entry: entry.values.get(name)

    def _test(self, table: Table, filter: dict[str, Any]) -> Test:
        definition = _defined(table, filter.get("propertyName", ""))
        read = self._reader(table, definition)
        operator = filter.get("operator")
        if operator == "HAS_PROPERTY":
            return lambda entry: read(entry) is not None
        if operator == "NOT_HAS_PROPERTY":
            return lambda entry: read(entry) is None
        if operator in ("IN", "NOT_IN"):
            values = filter.get("values")
            if not isinstance(values, list) or not values:
                raise errors.search_problem()
            wanted = {_comparable(definition, str(value)) for value in values}
            inside = operator == "IN"
            return lambda entry: (_comparable(definition, read(entry)) in wanted) is inside
        value = filter.get("value")
        if value is None:
            raise errors.search_problem()
        if operator in ("CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
            # An asterisk at an end is any rest of the word
            words = re.compile(r"[^\W_]+")
            sought, contains = str(value).lower().strip("*"), operator == "CONTAINS_TOKEN"
            loose = "*" in str(value)

            def has(entry: Entry) -> bool:
                text = (read(entry) or "").lower()
                return sought in text if loose else sought == text or sought in words.findall(text)

            return lambda entry: has(entry) is contains
        return _comparison(definition, read, str(operator), str(value), filter.get("highValue"))


def _comparison(
    definition: Property, read: Callable[[Entry], str | None], operator: str, value: str, high: object
) -> Test:
    bound = _comparable(definition, value)
    if bound is None:
        raise errors.search_problem()
    if _is_time(definition) and bound == 0 and operator in ("GT", "GTE", "BETWEEN"):
        raise errors.internal_error()  # as the real one does; a second later is well
    if operator == "BETWEEN":
        top = _comparable(definition, str(high)) if high is not None else None
        if top is None:
            raise errors.search_problem()
        return lambda entry: (at := _comparable(definition, read(entry))) is not None and bound <= at <= top
    compare: dict[str, Callable[[Any, Any], bool]] = {
        "EQ": lambda one, two: one == two,
        "NEQ": lambda one, two: one != two,
        "LT": lambda one, two: one is not None and one < two,
        "LTE": lambda one, two: one is not None and one <= two,
        "GT": lambda one, two: one is not None and one > two,
        "GTE": lambda one, two: one is not None and one >= two,
    }
    if operator not in compare:
        raise errors.search_problem()
    fits = compare[operator]
    return lambda entry: fits(_comparable(definition, read(entry)), bound)


def _range(table: Table, groups: list[list[dict[str, Any]]]) -> tuple[int | None, int | None]:
    """What the only group's filters say of the date; the tests themselves decide on its ends."""
    lows, highs = [], []
    for filter in groups[0] if len(groups) == 1 else []:
        if filter.get("propertyName") == table.type.modified:
            at, operator = millis(str(filter.get("value"))), filter.get("operator")
            top = millis(str(filter.get("highValue"))) if operator == "BETWEEN" else at
            if at is not None and operator in _LOW:
                lows.append(at)
            if top is not None and operator in _HIGH:
                highs.append(top)
    return max(lows, default=None), min(highs, default=None)


def _moves(table: Table, asked: dict[str, Any]) -> bool:
    """Whether what is asked for may change without a record's date."""
    text = orjson.dumps(asked).decode()
    return any(each.compute is not None and each.name in text for each in table.properties.values())


def _defined(table: Table, name: str) -> Property:
    definition = table.properties.get(name)
    if definition is None or definition.archived_at is not None:
        raise errors.search_problem()
    return definition


def _is_time(definition: Property) -> bool:
    return definition.type in ("datetime", "date")


def _comparable(definition: Property, value: str | None) -> Any:
    """As values of the property's type compare; None where it is no such value."""
    if value is None:
        return None
    if _is_time(definition):
        return millis(value)
    if definition.type == "number" or definition.name == ID:
        try:
            return float(value)
        except ValueError:
            return None
    return value.lower()


def _sortable(definition: Property, value: str | None) -> tuple[bool, Any]:
    """Records without a value come last."""
    made = _comparable(definition, value)
    return made is None, 0 if made is None else made


def _number(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise errors.search_problem() from None


def shown(portal: Portal, entry: Entry, names: Iterable[str]) -> dict[str, str | None]:
    """The properties of a result: those of the index, which is where search reads."""
    kind = entry.record.type
    known: dict[str, str | None] = {
        ID: str(entry.record.id),
        kind.created: iso_millis(entry.record.created),
        kind.modified: iso_millis(entry.updated),
    }
    table = portal.tables[kind.name]
    made = {}
    for name in names:
        definition = table.properties.get(name)
        if definition is None or definition.archived_at is not None:
            continue
        made[name] = definition.compute(entry.record) if definition.compute else known.get(name, entry.values.get(name))
    return made
