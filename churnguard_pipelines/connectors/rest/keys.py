"""What identifies a rule's records: the fields that the rule names, or one that the first page shows to do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from typing import Any, Literal

from churnguard_pipelines import record_paths
from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.errors import InvalidConfiguration, ProviderMisbehaved
from churnguard_pipelines.model import RuleIntegration

KEY = "record_key"
"""The field that a record gets, and the key column of the table."""
PARENT_FIELD = "_parent"
_USUAL = ("id", "uuid", "guid", "_id", "@id", "key")

Fields = Sequence[str] | Literal["*"]


def detect(integration: RuleIntegration, records: Sequence[Any]) -> list[str]:
    """The first of the usual fields that tells the records apart, or of several records one that ends in ``id``.

    Raises ``InvalidConfiguration`` if none does.
    """
    there = [each for each in records if isinstance(each, dict)]
    names = [name for name in there[0] if name.lower().endswith("id")] if len(there) > 1 else []
    for name in (*_USUAL, *names):
        values = [each.get(name) for each in there]
        plain = all(type(value) in (str, int) and value != "" for value in values)
        if there and plain and len({str(value) for value in values}) == len(values):
            return [name]
    raise InvalidConfiguration(
        "no field of its records tells them apart.",
        integration_id=integration.integration_id,
        remedy='Name those that do in `key`, or write `key: "*"` if a record is what it says.',
    )


class Keys:
    """``fields``: those that identify a record together; ``*`` for all that it holds."""

    def __init__(self, integration: RuleIntegration, fields: Fields) -> None:
        self._integration = integration
        self.fields = fields
        self._paths = () if fields == "*" else tuple(map(record_paths.parse, fields))

    def keyed(self, record: Any, parent: str | None) -> Any:
        """The record with its key; without one it has none, and is rejected for that. What is no object stays."""
        if not isinstance(record, dict):
            return record
        ours = {KEY: self._key(record, parent)} | ({} if parent is None else {PARENT_FIELD: parent})
        taken = {*record, *ours}
        theirs = {(_free(name, taken) if name in ours else name): value for name, value in record.items()}
        return ours | theirs

    def check(self, records: Sequence[Any]) -> None:
        """Raises ``ProviderMisbehaved`` if two of a page have one key and are not the same: one would replace the
        other."""
        seen: dict[Any, Any] = {}
        for record in records:
            key = record.get(KEY) if isinstance(record, dict) else None
            if isinstance(key, (str, int)) and key != "" and seen.setdefault(str(key), record) != record:
                raise ProviderMisbehaved(
                    f"two different records have one key, by {_named(self.fields)}.",
                    integration_id=self._integration.integration_id,
                    remedy="Name all the fields that tell records apart in `key`, e.g. `key: [order_id, line]`.",
                )

    def _key(self, record: Any, parent: str | None) -> Any:
        if self.fields == "*":
            told = exact_json.dumps(record, sort_keys=True)
            return hashlib.sha256(f"{parent or ''}\n".encode() + told).hexdigest()
        parts = [path.first(record) for path in self._paths]
        if parent is not None:
            parts.insert(0, parent)
        if len(parts) == 1:
            return _plain(parts[0])
        if any(part is None or part == "" or isinstance(part, (dict, list)) for part in parts):
            return None
        return exact_json.dumps(parts).decode()


def _free(name: str, taken: Set[str]) -> str:
    """What a field is called whose name is one of ours."""
    while name in taken:
        name = f"source_{name}"
    return name


def _plain(value: Any) -> Any:
    """Fractions and truth values identify as well as other values; the table's key is text."""
    return exact_json.dumps(value).decode() if isinstance(value, (float, bool)) else value


def _named(fields: Fields) -> str:
    return "all of their fields" if fields == "*" else " and ".join(f"`{field}`" for field in fields)
