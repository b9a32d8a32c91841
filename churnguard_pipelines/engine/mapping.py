"""Maps provider records to rows of one raw table, a column of a batch at a time, as it is the hot path.

What fits its column goes there, everything undeclared into ``extra``, and a record with a value that cannot be stored
is rejected whole, with the reason. Nothing is dropped: columns and ``extra`` together give the record back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import Any, TypeVar

from churnguard_pipelines.engine import columnwise, values
from churnguard_pipelines.engine.filters import Predicate, compile_filters, look
from churnguard_pipelines.engine.values import CONVERTERS, TypeMismatch
from churnguard_pipelines.model import DataFilter
from churnguard_pipelines.records import Column, ColumnType, Drift, Record, Rejected, Table

Item = TypeVar("Item")

Row = tuple[Any, ...]
"""``(key, source_version, *column values in declared order, extra)``; timestamps, dates and JSON as text."""

NEAR = 250
"""Records mapped together: as many as stay in the processor's own memory while column after column is looked at."""
MOST_NEW_FIELDS = 1000
"""Undeclared field names reported per table; a provider that uses data as names would report for ever."""


@dataclass
class Mapped:
    """What became of a batch. ``filtered``: records left out by the integration's filters. ``drift``: differences from
    the declaration that this mapper had not reported before; names and types, never values."""

    rows: list[Row] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    filtered: int = 0
    drift: list[Drift] = field(default_factory=list)

    @classmethod
    def together(cls, parts: Sequence[Mapped]) -> Mapped:
        """Of several batches, in their order."""
        if len(parts) == 1:
            return parts[0]
        whole = cls()
        for part in parts:
            whole.rows += part.rows
            whole.rejected += part.rejected
            whole.filtered += part.filtered
            whole.drift += part.drift
        return whole


class Mapper:
    """Maps the records of one object for one integration. One thread at a time.

    ``viewed``: what the integration's view shows of the record besides the declared columns. A value there that does
    not fit its type is drift: the record is stored as it is, and the view shows null. Raises ``InvalidConfiguration``
    for filters that cannot work.
    """

    def __init__(self, table: Table, *, filters: Sequence[DataFilter] = (), viewed: Sequence[Column] = ()) -> None:
        self.table = table
        self._view = View(viewed)
        self._keep = compile_filters(self.table, filters)
        self._columns = [(column.type, _path(column.source_path)) for column in table.columns]
        self._taken = _Taken.of([_path(table.key), *(path for _, path in self._columns)])
        self._known_fields = {_path(column.source_path)[0] for column in (*table.columns, *viewed)}
        self._new_fields = 0

    def rows(self, records: Iterable[Record]) -> Mapped:
        mapped = Mapped()
        if self._keep is not None:
            records = self._filter(records, self._keep, mapped)
        ahead = iter(records)
        while near := list(islice(ahead, NEAR)):
            self._map(near, mapped)
        return mapped

    def _map(self, records: Sequence[Record], mapped: Mapped) -> None:
        fields = _Fields([_as_dict(record.payload) for record in records])
        keys, unfit = self._keys(fields)
        columns: list[Sequence[Any]] = [keys, [record.version for record in records]]
        for kind, path in self._columns:
            converted, misfits = columnwise.convert(kind, fields.at(path))
            columns.append(converted)
            unfit.update(misfits)
        rests = fields.rests(self._taken)
        columns.append(_extras(rests, unfit))
        rows = zip(*columns, strict=True)
        if unfit:
            mapped.rejected += [self._explain(records[place], mapped.drift) for place in sorted(unfit)]
            rests = _without(rests, unfit)
        mapped.rows += _without(rows, unfit) if unfit else rows
        if self._new_fields < MOST_NEW_FIELDS and not self._known_fields.issuperset(set().union(*rests)):
            for rest in rests:
                self._learn(rest, mapped.drift)
        self._view.look_at(fields, unfit, mapped.drift)

    def _keys(self, fields: _Fields) -> tuple[Sequence[str | None], set[int]]:
        found = fields.at(_path(self.table.key))
        # As long as all are ordinary, none has to be looked at.
        ordinary = None not in found and "" not in found and columnwise.fits(ColumnType.TEXT, found)
        if ordinary and max(map(len, found)) <= values.LONGEST_KEY:
            return found, set()
        keys: list[str | None] = []
        for value in found:
            try:
                keys.append(values.key(value))
            except TypeMismatch:
                keys.append(None)
        return keys, {place for place, key in enumerate(keys) if key is None}

    def _filter(self, records: Iterable[Record], keep: Predicate, mapped: Mapped) -> Iterable[Record]:
        for record in records:
            if not isinstance(record.payload, dict) or keep(record.payload):
                yield record
            else:
                mapped.filtered += 1

    def _learn(self, rest: Mapping[str, Any], drift: list[Drift]) -> None:
        for name, value in rest.items():
            if name not in self._known_fields and self._new_fields < MOST_NEW_FIELDS:
                self._known_fields.add(name)
                self._new_fields += 1
                drift.append(Drift(name, "new_field", values.type_name(value)))

    def _explain(self, record: Record, drift: list[Drift]) -> Rejected:
        """The first reason, column by column: until here it is only known that there is one."""
        payload: Any = record.payload  # declared a dict; sources that break their word are why this exists
        if not isinstance(payload, dict):
            return Rejected(None, f"expected an object, got {values.type_name(payload)}", payload)
        try:
            key = values.key(look(payload, _path(self.table.key)))
        except TypeMismatch as mismatch:
            return Rejected(None, f"{self.table.key}: {mismatch}", payload)
        for column in self.table.columns:
            value = look(payload, _path(column.source_path))
            try:
                if value is not None:
                    CONVERTERS[column.type](value)
            except TypeMismatch as mismatch:
                self._view.report(column, mismatch, drift)
                return Rejected(key, f"{column.name}: {mismatch}", payload)
        try:
            values.json_text(payload)
        except TypeMismatch as mismatch:
            return Rejected(key, f"an undeclared field: {mismatch}", payload)
        raise AssertionError(f"a record of {self.table.name} was rejected without a reason")


