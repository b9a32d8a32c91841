"""Objects that an account defined itself, and what they belong to, out of their schemas.

https://developers.hubspot.com/docs/api-reference/crm-schemas-v3
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from churnguard_pipelines.connectors.hubspot.objects import (
    CUSTOM_COLUMNS,
    PAIR_COLUMNS,
    TYPE_IDS,
    CrmOptions,
    PairOptions,
)
from churnguard_pipelines.connectors.sdk import Object

_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
_TYPE_ID = re.compile(r"[0-9]{1,10}-[0-9]{1,20}", re.ASCII)
_BELONGS_TO = frozenset(("contacts", "companies", "deals", "tickets"))
"""Of HubSpot's own objects; each pair costs a sweep a day."""


def own_objects(schemas: Sequence[Any]) -> list[Object]:
    """Those that are named as HubSpot's own rules say, and their associations: ``cars``, and ``cars-contacts``."""
    known = [each for each in schemas if isinstance(each, dict) and _is_named(each)]
    names = {each["objectTypeId"]: each["name"] for each in known}
    pairs = {made.name: made for each in known for made in _pairs(each, names)}
    return [*map(_record, known), *pairs.values()]


def is_own(type_id: str) -> bool:
    return _TYPE_ID.fullmatch(type_id) is not None and type_id not in TYPE_IDS


def ordered(one: str, other: str) -> tuple[str, str]:
    """The ends of a pair, of which at least one is an account's own object, as the pair has them."""
    first, second = sorted((one, other), key=lambda end: (not is_own(end), end))
    return first, second


def _is_named(schema: Mapping[str, Any]) -> bool:
    name, type_id = schema.get("name"), schema.get("objectTypeId")
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and isinstance(type_id, str) and is_own(type_id)


def _record(schema: Mapping[str, Any]) -> Object:
    labels = schema.get("labels")
    label = labels.get("plural") if isinstance(labels, dict) else None
    return Object(
        schema["name"], schema["objectTypeId"], CUSTOM_COLUMNS, options=CrmOptions(), created_column="created_at",
        modified_column="updated_at", label=str(label) if label else None, custom=True,
    )  # fmt: skip


def _pairs(schema: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[Object]:
    told = schema.get("associations")
    for each in told if isinstance(told, list) else ():
        ends = [str(each.get(f"{end}ObjectTypeId")) for end in ("from", "to")] if isinstance(each, dict) else []
        types = [TYPE_IDS.get(end, end) for end in ends]
        if schema["objectTypeId"] not in types or not all(end in names or end in _BELONGS_TO for end in types):
            continue
        source, target = ordered(*types)
        yield Object(
            f"{names[source]}-{names.get(target, target)}", f"{source}/{target}", PAIR_COLUMNS,
            options=PairOptions(source, target), created_column="", custom=True,
        )  # fmt: skip
