"""One HubSpot account: its records, their history and what happened to them. Instants are epoch milliseconds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from churnguard_pipelines.sandbox.hubspot import errors
from churnguard_pipelines.sandbox.hubspot.associations import Associations
from churnguard_pipelines.sandbox.hubspot.index import Index
from churnguard_pipelines.sandbox.hubspot.instants import iso_millis
from churnguard_pipelines.sandbox.hubspot.limits import Limits
from churnguard_pipelines.sandbox.hubspot.marketing import Marketing
from churnguard_pipelines.sandbox.hubspot.records import Property, Record, system_properties
from churnguard_pipelines.sandbox.hubspot.segments import Segment
from churnguard_pipelines.sandbox.hubspot.types import ID, STANDARD, ObjectType, custom_type

FIRST_ID = 20_000_000_001  # of every type and in every portal: ids of two types, or of two portals, do overlap
OWN_EVENTS = ("contacts", "companies", "deals", "tickets", "products", "line_items")
RECYCLE_BIN = 90 * 86_400_000
MERGED = "hs_merged_object_ids"


def absorb(survivor: Record, loser: int, of_loser: str) -> None:
    """Writes down that a record, and those that it had absorbed itself, went into another one."""
    ids = [*survivor.values.get(MERGED, "").split(";"), str(loser), *of_loser.split(";")]
    survivor.values[MERGED] = ";".join(dict.fromkeys(filter(None, ids)))


class Table:
    """The records of one type in the order of their ids; those merged away and erased are gone."""

    def __init__(self, type: ObjectType) -> None:
        self.type = type
        self.records: dict[int, Record] = {}
        self.merged: dict[int, int] = {}
        self.properties: dict[str, Property] = {each.name: each for each in system_properties(type)}
        self.index = Index()
        self._ids: list[int] = []
        self._next = FIRST_ID + 900_000_000_000  # of records that are made in HubSpot itself

    def add(self, record: Record) -> None:
        self.records[record.id] = record
        insort(self._ids, record.id)

    def new_id(self) -> int:
        self._next += 1 + self._next % 5  # with gaps, as everywhere
        return self._next

    def find(self, id: int) -> Record | None:
        """By its own id, or by that of a record merged into it."""
        while id in self.merged:
            id = self.merged[id]
        return self.records.get(id)

    def drop(self, record: Record) -> None:
        del self.records[record.id]
        del self._ids[bisect_left(self._ids, record.id)]

    def after(self, id: int) -> Iterator[Record]:
        for place in range(bisect_right(self._ids, id), len(self._ids)):
            yield self.records[self._ids[place]]


class Portal:
    """Thread-safe where its user holds the world's lock. `clock`: the present in milliseconds."""

    def __init__(self, id: int, currency: str, clock: Callable[[], int], limits: Limits | None = None) -> None:
        self.id = id
        self.currency = currency
        self.clock = clock
        self.limits = limits or Limits()
        self.tables: dict[str, Table] = {}
        self.associations = Associations()
        self.owners: list[dict[str, Any]] = []
        self.pipelines: dict[str, list[dict[str, Any]]] = {}
        self.lists: dict[int, Segment] = {}
        self.schemas: dict[str, dict[str, Any]] = {}
        self.marketing = Marketing()
        self.events: list[dict[str, Any]] = []
        for kind in STANDARD:
            self.tables[kind.name] = Table(kind)

    # Types

    def table(self, name: str) -> Table:
        """By its path's name, its singular or its objectTypeId. Refusal where there is none."""
        found = self.tables.get(name)
        if found is None:
            for table in self.tables.values():
                if name in (table.type.id, table.type.singular, table.type.name):
                    return table
            raise errors.unknown_type(name)
        return found

    def define_object(self, name: str, labels: tuple[str, str], properties: list[Property], primary: str) -> Table:
        """A custom object, from now on."""
        kind = custom_type(self.id, 100_000_000 + self.id % 1000 * 1000 + len(self.schemas) + 1, name)
        table = self.tables[kind.name] = Table(kind)
        for each in properties:
            each.defined_by_hubspot = False
            table.properties[each.name] = each
        at = self.clock()
        self.schemas[kind.name] = {
            "labels": {"singular": labels[0], "plural": labels[1]},
            "requiredProperties": [primary],
            "searchableProperties": [primary],
            "primaryDisplayProperty": primary,
            "secondaryDisplayProperties": [],
            "created": at,
            "updated": at,
        }
        return table

    def remove_object(self, name: str) -> None:
        """The custom object, its records and their associations."""
        table = self.table(name)
        for record in list(table.records.values()):
            self.associations.forget(table.type.name, record.id)
        del self.schemas[table.type.name]
        del self.tables[table.type.name]

    def define_property(self, type: str, definition: Property) -> None:
        """A property made, or made anew with another type: values that are there stay as they are."""
        at = self.clock()
        definition.created = definition.created or at
        definition.updated = at
        self.table(type).properties[definition.name] = definition

    def remove_property(self, type: str, name: str) -> None:
        """Archived: no longer listed, its values no longer shown."""
        self.table(type).properties[name].archived_at = self.clock()

    # Reading

    def value(self, record: Record, name: str) -> str | None:
        """Of a property as it is now; None where it has none or there is no such property."""
        table = self.tables[record.type.name]
        definition = table.properties.get(name)
        if definition is None or definition.archived_at is not None:
            return None
        if definition.compute is not None:
            return definition.compute(record)
        if name == ID:
            return str(record.id)
        if name == record.type.created:
            return iso_millis(record.created)
        if name == record.type.modified:
            return iso_millis(record.updated)
        return record.values.get(name)

    def listed(self, record: Record, archived: bool) -> bool:
        if record.archived_at is None:
            return not archived
        return archived and record.archived_at > self.clock() - RECYCLE_BIN

    # Changes: each moves the record's date, except where it says otherwise

    def load(self, record: Record, archived_at: int | None, told: bool) -> None:
        """A record with a past. Search knows it, and nobody is told unless `told`."""
        table = self.tables[record.type.name]
        record.archived_at = archived_at
        table.add(record)
        self._index(table, record, self.clock() if told else 0)
        if told:
            self._event(record, "creation", record.created, changeFlag="CREATED")

    def create(
        self, type: str, values: Mapping[str, str | None], at: int | None = None, id: int | None = None
    ) -> Record:
        table = self.table(type)
        at = self.clock() if at is None else at
        given = {name: value for name, value in values.items() if value is not None}
        record = Record(table.new_id() if id is None else id, table.type, at, at, given)
        table.add(record)
        self._index(table, record, at)
        self._event(record, "creation", at, changeFlag="CREATED")
        return record

    def update(self, record: Record, values: Mapping[str, str | None], at: int | None = None) -> None:
        """The record's date moves even where nothing differs."""
        at = self.clock() if at is None else at
        changed = {name: value for name, value in values.items() if record.values.get(name) != value}
        for name, value in changed.items():
            self._set(record, name, value, at)
            self._event(record, "propertyChange", at, propertyName=name, propertyValue=value or "")
        record.updated = max(at, record.updated)
        self._index(self.tables[record.type.name], record, at)

    def recalculate(self, record: Record, name: str, value: str | None) -> None:
        """A calculated property moves; the record's date does not, and no webhook tells."""
        self._set(record, name, value, self.clock())

    def archive(self, record: Record, at: int | None = None) -> None:
        at = self.clock() if at is None else at
        record.archived_at = at
        record.updated = max(at, record.updated)
        self._index(self.tables[record.type.name], record, at)
        self._event(record, "deletion", at, changeFlag="DELETED")

    def restore(self, record: Record, at: int | None = None) -> None:
        at = self.clock() if at is None else at
        record.archived_at = None
        record.updated = max(at, record.updated)
        self._index(self.tables[record.type.name], record, at)
        self._event(record, "restore", at, changeFlag="RESTORED")

    def merge(self, survivor: Record, *losers: Record, at: int | None = None) -> None:
        """The losers' ids answer for the survivor from now on, which has their associations and places in lists."""
        at = self.clock() if at is None else at
        table = self.tables[survivor.type.name]
        for loser in losers:
            absorb(survivor, loser.id, loser.values.get(MERGED, ""))
            self.associations.move(table.type.name, loser.id, survivor.id)
            for members in self.lists.values():
                members.replace(table.type.id, loser.id, survivor.id)
            table.merged[loser.id] = survivor.id
            table.drop(loser)
            table.index.drop(loser, self._seen(loser, at))
        survivor.updated = max(at, survivor.updated)
        self._index(table, survivor, at)
        self._event(
            survivor,
            "merge",
            at,
            primaryObjectId=survivor.id,
            mergedObjectIds=[loser.id for loser in losers],
            newObjectId=survivor.id,
            numberOfPropertiesMoved=0,
        )

    def erase(self, record: Record, at: int | None = None) -> None:
        """Nothing of it is left, in the recycle bin neither: for privacy, which only people have."""
        at = self.clock() if at is None else at
        table = self.tables[record.type.name]
        self.associations.forget(table.type.name, record.id)
        for members in self.lists.values():
            members.remove(table.type.id, record.id)
        table.drop(record)
        table.index.drop(record, self._seen(record, at))
        if record.type.singular == "contact":
            self._event(record, "privacyDeletion", at)
        elif record.archived_at is None:
            self._event(record, "deletion", at, changeFlag="DELETED")

    def associate(self, one: Record, other: Record, *labels: int, at: int | None = None) -> None:
        """Adds the pair's types, HubSpot's own unlabelled one where none is given. Neither record's date moves."""
        self._link(one, other, labels, removed=False, at=at)

    def dissociate(self, one: Record, other: Record, *labels: int, at: int | None = None) -> None:
        """Removes these types of the pair, or all."""
        self._link(one, other, labels, removed=True, at=at)

    def _link(self, one: Record, other: Record, labels: tuple[int, ...], removed: bool, at: int | None) -> None:
        at = self.clock() if at is None else at
        change = self.associations.remove if removed else self.associations.add
        for label in change(one.type.name, one.id, other.type.name, other.id, labels):
            for near, far, kind in ((one, other, label), (other, one, self.associations.inverse(label))):
                self._event(
                    near,
                    "associationChange",
                    at,
                    associationType=f"{near.type.singular}_TO_{far.type.singular}".upper(),
                    fromObjectId=near.id,
                    toObjectId=far.id,
                    fromObjectTypeId=near.type.id,
                    toObjectTypeId=far.type.id,
                    associationTypeId=kind.id,
                    associationCategory=kind.category,
                    associationRemoved=removed,
                    isPrimaryAssociation=kind.label == "Primary",
                )

    def _set(self, record: Record, name: str, value: str | None, at: int) -> None:
        record.history.setdefault(name, [(record.created, record.values.get(name))]).append((at, value))
        if value is None:
            record.values.pop(name, None)
        else:
            record.values[name] = value

    # What follows from a change

    def _seen(self, record: Record, at: int) -> int:
        """When search will know: some records are indexed sooner than others that changed before them."""
        return at + round(self.limits.index_delay * 1000 * (1 + record.id % 4) / 4)

    def _index(self, table: Table, record: Record, at: int) -> None:
        table.index.put(record, self._seen(record, at))

    def _event(self, record: Record, kind: str, at: int, **details: Any) -> None:
        """What webhooks tell: types of old have events of their own, others are told as `object`."""
        name = record.type.singular if record.type.name in OWN_EVENTS else "object"
        about = {} if kind == "associationChange" else {"objectId": record.id, "objectTypeId": record.type.id}
        told = {
            "subscriptionType": f"{name}.{kind}",
            "occurredAt": at,
            "changeSource": "CRM_UI",
            "sourceId": "userId:1",
        }
        self.events.append({**about, **told, **details})
