"""Maps provider records to rows of one raw table. The row function is compiled once per table, as it is the hot path.

What fits its column goes there, everything undeclared into ``extra``, and a record with a value that cannot be stored
is rejected whole, with the reason. Nothing is dropped: columns and ``extra`` together give the record back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from churnguard_pipelines.engine import values
from churnguard_pipelines.engine.filters import Predicate, compile_filters, look
from churnguard_pipelines.engine.values import CONVERTERS, TypeMismatch
from churnguard_pipelines.model import DataFilter
from churnguard_pipelines.records import Column, ColumnType, Drift, Record, Rejected, Table

Row = tuple[Any, ...]
"""``(key, source_version, *column values in declared order, extra)``; timestamps, dates and JSON as text."""

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


class Mapper:
    """Maps the records of one object for one integration. One thread at a time.

    ``viewed``: what the integration's view shows of the record besides the declared columns. A value there that does
    not fit its type is drift: the record is stored as it is, and the view shows null. Raises ``InvalidConfiguration``
    for filters that cannot work.
    """

    def __init__(self, table: Table, *, filters: Sequence[DataFilter] = (), viewed: Sequence[Column] = ()) -> None:
        self.table = table
        self._viewed = tuple(viewed)
        self._keep = compile_filters(self.table, filters)
        self._map = _compile(self.table, self._viewed)
        self._seen_fields: set[str] = set()
        self._seen_misfits: set[str] = set()

    def rows(self, records: Iterable[Record]) -> Mapped:
        mapped = Mapped()
        if self._keep is not None:
            records = self._filter(records, self._keep, mapped)

        def reject(record: Record) -> None:
            mapped.rejected.append(self._explain(record, mapped.drift))

        def learn(rest: Mapping[str, Any]) -> None:
            self._learn(rest, mapped.drift)

        def misfit(number: int, value: Any) -> None:
            self._note_misfit(self._viewed[number], value, mapped.drift)

        self._map(records, mapped.rows.append, reject, self._seen_fields, learn, misfit)
        return mapped

    def _filter(self, records: Iterable[Record], keep: Predicate, mapped: Mapped) -> Iterable[Record]:
        for record in records:
            if not isinstance(record.payload, dict) or keep(record.payload):
                yield record
            else:
                mapped.filtered += 1

    def _learn(self, rest: Mapping[str, Any], drift: list[Drift]) -> None:
        declared = {column.source_path.partition(".")[0] for column in (*self.table.columns, *self._viewed)}
        for name, value in rest.items():
            if name in self._seen_fields or name in declared or len(self._seen_fields) >= MOST_NEW_FIELDS:
                continue
            drift.append(Drift(name, "new_field", values.type_name(value)))
        if len(self._seen_fields) < MOST_NEW_FIELDS:
            self._seen_fields.update(rest)

    def _explain(self, record: Record, drift: list[Drift]) -> Rejected:
        """The first reason, column by column: the compiled function only knows that there is one."""
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
                self._report(column, mismatch, drift)
                return Rejected(key, f"{column.name}: {mismatch}", payload)
        try:
            values.json_text(payload)
        except TypeMismatch as mismatch:
            return Rejected(key, f"an undeclared field: {mismatch}", payload)
        raise AssertionError(f"a record of {self.table.name} was rejected without a reason")

    def _note_misfit(self, column: Column, value: Any, drift: list[Drift]) -> None:
        """If it is one: the compiled function only knows that it may be."""
        try:
            values.viewed(column.type, value)
        except TypeMismatch as mismatch:
            self._report(column, mismatch, drift)

    def _report(self, column: Column, mismatch: TypeMismatch, drift: list[Drift]) -> None:
        if column.name not in self._seen_misfits:
            self._seen_misfits.add(column.name)
            drift.append(Drift(column.name, "type_mismatch", f"{column.type}: {mismatch}"))


# What a value must satisfy to go into its column as it is; anything else takes the slower way through CONVERTERS.
_FITS = {
    ColumnType.TEXT: 'type({v}) is str and {v}.isascii() and "\\0" not in {v}',
    ColumnType.BIGINT: "type({v}) is int and -INT64 <= {v} < INT64",
    ColumnType.NUMERIC: "type({v}) is int and -INT64 <= {v} < INT64",
    ColumnType.DOUBLE: "type({v}) is float and -INFINITY < {v} < INFINITY",
    ColumnType.BOOLEAN: "type({v}) is bool",
}
_KEY_FITS = 'type(key) is str and 0 < len(key) <= LONGEST_KEY and key.isascii() and "\\0" not in key'

_TEMPLATE = """
def map_records(records, append, reject, seen, learn, misfit):
    for record in records:
        payload = record.payload
        try:
            if type(payload) is not dict:
                payload = as_dict(payload)
            rest = payload.copy()
            pop = rest.pop
            key = {key}
            if not ({key_fits}):
                key = fit_key(key)
{columns}
            extra = None
            if rest:
                if not seen.issuperset(rest):
                    learn(rest)
                extra = json_text(rest)
        except TypeMismatch:
            reject(record)
            continue
        append((key, record.version, {names}extra))
{viewed}
"""

_MapRecords = Callable[
    [
        Iterable[Record],
        Callable[[Row], None],
        Callable[[Record], None],
        set[str],
        Callable[[Mapping[str, Any]], None],
        Callable[[int, Any], None],
    ],
    None,
]


def _compile(table: Table, viewed: Sequence[Column]) -> _MapRecords:
    """A function with one straight line of code per column: no loop over columns, no call where the value fits."""
    namespace: dict[str, Any] = {
        "TypeMismatch": TypeMismatch,
        "INT64": values.INT64,
        "INFINITY": float("inf"),
        "LONGEST_KEY": values.LONGEST_KEY,
        "as_dict": _as_dict,
        "look": look,
        "take": take,
        "fit_key": values.key,
        "json_text": values.json_text,
    }
    paths = [_path(table.key), *(_path(column.source_path) for column in table.columns)]
    lines: list[str] = []
    for number, column in enumerate(table.columns):
        name = f"c{number}"
        namespace[f"fit_{number}"] = CONVERTERS[column.type]
        fits = _FITS.get(column.type)
        condition = f"{name} is not None" + (f" and not ({fits.format(v=name)})" if fits else "")
        lines += [f"{name} = {_getter(paths, number + 1)}", f"if {condition}: {name} = fit_{number}({name})"]
    views: list[str] = []
    for number, column in enumerate(viewed):
        if column.type not in (ColumnType.TEXT, ColumnType.JSON):  # all that JSON knows fits those
            fits = _FITS.get(column.type)
            views += [
                f"value = look(payload, {_path(column.source_path)!r})",
                "if value is not None" + (f" and not ({fits.format(v='value')})" if fits else "") + ":",
                f"    misfit({number}, value)",
            ]
    source = _TEMPLATE.format(
        key=_getter(paths, 0),
        key_fits=_KEY_FITS,
        columns="\n".join(" " * 12 + line for line in lines),
        names="".join(f"c{number}, " for number in range(len(table.columns))),
        viewed="\n".join(" " * 8 + line for line in views),
    )
    exec(compile(source, f"<mapper of {table.name}>", "exec"), namespace)  # noqa: S102 - every name in it is ours or quoted by repr
    mapper: _MapRecords = namespace["map_records"]
    return mapper


def _getter(paths: Sequence[tuple[str, ...]], number: int) -> str:
    """Takes the value out of ``rest``, or only looks where another column takes it or a whole that holds it."""
    path = paths[number]
    taken = path in paths[:number] or any(other == path[: len(other)] and other != path for other in paths)
    if taken:
        return f"look(payload, {path!r})"
    if len(path) == 1:
        return f"pop({path[0]!r}, None)"
    return f"take(rest, {path!r})"


def take(node: dict[str, Any], path: Sequence[str]) -> Any:
    """Removes and returns the value at ``path``; what lies on the way is copied first: the record is not ours."""
    name = path[0]
    if len(path) == 1:
        return node.pop(name, None)
    child = node.get(name)
    if not isinstance(child, dict) or not child:
        return None
    child = child.copy()
    value = take(child, path[1:])
    if child:
        node[name] = child
    else:
        del node[name]
    return value


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(dotted.split("."))


def _as_dict(payload: Any) -> dict[str, Any]:
    if isinstance(payload, dict):  # a subclass, e.g. of an SDK: its copy() may not be plain
        return dict(payload)
    raise TypeMismatch("not an object")
