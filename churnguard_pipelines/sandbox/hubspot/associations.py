"""Associations between records and their types. https://developers.hubspot.com/docs/api-reference/crm-associations-v4

Each pair of records is held from both ends; each end has type ids of its own, of which one is the other's inverse.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

HUBSPOT, USER = "HUBSPOT_DEFINED", "USER_DEFINED"
End = tuple[str, int]  # the type's name, the record's id


@dataclass(frozen=True)
class AssociationType:
    id: int
    source: str
    target: str
    category: str = HUBSPOT
    label: str | None = None


# (source, target, id, id of the inverse); HubSpot publishes the ids
_UNLABELLED = (
    ("contacts", "companies", 279, 280),
    ("deals", "contacts", 3, 4),
    ("deals", "companies", 341, 342),
    ("tickets", "contacts", 16, 15),
    ("tickets", "companies", 339, 340),
    ("tickets", "deals", 28, 27),
    ("deals", "line_items", 19, 20),
    ("calls", "contacts", 194, 193),
    ("calls", "companies", 182, 181),
    ("calls", "deals", 206, 205),
    ("calls", "tickets", 220, 219),
    ("emails", "contacts", 198, 197),
    ("emails", "companies", 186, 185),
    ("emails", "deals", 210, 209),
    ("emails", "tickets", 224, 223),
    ("meetings", "contacts", 200, 199),
    ("meetings", "companies", 188, 187),
    ("meetings", "deals", 212, 211),
    ("meetings", "tickets", 226, 225),
    ("notes", "contacts", 202, 201),
    ("notes", "companies", 190, 189),
    ("notes", "deals", 214, 213),
    ("notes", "tickets", 228, 227),
    ("tasks", "contacts", 204, 203),
    ("tasks", "companies", 192, 191),
    ("tasks", "deals", 216, 215),
    ("tasks", "tickets", 230, 229),
    ("companies", "companies", 13, 14),
)
_PRIMARY = (
    ("contacts", "companies", 1, 2),
    ("deals", "companies", 5, 6),
    ("tickets", "companies", 26, 25),
)
PRIMARY = {(source, target): id for source, target, id, _ in _PRIMARY}


class Associations:
    def __init__(self) -> None:
        self.types: dict[int, AssociationType] = {}
        self._inverse: dict[int, int] = {}
        self._plain: dict[tuple[str, str], int] = {}
        self._pairs: dict[End, dict[End, set[int]]] = defaultdict(dict)
        for label, known in ((None, _UNLABELLED), ("Primary", _PRIMARY)):
            for source, target, id, inverse in known:
                self._define(AssociationType(id, source, target, label=label), inverse)

    def _define(self, kind: AssociationType, inverse: int) -> None:
        back = AssociationType(inverse, kind.target, kind.source, kind.category, kind.label)
        for each, other in ((kind, back), (back, kind)):
            self.types[each.id] = each
            self._inverse[each.id] = other.id
            if each.label is None:
                self._plain.setdefault((each.source, each.target), each.id)

    def define(self, source: str, target: str, label: str | None) -> int:
        """A type of the account's own, of both directions: a label, or the plain one of a custom object."""
        id = max(1000, *self.types) + 1
        self._define(AssociationType(id, source, target, USER, label), id + 1)
        return id

    def inverse(self, kind: AssociationType) -> AssociationType:
        return self.types[self._inverse[kind.id]]

    def between(self, source: str, target: str) -> list[AssociationType]:
        """The types of a direction, as the labels' endpoint lists them."""
        return [kind for kind in self.types.values() if (kind.source, kind.target) == (source, target)]

    def of(self, source: str, id: int, target: str) -> list[tuple[int, list[AssociationType]]]:
        """(id, types) of the target's records that a record is associated with, by id."""
        return sorted(
            (other, [self.types[kind] for kind in sorted(kinds)])
            for (name, other), kinds in self._pairs.get((source, id), {}).items()
            if name == target
        )

    def add(self, source: str, id: int, target: str, other: int, labels: tuple[int, ...]) -> list[AssociationType]:
        """Gives the types that are new. A pair with a label has the plain type too."""
        plain = self._plain.get((source, target))
        if plain is None:
            plain = self.define(source, target, None)
        wanted = {plain, *labels}
        one, two = (source, id), (target, other)
        new = wanted - self._pairs[one].get(two, set())
        if new:
            self._pairs[one].setdefault(two, set()).update(new)
            self._pairs[two].setdefault(one, set()).update(self._inverse[kind] for kind in new)
        return [self.types[kind] for kind in sorted(new)]

    def remove(self, source: str, id: int, target: str, other: int, labels: tuple[int, ...]) -> list[AssociationType]:
        """Gives the types that were there."""
        one, two = (source, id), (target, other)
        held = self._pairs.get(one, {}).get(two, set())
        gone = held & set(labels) if labels else set(held)
        for near, far, kinds in ((one, two, gone), (two, one, {self._inverse[kind] for kind in gone})):
            left = self._pairs.get(near, {}).get(far)
            if left is not None:
                left -= kinds
                if not left:
                    del self._pairs[near][far]
        return [self.types[kind] for kind in sorted(gone)]

    def forget(self, source: str, id: int) -> None:
        for far in self._pairs.pop((source, id), {}):
            self._pairs[far].pop((source, id), None)

    def move(self, source: str, loser: int, survivor: int) -> None:
        """What one record had, another has."""
        for (name, other), kinds in self._pairs.get((source, loser), {}).copy().items():
            if (name, other) != (source, survivor):
                self.add(source, survivor, name, other, tuple(kinds))
        self.forget(source, loser)
