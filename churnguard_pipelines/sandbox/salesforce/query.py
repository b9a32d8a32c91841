"""Answers a query from the CRM's records: who may see what, which records, in which order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

from churnguard_pipelines.sandbox.business.crm import Crm
from churnguard_pipelines.sandbox.business.crm_bulk import MadeUp
from churnguard_pipelines.sandbox.business.crm_history import date_of
from churnguard_pipelines.sandbox.salesforce import errors, ids
from churnguard_pipelines.sandbox.salesforce.fields import SField, Source, as_json
from churnguard_pipelines.sandbox.salesforce.objects import BY_NAME, SObject
from churnguard_pipelines.sandbox.salesforce.org import Org, User
from churnguard_pipelines.sandbox.salesforce.soql import Both, Compare, Condition, Literally, Query, parse

Test = Callable[[Source], bool]
DAY = 86_400_000
DEEPEST_OFFSET = 2000


@dataclass
class View:
    """The objects and fields that a user of an organization sees."""

    crm: Crm
    org: Org
    user: User

    def object(self, name: str, query: str = "") -> SObject:
        found = BY_NAME.get(name.lower())
        if found is None or found.name in self.org.removed or found.name in self.user.without:
            raise errors.invalid_type(name, query) if query else errors.not_found()
        return found

    def objects(self) -> list[SObject]:
        hidden = self.org.removed | self.user.without
        return [each for each in BY_NAME.values() if each.name not in hidden]

    def fields(self, of: SObject) -> dict[str, SField]:
        found = of.fields(self.crm)
        return {name: field for name, field in found.items() if (of.name, name) not in self.user.hidden}


class Prepared:
    """A query that makes sense for this user; Refusal where it does not."""

    def __init__(self, view: View, text: str, deleted: bool) -> None:
        self.view, self.deleted = view, deleted
        self.query: Query = parse(text)
        self.object = view.object(self.query.entity, text)
        if self.object.name in view.user.denied:
            raise errors.insufficient_access()
        self._fields = view.fields(self.object)
        self._by_lower = {name.lower(): field for name, field in self._fields.items()}
        self.columns = [column for name in self.query.fields for column in self._columns(name)]
        self.aggregates = [(how, self._field(name) if name else None) for how, name in self.query.aggregates]
        for name, _, _ in self.query.order:
            if not self._field(name).can_filter:
                raise errors.not_sortable(name)
        if self.query.offset > DEEPEST_OFFSET:
            raise errors.Refusal(400, "NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000")
        if self.object.restricted and not _names(self.query.where) & {"contentdocumentid", "linkedentityid"}:
            raise errors.malformed(self.object.restricted)
        self._test = self._compile(self.query.where) if self.query.where else None

    def _field(self, name: str) -> SField:
        found = self._by_lower.get(name.lower())
        if found is None:
            raise errors.invalid_field(name, self.object.name, self.query.text)
        return found

    def _columns(self, name: str) -> list[SField]:
        if not name.startswith("FIELDS("):
            return [self._field(name)]
        if self.query.limit is None or self.query.limit > 200:
            raise errors.malformed("The SOQL FIELDS function must have a LIMIT of at most 200")
        which = name[7:-1]
        return [each for each in self._fields.values() if which == "ALL" or each.custom is (which == "CUSTOM")]

    def records(self) -> Sequence[Source]:
        """All that match, as the query orders and limits them."""
        crm, query = self.view.crm, self.query
        end = None if query.limit is None else query.offset + query.limit
        if (table := self._made_up) is not None and self._test is None and self._as_they_lie:
            listed = table.listed()
            return listed if (query.offset, end) == (0, None) else listed[query.offset : end]
        found = list(self._visible())
        if self._test is not None:
            found = [record for record in found if self._test(record)]
        if query.order:
            for name, descending, last in reversed(query.order):
                field = self._field(name)
                valued = [(_folded(field, field.read(crm, record)), record) for record in found]
                empty = [record for value, record in valued if value is None]
                full = sorted((pair for pair in valued if pair[0] is not None), key=itemgetter(0), reverse=descending)
                found = [r for _, r in full] + empty if last else empty + [r for _, r in full]
        elif len(self.object.kinds) > 1:
            found.sort(key=self.object.id_of)
        return found[query.offset : end]

    def _visible(self) -> Iterator[Source]:
        """What a read shows: new records come into view some time after the instant that they are stamped with."""
        if (table := self._made_up) is not None:
            return table.since(_lowest(self.query.where))
        found = self.object.records(self.view.crm, self.deleted)
        if not self.view.org.limits.lag:
            return found
        shown = self.view.crm.now - self.view.org.limits.lag * 1000
        return (record for record in found if record.created <= shown)

    def stream(self) -> Iterator[Source]:
        """The same one by one, where they lie in that order anyway: for more of them than memory should hold."""
        query, found = self.query, self._visible()
        if query.offset or not self._as_they_lie:
            return iter(self.records())
        return islice(filter(self._test, found) if self._test else found, query.limit)

    @property
    def _made_up(self) -> MadeUp | None:
        table = self.view.crm.tables[self.object.kinds[0]] if len(self.object.kinds) == 1 else None
        return table if isinstance(table, MadeUp) else None

    @property
    def _as_they_lie(self) -> bool:
        return self.query.order in ([], [("Id", False, False)]) and len(self.object.kinds) == 1

    def count(self) -> int:
        if (table := self._made_up) is not None and self._test is None:
            return len(table)
        return sum(1 for _ in self.stream())

    def aggregate(self, records: Sequence[Source]) -> dict[str, Any]:
        answer: dict[str, Any] = {"attributes": {"type": "AggregateResult"}}
        for number, (how, field) in enumerate(self.aggregates):
            values = [None if field is None else field.read(self.view.crm, record) for record in records]
            known = [value for value in values if value is not None]
            if how == "count":
                answer[f"expr{number}"] = len(known)
            else:
                assert field is not None
                chosen = (min if how == "min" else max)(known) if known else None
                answer[f"expr{number}"] = as_json(field, chosen)
        return answer

    def row(self, record: Source, version: str) -> dict[str, Any]:
        """The record as REST shows it."""
        url = f"/services/data/{version}/sobjects/{self.object.name}/{self.object.id_of(record)}"
        row: dict[str, Any] = {"attributes": {"type": self.object.name, "url": url}}
        crm = self.view.crm
        for field in self.columns:
            if field.type == "base64":
                row[field.name] = f"{url}/{field.name}"
            else:
                row[field.name] = as_json(field, field.read(crm, record))
        return row

    # Conditions

    def _compile(self, condition: Condition) -> Test:
        if isinstance(condition, Both):
            tests = [self._compile(part) for part in condition.parts]
            if condition.how == "not":
                return lambda record: not tests[0](record)
            if condition.how == "and":
                return lambda record: all(test(record) for test in tests)
            return lambda record: any(test(record) for test in tests)
        field = self._field(condition.field)
        if not field.can_filter:
            raise errors.not_filterable(field.name)
        crm, read = self.view.crm, field.read
        if condition.operator == "like":
            pattern = _like(condition.values[0])
            return lambda record: bool(pattern.fullmatch(str(read(crm, record) or "")))
        ours = [self._value(field, literal) for literal in condition.values]
        if condition.operator in ("in", "not in"):
            wanted, there = set(ours), condition.operator == "in"
            return lambda record: (_folded(field, read(crm, record)) in wanted) is there
        value = ours[0]
        if condition.operator in ("=", "!="):
            same = condition.operator == "="
            return lambda record: (_folded(field, read(crm, record)) == value) is same
        if value is None:
            raise errors.malformed(f"operator {condition.operator} does not take null")
        compare = _COMPARE[condition.operator]

        def test(record: Source) -> bool:
            found = _folded(field, read(crm, record))
            return found is not None and compare(found, value)

        return test

    def _value(self, field: SField, literal: Literally) -> Any:
        value = literal.value
        if literal.kind == "null":
            return None
        if literal.kind == "days":
            midnight = self.view.crm.now // DAY * DAY - int(value or 0) * DAY
            return midnight if field.type == "datetime" else date_of(midnight)
        wanted = {"datetime": "moment", "date": "date", "boolean": "boolean", "int": "number", "double": "number",
                  "currency": "number", "percent": "number"}.get(field.type, "string")  # fmt: skip
        if literal.kind != wanted:
            kind = {"moment": "dateTime", "number": field.type}.get(wanted, wanted)
            raise errors.mistyped(field.name, kind, wanted == "string", self.query.text)
        if field.type in ("id", "reference"):
            if len(str(value)) not in (15, 18):
                raise errors.Refusal(400, "INVALID_QUERY_FILTER_OPERATOR", f"invalid ID field: {value}")
            return ids.long(str(value))
        return _folded(field, value)


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _folded(field: SField, value: Any) -> Any:
    """Strings compare without regard to case; ids do not."""
    return value.casefold() if isinstance(value, str) and field.type not in ("id", "reference") else value


def _names(condition: Condition | None) -> set[str]:
    if condition is None:
        return set()
    if isinstance(condition, Compare):
        return {condition.field.lower()}
    return set().union(*(_names(part) for part in condition.parts))


def _lowest(condition: Condition | None) -> int:
    """A number below which no record's id lies that meets the condition, as far as `Id > …` says."""
    if isinstance(condition, Compare) and condition.field.lower() == "id" and condition.operator in (">", ">="):
        return ids.number(str(condition.values[0].value))
    if isinstance(condition, Both) and condition.how == "and":
        return max(_lowest(part) for part in condition.parts)
    return 0


def _like(literal: Literally) -> re.Pattern[str]:
    if literal.kind != "string":
        raise errors.malformed("LIKE takes a string")
    parts = re.split(r"([%_])", str(literal.value))
    pattern = "".join({"%": ".*", "_": "."}.get(part, re.escape(part)) for part in parts)
    return re.compile(re.sub(r"(?:\.\*)+", ".*", pattern), re.IGNORECASE | re.DOTALL)
