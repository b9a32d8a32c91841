"""What Salesforce says of an object and its fields, which decides how it is read.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_sobject_describe.htm
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from churnguard_pipelines.records import BIGINT, BOOLEAN, DATE, JSON, NUMERIC, TEXT, TIMESTAMP, ColumnType, Field

CURSORS = ("SystemModstamp", "LastModifiedDate", "CreatedDate", "LoginTime")
"""Fields that tell when a record was changed, the best first. Only the first moves with every change."""
COMPOUND = frozenset(("address", "location"))
"""Their parts are fields of their own, and Bulk refuses them."""
NOT_IN_BULK = frozenset(("base64", "complexvalue", "json"))

NOT_FILTERED = frozenset(
    {
        *(
            "ApiEvent",
            "BulkApiResultEventStore",
            "ContentDocumentLink",
            "EmbeddedServiceDetail",
            "EmbeddedServiceLabel",
        ),
        *("FormulaFunction", "FormulaFunctionAllowedType", "FormulaFunctionCategory", "IdentityProviderEventStore"),
        *(
            "IdentityVerificationEvent",
            "LightningUriEvent",
            "ListViewEvent",
            "LoginAsEvent",
            "LoginEvent",
            "LogoutEvent",
        ),
        *("Publisher", "RecordActionHistory", "ReportEvent", "TabDefinition", "UriEvent"),
    }
)
"""They have a cursor, say that it can be filtered by, and refuse the query that does."""

_TYPES: Mapping[str, ColumnType] = {
    "boolean": BOOLEAN, "int": BIGINT, "long": BIGINT, "double": NUMERIC, "currency": NUMERIC, "percent": NUMERIC,
    "date": DATE, "datetime": TIMESTAMP, "address": JSON, "location": JSON, "complexvalue": JSON, "json": JSON,
}  # fmt: skip
"""All others, those too that nobody knows yet, are text."""


@dataclass(frozen=True, slots=True)
class FieldDescription:
    name: str
    kind: str
    label: str
    filterable: bool
    sortable: bool
    calculated: bool
    values: tuple[str, ...]

    @property
    def type(self) -> ColumnType:
        return _TYPES.get(self.kind, TEXT)


@dataclass(frozen=True)
class Description:
    """``fields``: those that the user may see and a query may name, in Salesforce's order. ``where``: conditions of an
    object that is declared by a query: it is a part of the one that is called ``name``."""

    name: str
    label: str
    replicateable: bool
    fields: tuple[FieldDescription, ...]
    where: tuple[str, ...] = ()

    @cached_property
    def by_name(self) -> Mapping[str, FieldDescription]:
        return {field.name: field for field in self.fields}

    @cached_property
    def cursor(self) -> str | None:
        """The field by which changes are found; None where the object has to be read in whole."""
        if self.name in NOT_FILTERED or not self.keyset:
            return None
        return next((name for name in CURSORS if self.filterable(name)), None)

    @property
    def stamp(self) -> str | None:
        """The field that says how new a record is."""
        return next((name for name in CURSORS if name in self.by_name), None)

    @property
    def keyset(self) -> bool:
        """It can be read on from an id."""
        identity = self.by_name.get("Id")
        return identity is not None and identity.filterable and identity.sortable

    @property
    def in_bulk(self) -> bool:
        return self.keyset and not any(field.kind in NOT_IN_BULK for field in self.fields)

    @property
    def calculates(self) -> bool:
        """It has formulas or roll-ups, whose changes move no date; nor does what a condition looks at."""
        return bool(self.where) or any(field.calculated for field in self.fields)

    @property
    def digest(self) -> str:
        """Of what is read."""
        return hashlib.sha256(",".join([*sorted(self.by_name), *self.where]).encode()).hexdigest()[:16]

    def has(self, name: str) -> bool:
        return name in self.by_name

    def filterable(self, name: str) -> bool:
        return self.has(name) and self.by_name[name].filterable

    def only(self, *names: str) -> Description:
        """The same with these fields only."""
        return replace(self, fields=tuple(self.by_name[name] for name in names))

    def part(self, fields: Sequence[str], where: Sequence[str]) -> Description:
        """What a query makes of it. What leaves the part is in no log of deletions. Raises ``KeyError`` with the name
        of a field that is not there."""
        own = ("IsDeleted",) if self.has("IsDeleted") and "IsDeleted" not in fields else ()
        return replace(self.only(*fields, *own), where=tuple(where), replicateable=False)

    @property
    def catalogued(self) -> Sequence[Field]:
        """As the catalogue has them."""
        return [
            Field(each.name, each.type, None, each.label, each.values, each.calculated)
            for each in self.fields
            if each.name not in ("Id", "IsDeleted")
        ]


def described(told: Mapping[str, Any]) -> Description:
    """Raises ``KeyError`` or ``TypeError`` for what is no description."""
    return Description(
        told["name"],
        told.get("label") or told["name"],
        bool(told.get("replicateable")),
        tuple(_field(each) for each in told["fields"] if each["type"] not in COMPOUND),
    )


def _field(told: Mapping[str, Any]) -> FieldDescription:
    values = [each["value"] for each in told.get("picklistValues") or () if each.get("active") and each.get("value")]
    return FieldDescription(
        told["name"], told["type"], told.get("label") or told["name"], bool(told.get("filterable", True)),
        bool(told.get("sortable", True)), bool(told.get("calculated")), tuple(values),
    )  # fmt: skip
