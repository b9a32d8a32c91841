"""Schemas of Avro with values of them, and the values as JSON, drawn together."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

import fastavro
from hypothesis import strategies as st


class Drawn(NamedTuple):
    schema: Any
    value: Any
    document: Any
    """The value as PostgreSQL gives it back."""


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001 - they get their zone where they have one


def leaf(schema: Any, values: st.SearchStrategy[Any], shown: Callable[[Any], Any] = lambda value: value) -> Any:
    return values.map(lambda value: Drawn(schema, value, shown(value)))


def shown_number(value: float) -> Any:
    if value != value:
        return "NaN"
    return Decimal(repr(value)) if abs(value) != float("inf") else "Infinity" if value > 0 else "-Infinity"


def shown_moment(value: datetime) -> str:
    text = value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return text.replace(".000000", "").replace("000Z", "Z") if value.microsecond % 1000 == 0 else text


def shown_time(value: time) -> str:
    text = value.isoformat(timespec="microseconds")
    return text.replace(".000000", "") if not value.microsecond else text[:-3] if text.endswith("000") else text


def millis(value: Any) -> Any:
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def logical(kind: str, name: str, **more: Any) -> Any:
    return {"type": kind, "logicalType": name, **more}


leaves = st.one_of(
    leaf("null", st.none()),
    leaf("boolean", st.booleans()),
    leaf("int", st.integers(-(2**31), 2**31 - 1)),
    leaf("long", st.integers(-(2**63), 2**63 - 1)),
    leaf("double", st.floats(), shown_number),
    leaf("float", st.floats(width=32), shown_number),
    leaf("bytes", st.binary(max_size=6), lambda value: b64encode(value).decode()),
    leaf("string", texts),
    leaf(logical("string", "uuid"), st.uuids(), str),
    leaf(
        logical("bytes", "decimal", precision=40, scale=6),
        st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**30), max_value=10**30),
        lambda value: format(value, "f"),
    ),
    leaf(logical("int", "date"), st.dates(), date.isoformat),
    leaf(logical("long", "timestamp-micros"), moments.map(lambda each: each.replace(tzinfo=UTC)), shown_moment),
    leaf(logical("long", "timestamp-millis"), moments.map(lambda each: millis(each.replace(tzinfo=UTC))), shown_moment),
    leaf(
        logical("long", "local-timestamp-micros"), moments, lambda value: shown_moment(value.replace(tzinfo=UTC))[:-1]
    ),
    leaf(logical("long", "time-micros"), st.times(), shown_time),
    leaf(logical("int", "time-millis"), st.times().map(millis), shown_time),
)


def around(inner: st.SearchStrategy[Drawn]) -> st.SearchStrategy[Drawn]:
    return st.one_of(
        inner.map(lambda each: Drawn({"type": "array", "items": each.schema}, [each.value], [each.document])),
        st.tuples(texts, inner).map(
            lambda pair: Drawn(
                {"type": "map", "values": pair[1].schema}, {pair[0]: pair[1].value}, {pair[0]: pair[1].document}
            )
        ),
        inner.filter(lambda each: not isinstance(each.schema, list) and each.schema != "null").map(
            lambda each: Drawn(["null", each.schema], each.value, each.document)
        ),
        st.lists(inner, min_size=1, max_size=4).map(record),
    )


_numbers = count()


def record(fields: list[Drawn]) -> Drawn:
    named = {f"f{place}": each for place, each in enumerate(fields)}
    return Drawn(
        {
            "type": "record",
            "name": f"test.R{next(_numbers)}",
            "fields": [{"name": name, "type": each.schema} for name, each in named.items()],
        },
        {name: each.value for name, each in named.items()},
        {name: each.document for name, each in named.items()},
    )


drawn: st.SearchStrategy[Drawn] = st.lists(st.recursive(leaves, around, max_leaves=6), min_size=1, max_size=5).map(
    record
)


def encoded(schema: Any, value: Any) -> bytes:
    """By an encoder that is not ours."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), value)
    return stream.getvalue()


def number(value: int) -> bytes:
    """A long as Avro writes it: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding"""
    value = (value << 1) ^ (value >> 63)
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "amount", "type": logical("bytes", "decimal", precision=12, scale=2)},
        {"name": "placed_at", "type": logical("long", "timestamp-millis")},
        {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["NEW", "PAID"]}},
        {"name": "customer", "type": ["null", {"type": "record", "name": "Customer", "fields": [
            {"name": "id", "type": "long"}, {"name": "tags", "type": {"type": "map", "values": "string"}},
        ]}]},
    ],
}  # fmt: skip
AN_ORDER = {
    "id": "o-1",
    "amount": Decimal("19.90"),
    "placed_at": datetime(2026, 1, 31, 10, tzinfo=UTC),
    "status": "PAID",
    "customer": {"id": 2**62, "tags": {"plan": "pro"}},
}
AS_JSON = {
    "id": "o-1", "amount": "19.90", "placed_at": "2026-01-31T10:00:00Z", "status": "PAID",
    "customer": {"id": 2**62, "tags": {"plan": "pro"}},
}  # fmt: skip
AN_ID = UUID("12345678-1234-5678-1234-567812345678")
