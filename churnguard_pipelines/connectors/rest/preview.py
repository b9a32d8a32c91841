"""What a rule would read: its first records, what tells them apart, of which types they are, how pages follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from churnguard_pipelines import record_paths
from churnguard_pipelines.connectors.rest.changes import Changes
from churnguard_pipelines.connectors.rest.keys import Keys, detect
from churnguard_pipelines.connectors.rest.lists import RecordList
from churnguard_pipelines.connectors.rest.paging import described
from churnguard_pipelines.connectors.rest.requests import Requests, no_parent, parent_name
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import RuleIntegration
from churnguard_pipelines.records import ColumnType

SHOWN = 5
MOST_FIELDS = 200


@dataclass(frozen=True, slots=True)
class PreviewField:
    """``path``: where it lies in a record; ``type``: that every value of the first page has; ``of``: records that have
    one."""

    path: str
    type: ColumnType
    of: int


@dataclass(frozen=True, slots=True)
class Preview:
    """``records``: the first ones as they came; ``count``: on the first page. ``key``: None where nothing tells them
    apart. ``paging``: in words; ``lists``: fields that could be child tables."""

    records: Sequence[Any]
    count: int
    key: Sequence[str] | str | None
    key_detected: bool
    paging: str
    paging_detected: bool
    fields: Sequence[PreviewField]
    lists: Sequence[str]


def preview(integration: RuleIntegration, requests: Requests) -> Preview:
    """Asks for one page, of a rule with parents for those of the first one that has a key. Raises what a read does."""
    rule = integration.rule
    parent = _first_parent(integration, requests) if rule.parent is not None else None
    now = datetime.now(UTC)
    more = Changes(integration, rule.incremental, now).parameters(None, None) if rule.incremental else {}
    path = record_paths.parse(rule.data_path)
    url = requests.endpoint(parent)
    listed = RecordList(integration, requests, url, path, rule.pagination, more=more)
    records: list[Any] = []
    for part in listed.parts():
        records += part.records
        if part.ends_page:
            break
    key = rule.key
    if key is None:
        try:
            key = detect(integration, records)
        except InvalidConfiguration:
            key = None
    if key is not None:
        keys = Keys(integration, key)
        keys.check([keys.keyed(record, parent) for record in records])
    objects = [each for each in records if isinstance(each, dict)]
    return Preview(
        records[:SHOWN], len(records), key, rule.key is None, described(part.how), rule.pagination is None,
        _fields(objects), sorted({name for each in objects for name, value in each.items() if _is_table(value)}),
    )  # fmt: skip


def _first_parent(integration: RuleIntegration, requests: Requests) -> str:
    parent = integration.rule.parent
    assert parent is not None
    path, key = record_paths.parse(parent.data_path), record_paths.parse(parent.key)
    listed = RecordList(
        integration, requests, str(parent.endpoint_url), path, parent.pagination, of_parent=True
    )  # fmt: skip
    for part in listed.parts():
        for record in part.records:
            if (name := parent_name(key.first(record))) is not None:
                return name
        break
    raise no_parent(integration)


def _fields(records: Sequence[dict[str, Any]]) -> list[PreviewField]:
    counts: Counter[str] = Counter()
    types: dict[str, set[ColumnType]] = {}
    for record in records:
        for path, value in _leaves(record):
            if len(types) < MOST_FIELDS or path in types:
                counts[path] += 1
                types.setdefault(path, set()).add(_type_of(value))
    return [PreviewField(path, _one(kinds), counts[path]) for path, kinds in types.items()]


def _leaves(record: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in record.items():
        if value is None:
            continue
        if isinstance(value, dict) and value and before.count(".") < 3:
            leaves += _leaves(value, f"{before}{name}.")
        else:
            leaves.append((f"{before}{name}", value))
    return leaves


def _type_of(value: Any) -> ColumnType:
    if isinstance(value, bool):
        return ColumnType.BOOLEAN
    if isinstance(value, int):
        return ColumnType.BIGINT if -(2**63) <= value < 2**63 else ColumnType.NUMERIC
    if isinstance(value, float):
        return ColumnType.NUMERIC
    if isinstance(value, (dict, list)):
        return ColumnType.JSON
    return _type_of_text(value)


def _type_of_text(value: str) -> ColumnType:
    """Of a date or time that has a zone; a number in a text stays one, whose zeros may matter."""
    if not 10 <= len(value) <= 35:
        return ColumnType.TEXT
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return ColumnType.TEXT
    if len(value) == 10:
        return ColumnType.DATE
    return ColumnType.TIMESTAMP if moment.tzinfo else ColumnType.TEXT


def _one(kinds: set[ColumnType]) -> ColumnType:
    if len(kinds) == 1:
        return next(iter(kinds))
    return ColumnType.NUMERIC if kinds <= {ColumnType.BIGINT, ColumnType.NUMERIC} else ColumnType.TEXT


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)
