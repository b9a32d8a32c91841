"""The CRM that a simulated business keeps beside its billing: records, associations, and the ways they change.

It belongs to no provider: each simulated CRM API renders these records in its own words. Everything follows from the
business's seed and the commands given, in their order. Instants here are milliseconds. What changes an account's CRM
in life goes through `world.World.do`, which remembers it over a restart.

    company = crm.create("company", name="Northwind")     the id of the new record
    crm.update("company", company, employees=12)          modified moves; nothing where nothing changes
    crm.recalculate("company", company, health=0.4)       a calculated field: modified does not move
    crm.delete("company", company); crm.undelete(…)       archived, and back
    crm.merge("company", winner, loser)                   the loser is archived and says into what
    crm.purge("company", company)                         gone for good, also from the recycle bin
    crm.associate(("contact", 3), ("company", 9), "Primary"); crm.dissociate(…)      no record's modified moves
    crm.add_field("company", Field("tier", "text", custom=True)); remove_field; retype_field
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.crm_schema import HISTORY_FIELDS, OF_ACCOUNT, PARTS, SCHEMA, Field, Type

Doing = Literal["create", "update", "delete", "undelete", "merge", "purge", "associate", "dissociate", "recalculate"]
End = tuple[str, int]


@dataclass(slots=True, eq=False)
class Record:
    """`id` counts from 1 within its kind and never repeats. `values` lack what was never set."""

    kind: str
    id: int
    created: int
    modified: int
    values: dict[str, Any]
    archived_at: int | None = None
    merged_into: int | None = None
    merged_at: int | None = None
    created_by: int = 1  # ids of users
    modified_by: int = 1

    @property
    def archived(self) -> bool:
        return self.archived_at is not None


@dataclass(slots=True, eq=False)
class Association:
    """A link between two records, in the order of `crm_schema.ASSOCIATED`, with a label or none."""

    id: int
    source: End
    target: End
    label: str | None
    created: int
    modified: int
    archived_at: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened to a record in life (never in the history before the anchor).

    fields    names and new values of what changed; of a new record all of them
    other     the merged record, or the other end of an association
    """

    number: int
    at: int
    doing: Doing
    kind: str
    id: int
    fields: dict[str, Any] = field(default_factory=dict)
    other: End | None = None
    label: str | None = None


