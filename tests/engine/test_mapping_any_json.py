"""Whatever JSON a provider sends: a row that fits and is complete, or a rejected record with a reason."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.engine.mapping import Mapper, Row
from churnguard_pipelines.records import (
    BIGINT,
    BOOLEAN,
    DATE,
    DOUBLE,
    JSON,
    NUMERIC,
    TEXT,
    TIMESTAMP,
    ColumnType,
    Record,
)
from tests.engine.customers import CUSTOMERS, named

names = st.sampled_from(["id", "subscription", "plan", *(column.name for column in CUSTOMERS.columns)]) | st.text()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
plausible = st.fixed_dictionaries(
    {"id": st.text(min_size=1) | json_values},
    optional={column.name: json_values for column in CUSTOMERS.columns} | {"subscription": json_values},
)


@given(plausible | st.dictionaries(names, json_values) | json_values)
def test_any_json_becomes_a_row_that_fits_or_a_rejected_record_with_a_reason(payload: Any) -> None:
    mapper = Mapper(CUSTOMERS)
    result = mapper.rows([Record(payload, 1)])
    assert len(result.rows) + len(result.rejected) == 1
    for rejected in result.rejected:
        assert rejected.reason
        assert rejected.payload is payload
    for found in result.rows:
        assert_fits(mapper, found)
        assert_complete(payload, named(mapper, found))


def assert_fits(mapper: Mapper, found: Row) -> None:
    """What PostgreSQL demands of each type."""
    assert isinstance(found[0], str)
    assert found[0]
    for value in found:
        if isinstance(value, str):
            assert "\0" not in value
            value.encode()
    for column, value in zip(mapper.table.columns, found[2:-1], strict=True):
        if value is None:
            continue
        assert isinstance(value, PYTHON_TYPES[column.type])
        if column.type is BIGINT:
            assert -(2**63) <= int(str(value)) < 2**63
        if column.type is TIMESTAMP:
            assert datetime.fromisoformat(str(value)).tzinfo is not None
        if column.type is JSON:
            json.loads(str(value))
    if found[-1] is not None:
        assert json.loads(found[-1])


PYTHON_TYPES: dict[ColumnType, type | tuple[type, ...]] = {
    TEXT: str,
    BIGINT: int,
    NUMERIC: (int, float, Decimal),
    DOUBLE: float,
    BOOLEAN: bool,
    TIMESTAMP: str,
    DATE: str,
    JSON: str,
}


def assert_complete(payload: dict[str, Any], found: dict[str, Any]) -> None:
    """Columns and extra together give every field back (null and absent are one)."""
    extra = json.loads(found["extra"]) if found["extra"] else {}
    declared = {column.name for column in CUSTOMERS.columns if column.path is None}
    for name, value in payload.items():
        if name in declared:
            assert name not in extra
            assert (found[name] is None) == (value is None or (value == "" and name in ("created", "born")))
        elif name == "subscription":
            assert_same(value, restored(extra.get(name), value, found["plan"]))
        elif name == "id":
            assert str(value) == found["key"]
        else:
            assert_same(value, extra[name])


def restored(rest: Any, original: Any, plan: Any) -> Any:
    """The nested object with the value that its column took put back."""
    if isinstance(original, dict) and isinstance(original.get("plan"), dict) and "id" in original["plan"]:
        taken = original["plan"]["id"]
        assert (plan is None) == (taken is None)
        rest = rest or {}
        return {**rest, "plan": {**(rest.get("plan") or {}), "id": taken}}
    return rest


def assert_same(value: Any, stored: Any) -> None:
    assert json.loads(json.dumps(value)) == stored
