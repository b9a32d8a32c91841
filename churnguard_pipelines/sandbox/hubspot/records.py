"""Records and the properties they may have, some of the account's own. Instants are epoch milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from churnguard_pipelines.sandbox.hubspot.instants import iso
from churnguard_pipelines.sandbox.hubspot.types import ID, ObjectType

FIELD_TYPES = {
    "string": "text",
    "number": "number",
    "bool": "booleancheckbox",
    "enumeration": "select",
    "datetime": "date",
    "date": "date",
    "phone_number": "phonenumber",
    "json": "text",
    "object_coordinates": "text",
}


@dataclass(slots=True, eq=False)
class Record:
    """`values`: of its properties, as text; absent is null. `history`: the values before, newest last."""

    id: int
    type: ObjectType
    created: int
    updated: int
    values: dict[str, str]
    archived_at: int | None = None
    history: dict[str, list[tuple[int, str | None]]] = field(default_factory=dict)


@dataclass
class Property:
    """`compute`: of a calculated one, whose value moves without the record's date moving."""

    name: str
    type: str = "string"
    label: str | None = None
    field_type: str | None = None
    options: tuple[tuple[str, str | None], ...] = ()  # value, label
    defined_by_hubspot: bool = True
    calculated: bool = False
    formula: str | None = None
    compute: Callable[[Record], str | None] | None = None
    unique: bool = False
    created: int = 0
    updated: int = 0
    archived_at: int | None = None

    def shown(self) -> dict[str, Any]:
        """Its label, as an option's, may be null."""
        body: dict[str, Any] = {
            "updatedAt": iso(self.updated),
            "createdAt": iso(self.created),
            "name": self.name,
            "label": self.label,
            "type": self.type,
            "fieldType": self.field_type
            or ("calculation_equation" if self.calculated else FIELD_TYPES.get(self.type, "text")),
            "description": "",
            "groupName": "information",
            "options": [
                {"label": label, "value": value, "displayOrder": place, "hidden": False}
                for place, (value, label) in enumerate(self.options)
            ],
            "displayOrder": -1,
            "calculated": self.calculated,
            "externalOptions": False,
            "archived": self.archived_at is not None,
            "hasUniqueValue": self.unique,
            "hidden": False,
            "hubspotDefined": self.defined_by_hubspot,
            "modificationMetadata": {
                "archivable": not self.defined_by_hubspot,
                "readOnlyDefinition": self.defined_by_hubspot,
                "readOnlyValue": self.calculated,
            },
            "formField": not self.calculated,
            "dataSensitivity": "non_sensitive",
        }
        if self.formula:
            body["calculationFormula"] = self.formula
        if self.archived_at is not None:
            body["archivedAt"] = iso(self.archived_at)
        return body


def system_properties(kind: ObjectType) -> list[Property]:
    """What every record of the type has, whoever made it."""
    return [
        Property(kind.created, "datetime", "Create date"),
        Property(kind.modified, "datetime", "Last modified date"),
        Property(ID, "number", "Record ID"),
        Property("hs_merged_object_ids", "enumeration", "Merged record IDs", field_type="checkbox"),
        Property("hubspot_owner_id", "enumeration", "Owner"),
    ]