class Crm:
    """Not thread-safe: the world's lock is held around every use."""

    def __init__(self, business: Business) -> None:
        self.business = business
        self.fields: dict[str, list[Field]] = {kind: list(fields) for kind, fields in SCHEMA.items()}
        for kind, more in OF_ACCOUNT.get(business.profile.name, {}).items():
            self.fields[kind] += more
        self.tables: dict[str, dict[int, Record]] = {kind: {} for kind in SCHEMA}
        self.associations: dict[int, Association] = {}
        self.changes: list[Change] = []
        self.listeners: list[Callable[[Change], None]] = []
        self.known = 0  # customers of the business up to this place have their companies
        self.happened = 0  # how often chance was asked
        self._by_ends: dict[tuple[End, End], Association] = {}
        self._of: dict[End, list[Association]] = {}
        self._ids: dict[str, int] = dict.fromkeys(SCHEMA, 0)
        self._last_association = 0

    @property
    def now(self) -> int:
        return self.business.now * 1000

    # Reading

    def records(self, kind: str, *, archived: bool | None = False) -> Iterator[Record]:
        """In the order of their ids: those that are there, the archived, or (None) both."""
        table = self.tables[kind].values()
        return iter(table) if archived is None else (each for each in table if each.archived is archived)

    def get(self, kind: str, id: int) -> Record | None:
        """The record, also when it is archived."""
        return self.tables[kind].get(id)

    def field(self, kind: str, name: str) -> Field | None:
        return next((each for each in self.fields[kind] if each.name == name), None)

    def associated(self, kind: str, id: int, to: str) -> list[tuple[int, str | None]]:
        """(id, label) of the records of kind `to` that are linked with this one, whichever end it is."""
        here = (kind, id)
        found = []
        for each in self._of.get(here, ()):
            other = each.target if each.source == here else each.source
            if each.archived_at is None and other[0] == to and self._there(other):
                found.append((other[1], each.label))
        return found

    def links(self, source: str, target: str, *, archived: bool | None = False) -> Iterator[Association]:
        """The associations from one kind to another, in the order they were made."""
        for each in self.associations.values():
            wanted = archived is None or (each.archived_at is not None) is archived
            if wanted and (each.source[0], each.target[0]) == (source, target):
                yield each

    def _there(self, end: End) -> bool:
        record = self.get(*end)
        return record is not None and not record.archived

    # Changing records

    def add(self, kind: str, at: int, values: dict[str, Any], modified: int | None = None) -> Record:
        """A record of the history: nobody is told."""
        self._ids[kind] += 1
        id = self._ids[kind]
        record = Record(kind, id, at, at if modified is None else modified, values)
        self.tables[kind][id] = record
        return record

    def create(self, kind: str, **values: Any) -> int:
        record = self.add(kind, self.now, self._known(kind, values))
        self._tell("create", record, fields=dict(record.values))
        return record.id

    def update(self, kind: str, id: int, **values: Any) -> None:
        record = self._record(kind, id)
        changed = {name: value for name, value in self._known(kind, values).items() if record.values.get(name) != value}
        if not changed:
            return
        if kind == "deal":
            self._keep_history(record, changed)
        record.values |= changed
        record.modified = self.now
        self._tell("update", record, fields=changed)

    def recalculate(self, kind: str, id: int, **values: Any) -> None:
        """New values of calculated fields."""
        record = self._record(kind, id)
        for name in values:
            found = self.field(kind, name)
            assert found is not None, f"no {kind}.{name}"
            assert found.calculated, f"{kind}.{name} is not calculated"
        record.values |= values
        self._tell("recalculate", record, fields=values)

    def delete(self, kind: str, id: int) -> None:
        for record in self._whole(self._record(kind, id)):
            if not record.archived:
                record.archived_at = record.modified = self.now
                self._tell("delete", record)

    def undelete(self, kind: str, id: int) -> None:
        whole = self._record(kind, id)
        archived_at = whole.archived_at
        for record in self._whole(whole):
            if record.archived and record.archived_at == archived_at and record.merged_into is None:
                record.archived_at, record.modified = None, self.now
                self._tell("undelete", record)

    def merge(self, kind: str, winner: int, loser: int) -> None:
        """What referred to the loser refers to the winner; the winner is modified."""
        kept, lost = self._record(kind, winner), self._record(kind, loser)
        assert len({each.id for each in (kept, lost) if not each.archived}) == 2, f"{kind} {winner} and {loser}"
        for other, fields in self.fields.items():
            for name in [each.name for each in fields if each.to == kind]:
                for record in [each for each in self.records(other) if each.values.get(name) == loser]:
                    if record is not kept:
                        self.update(other, record.id, **{name: winner})
        for link in [each for each in self._of.get((kind, loser), ()) if each.archived_at is None]:
            other_end = link.target if link.source == (kind, loser) else link.source
            self.dissociate(link.source, link.target)
            if other_end != (kind, winner):
                ends = ((kind, winner), other_end) if link.source == (kind, loser) else (other_end, (kind, winner))
                self.associate(*ends, link.label)
        lost.merged_into, lost.merged_at = winner, self.now
        lost.archived_at = lost.modified = kept.modified = self.now
        self._tell("merge", kept, other=(kind, loser))

    def purge(self, kind: str, id: int) -> None:
        """No trace is left: a hard delete, an emptied recycle bin, or a privacy deletion."""
        for record in self._whole(self._record(kind, id)):
            for link in self._of.get((record.kind, record.id), ()):
                if link.archived_at is None:
                    link.archived_at = link.modified = self.now
            del self.tables[record.kind][record.id]
            self._tell("purge", record)

    def announce(self, made: Record | Association) -> None:
        """Tells of what `add` or `link` made in life."""
        if isinstance(made, Record):
            self._tell("create", made, fields=dict(made.values), at=made.created)
        else:
            self._tell_link("associate", made, at=made.created)

    # Associations

    def link(self, source: End, target: End, label: str | None, at: int) -> Association:
        """An association of the history: nobody is told."""
        self._last_association += 1
        made = Association(self._last_association, source, target, label, at, at)
        self.associations[made.id] = self._by_ends[source, target] = made
        self._of.setdefault(source, []).append(made)
        self._of.setdefault(target, []).append(made)
        return made

    def associate(self, source: End, target: End, label: str | None = None) -> None:
        """Makes the association, or gives it another label."""
        source, target = (str(source[0]), source[1]), (str(target[0]), target[1])
        found = self._by_ends.get((source, target))
        if found is None or found.archived_at is not None:
            found = self.link(source, target, label, self.now)
        elif found.label == label:
            return
        else:
            found.label, found.modified = label, self.now
        self._tell_link("associate", found)

    def dissociate(self, source: End, target: End) -> None:
        found = self._by_ends[(source[0], source[1]), (target[0], target[1])]
        if found.archived_at is None:
            found.archived_at = found.modified = self.now
            self._tell_link("dissociate", found)

    # Fields that an account defines itself

    def add_field(self, kind: str, made: Field) -> None:
        assert self.field(kind, made.name) is None, f"{kind}.{made.name} exists"
        self.fields[kind].append(replace(made, custom=True))

    def remove_field(self, kind: str, name: str) -> None:
        """The field and its values; no record is modified."""
        self.fields[kind] = [each for each in self.fields[kind] if each.name != name]
        for record in self.tables[kind].values():
            record.values.pop(name, None)

    def retype_field(self, kind: str, name: str, type: Type) -> None:
        """The field holds values of another type from now on; those that it had are gone."""
        old = self.field(kind, name)
        assert old is not None, f"no {kind}.{name}"
        self.remove_field(kind, name)
        self.fields[kind].append(replace(old, type=type, values=()))

    # Within

    def _record(self, kind: str, id: int) -> Record:
        record = self.get(kind, id)
        assert record is not None, f"no {kind} {id}"
        return record

    def _known(self, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        names = {each.name for each in self.fields[kind]}
        assert names.issuperset(values), f"{kind} has no {', '.join(sorted(set(values) - names))}"
        return values

    def _whole(self, record: Record) -> Iterator[Record]:
        """The record, then the parts that go with it."""
        yield record
        for whole, part in PARTS:
            if whole == record.kind:
                yield from [each for each in self.records(part, archived=None) if each.values.get(whole) == record.id]

    def _keep_history(self, deal: Record, changed: dict[str, Any]) -> None:
        for name in HISTORY_FIELDS:
            if name in changed:
                old, new = deal.values.get(name), changed[name]
                self.create("deal_change", deal=deal.id, field=name, old=old, new=new, by=deal.modified_by)

    def _tell(
        self,
        doing: Doing,
        record: Record,
        fields: dict[str, Any] | None = None,
        other: End | None = None,
        at: int | None = None,
    ) -> None:
        at = self.now if at is None else at
        self._say(Change(len(self.changes), at, doing, record.kind, record.id, fields or {}, other))

    def _tell_link(self, doing: Doing, link: Association, at: int | None = None) -> None:
        at = self.now if at is None else at
        self._say(Change(len(self.changes), at, doing, *link.source, other=link.target, label=link.label))

    def _say(self, change: Change) -> None:
        self.changes.append(change)
        for listener in self.listeners:
            listener(change)
