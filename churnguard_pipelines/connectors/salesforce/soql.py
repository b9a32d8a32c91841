"""Texts of SOQL. Names are checked and values quoted, whoever says them: a setting, or Salesforce itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote as url_quote

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import DataFilter

MOST_BYTES = 13_000
"""Of a query in a URL. URL and headers together may have 16,384, and a token is long:
https://developer.salesforce.com/docs/atlas.en-us.salesforce_app_limits_cheatsheet.meta/"""
MOST_VALUES = 200
"""In one condition that is pushed down."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,254}")
_ESCAPES = str.maketrans(
    {"\\": "\\\\", "'": "\\'", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
)
_WORDS = frozenset(("string", "picklist", "id", "reference", "email", "phone", "url", "combobox"))
"""Types of fields that hold a text, which SOQL compares without regard to case."""
_NUMBERS = frozenset(("int", "double", "currency", "percent", "long"))
_ORDER = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


def name(text: str) -> str:
    """Raises ``InvalidConfiguration`` for what cannot be the API name of an object or field."""
    if not _NAME.fullmatch(text):
        raise InvalidConfiguration(f"“{text[:60]!a}” is no API name of an object or field of Salesforce.")
    return text


def quoted(text: str) -> str:
    """Raises ``InvalidConfiguration`` for control characters, which no value has."""
    escaped = text.translate(_ESCAPES)
    if any(character < " " for character in escaped):
        raise InvalidConfiguration("a value with a control character cannot be asked for.")
    return f"'{escaped}'"


def moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def among(field: str, values: Iterable[str]) -> str:
    return f"{field} IN ({','.join(quoted(value) for value in values)})"


def select(fields: Sequence[str], object: str, conditions: Sequence[str], ordered: bool = False) -> str:
    ending = " ORDER BY Id" if ordered else ""
    return f"SELECT {','.join(map(name, fields))} FROM {name(object)}{_where(conditions)}{ending}"


def count(object: str, conditions: Sequence[str]) -> str:
    return f"SELECT COUNT() FROM {name(object)}{_where(conditions)}"


def _where(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def chunks(always: Sequence[str], fields: Sequence[str], room: int = MOST_BYTES) -> list[list[str]]:
    """The fields, each chunk with those that are ``always`` in it, so that none is longer than ``room`` in a URL."""
    found: list[list[str]] = []
    size = room + 1
    for field in fields:
        added = len(field) + len("%2C")
        if size + added > room:
            found.append([*always])
            size = sum(len(each) + len("%2C") for each in always)
        found[-1].append(field)
        size += added
    return found or [[*always]]


def length(text: str) -> int:
    """In a URL."""
    return len(url_quote(text, safe=""))


def pushed_down(
    filters: Sequence[DataFilter], object: str, types: Mapping[str, str], moments: Mapping[str, str]
) -> Iterator[str]:
    """Conditions that leave out nothing that the integration's filters keep; what is left is filtered by us.

    SOQL compares texts without regard to case and orders them by a language: texts are asked for where they are equal,
    never where they differ. ``types``: of the fields that may stand in a condition; ``moments``: of the declared
    columns' fields that are dates (``date``) or moments (``datetime``), which alone are compared as such by us.
    """
    for each in filters:
        if (each.objects is None or object in each.objects) and each.field in types:
            condition = _condition(each, types[each.field], moments.get(each.field))
            if condition is not None:
                yield condition


def _condition(each: DataFilter, kind: str, moment_kind: str | None) -> str | None:
    field, operator, value = name(each.field), each.operator, each.value
    if operator == "exists":
        return f"{field} {'=' if value is False else '!='} null"
    if value is None:
        return f"{field} {'=' if operator == 'eq' else '!='} null" if operator in ("eq", "ne") else None
    if operator == "in":
        if not isinstance(value, (list, tuple, set)) or not 0 < len(value) <= MOST_VALUES:
            return None
        literals = [_literal(item, kind) for item in value]
        return f"{field} IN ({','.join(literals)})" if all(literals) else None  # type: ignore[arg-type]
    literal = _moment(value, moment_kind) if moment_kind else _literal(value, kind)
    if literal is None:
        return None
    if operator == "eq":
        return f"{field} = {literal}"
    if operator in _ORDER and (kind in _NUMBERS or moment_kind):
        return f"{field} {_ORDER[operator]} {literal}"
    return None


def _literal(value: Any, kind: str) -> str | None:
    if isinstance(value, bool):
        return str(value).lower() if kind == "boolean" else None
    if isinstance(value, (int, float)):
        return repr(value) if kind in _NUMBERS and abs(value) < 1e15 else None
    if isinstance(value, str) and kind in _WORDS and len(value) <= 255 and value and value.isprintable():
        return quoted(value)
    return None


def _moment(value: Any, kind: str) -> str | None:
    """To the whole second before or the day: whoever compares takes a little more, and we look again."""
    if kind != "datetime" or not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment(at if at.tzinfo else at.replace(tzinfo=UTC)) if at.microsecond == 0 else None