class View:
    """What an integration's view shows of its records beside the declared columns: what it cannot show of records that
    are stored is told once a column. One thread at a time."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._told: set[str] = set()

    def misfits(self, documents: Sequence[Mapping[str, Any]]) -> list[Drift]:
        drift: list[Drift] = []
        if self.columns:
            self.look_at(_Fields(documents), frozenset(), drift)
        return drift

    def look_at(self, fields: _Fields, unfit: Set[int], drift: list[Drift]) -> None:
        for column in self.columns:
            if column.type in (ColumnType.TEXT, ColumnType.JSON) or column.name in self._told:
                continue  # all that JSON knows fits those
            found = fields.at(_path(column.source_path))
            if columnwise.shown(column.type, found):
                continue
            for place, value in enumerate(found):
                try:
                    if value is not None and place not in unfit:
                        values.viewed(column.type, value)
                except TypeMismatch as mismatch:
                    self.report(column, mismatch, drift)
                    break

    def report(self, column: Column, mismatch: TypeMismatch, drift: list[Drift]) -> None:
        if column.name not in self._told:
            self._told.add(column.name)
            drift.append(Drift(column.name, "type_mismatch", f"{column.type}: {mismatch}"))


class _Fields:
    """Values of many records by path, None where there is none. What is on the way is looked up once."""

    def __init__(self, payloads: Sequence[Mapping[str, Any]]) -> None:
        self._nodes = payloads
        self._within: dict[str, _Fields] = {}

    @cached_property
    def _names(self) -> Set[str]:
        return set().union(*self._nodes)

    @cached_property
    def _alike(self) -> bool:
        """All have the same fields, as rows of a file do."""
        return set(map(len, self._nodes)) == {len(self._names)}

    def at(self, path: tuple[str, ...]) -> list[Any]:
        name, *rest = path
        if name not in self._names:
            return [None] * len(self._nodes)
        if rest:
            if name not in self._within:
                inner = [value if isinstance(value, dict) else _NOTHING for value in self.at((name,))]
                self._within[name] = _Fields(inner)
            return self._within[name].at(tuple(rest))
        if self._alike:
            return list(map(itemgetter(name), self._nodes))
        return [node.get(name) for node in self._nodes]

    def rests(self, taken: _Taken) -> list[dict[str, Any]]:
        """What is left of each, as an object of its own: the records are not ours."""
        if not self._alike or taken.within.keys() & self._names:
            return [taken.rest_of(node) for node in self._nodes]
        left = [name for name in self._nodes[0] if name not in taken.names]
        if not left:
            return [{}] * len(self._nodes)
        columns = [self.at((name,)) for name in left]
        return [dict(zip(left, found, strict=True)) for found in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class _Taken:
    """What columns take of an object. ``names``: fields that go into one, or of which something does; ``within``: what
    is taken of the latter."""

    names: frozenset[str]
    within: Mapping[str, _Taken]

    @classmethod
    def of(cls, paths: Iterable[tuple[str, ...]]) -> _Taken:
        """A whole that a column takes is taken, whatever others take out of it."""
        paths = list(paths)
        whole = {path[0] for path in paths if len(path) == 1}
        deeper = {path[0] for path in paths} - whole
        within = {name: cls.of(path[1:] for path in paths if path[0] == name) for name in sorted(deeper)}
        return cls(frozenset(whole | deeper), within)

    def rest_of(self, node: Mapping[str, Any]) -> dict[str, Any]:
        names = self.names
        rest = {name: value for name, value in node.items() if name not in names}
        for name, taken in self.within.items():
            if name not in node:
                continue
            value = node[name]
            if not isinstance(value, dict) or not value:
                rest[name] = value
            elif left := taken.rest_of(value):
                rest[name] = left
        return rest


_NOTHING: Mapping[str, Any] = {}


def _extras(rests: Sequence[Mapping[str, Any]], unfit: set[int]) -> list[str | None]:
    """As JSON. Those that cannot be written are ``unfit``."""
    if not any(rests):
        return [None] * len(rests)
    extras: list[str | None] = []
    for place, rest in enumerate(rests):
        try:
            extras.append(values.json_text(rest) if rest else None)
        except TypeMismatch:
            extras.append(None)
            unfit.add(place)
    return extras


def _without(items: Iterable[Item], places: Set[int]) -> list[Item]:
    return [item for place, item in enumerate(items) if place not in places]


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(dotted.split("."))


def _as_dict(payload: Any) -> Mapping[str, Any]:
    """What is no object has no key, and is rejected for it."""
    return payload if isinstance(payload, dict) else _NOTHING
