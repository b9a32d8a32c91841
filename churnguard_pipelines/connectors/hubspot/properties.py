"""The properties of an object, each with its type, as the account has them now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from churnguard_pipelines.connectors.hubspot.api import HubSpotApi
from churnguard_pipelines.records import ColumnType, Field

TYPES = {
    "string": ColumnType.TEXT,
    "phone_number": ColumnType.TEXT,
    "enumeration": ColumnType.TEXT,
    "object_coordinates": ColumnType.TEXT,
    "json": ColumnType.TEXT,
    "number": ColumnType.NUMERIC,
    "bool": ColumnType.BOOLEAN,
    "date": ColumnType.DATE,
    "datetime": ColumnType.TIMESTAMP,
}
"""Whatever else HubSpot invents is read as text. Values come as text, whatever their type."""


class Properties:
    """Of all objects of one account; asked for once per object and sync. Thread safe."""

    def __init__(self, api: HubSpotApi) -> None:
        self._api = api
        self._known: dict[str, tuple[Field, ...]] = {}
        self._lock = Lock()

    def refresh(self, type_id: str) -> tuple[Field, ...]:
        """Ask anew."""
        answer = self._api.get(self._api.path("crm", "properties", type_id))
        listed = answer.results(f"properties of {type_id}", self._api.integration_id)
        found = tuple(_field(each) for each in listed if isinstance(each, dict) and _can_be_read(each))
        with self._lock:
            self._known[type_id] = found
        return found

    def of(self, type_id: str) -> tuple[Field, ...]:
        with self._lock:
            known = self._known.get(type_id)
        return self.refresh(type_id) if known is None else known

    def clean(self, type_id: str, record: dict[str, Any]) -> dict[str, Any]:
        """HubSpot writes an empty text where a number, a date or a choice was taken away: that is no value."""
        values = record.get("properties")
        if not isinstance(values, dict) or "" not in values.values():
            return record
        typed = {field.name for field in self.of(type_id) if field.type != ColumnType.TEXT}
        cleaned = {name: None if value == "" and name in typed else value for name, value in values.items()}
        return {**record, "properties": cleaned}


def _can_be_read(told: Mapping[str, Any]) -> bool:
    """A name with a comma could not be asked for, and one with a dot not be found."""
    name = told.get("name")
    return isinstance(name, str) and bool(name) and not {",", "."} & set(name) and told.get("archived") is not True


def _field(told: Mapping[str, Any]) -> Field:
    options = told.get("options")
    values = [each.get("value") for each in options if isinstance(each, dict)] if isinstance(options, list) else ()
    return Field(
        told["name"],
        TYPES.get(str(told.get("type")), ColumnType.TEXT),
        f"properties.{told['name']}",
        label=str(told.get("label") or ""),
        values=tuple(str(value) for value in values),
        formula=told.get("calculated") is True,
    )


def names(fields: Sequence[Field]) -> list[str]:
    return [field.name for field in fields]
