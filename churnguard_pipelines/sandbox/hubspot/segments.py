"""Lists of records, which HubSpot calls segments by now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from churnguard_pipelines.sandbox.hubspot.instants import iso_micros


@dataclass
class Segment:
    """A list: `members` maps a record's id to the instant at which it joined."""

    id: int
    name: str
    type_id: str
    processing: str
    created: int
    updated: int
    members: dict[int, int] = field(default_factory=dict)

    def replace(self, type_id: str, loser: int, survivor: int) -> None:
        if type_id == self.type_id and (joined := self.members.pop(loser, None)) is not None:
            self.members.setdefault(survivor, joined)

    def remove(self, type_id: str, id: int) -> None:
        if type_id == self.type_id:
            self.members.pop(id, None)

    def shown(self) -> dict[str, Any]:
        return {
            "listId": str(self.id),
            "listVersion": 1,
            "createdAt": iso_micros(self.created),
            "updatedAt": iso_micros(self.updated),
            "filtersUpdatedAt": iso_micros(self.created),
            "processingStatus": "COMPLETE",
            "createdById": "1",
            "updatedById": "1",
            "processingType": self.processing,
            "objectTypeId": self.type_id,
            "name": self.name,
            "additionalProperties": {"hs_list_size": str(len(self.members)), "hs_list_reference_count": "0"},
        }
