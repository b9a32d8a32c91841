"""A portal filled from the business's CRM, and kept as it: its history silently, its life change by change."""

from __future__ import annotations

from itertools import takewhile

from churnguard_pipelines.sandbox.business.crm import Change, Crm
from churnguard_pipelines.sandbox.business.crm import Record as Source
from churnguard_pipelines.sandbox.business.crm_schema import LABELS, Field
from churnguard_pipelines.sandbox.hubspot import promotion
from churnguard_pipelines.sandbox.hubspot.associations import PRIMARY
from churnguard_pipelines.sandbox.hubspot.instants import iso
from churnguard_pipelines.sandbox.hubspot.mapping import (
    CUSTOM,
    KINDS,
    Mapped,
    Values,
    mapped,
    owner_id,
    pipeline_id,
    record_id,
    stage_id,
)
from churnguard_pipelines.sandbox.hubspot.portal import Portal, Table, absorb
from churnguard_pipelines.sandbox.hubspot.records import Property, Record


class Mirror:
    """Used under the world's lock. `follow` has to be called before anybody reads the portal."""

    def __init__(self, crm: Crm, portal: Portal) -> None:
        self._crm, self._portal = crm, portal
        self._names: dict[str, str] = {}
        self._fields: dict[str, list[Field]] = {}
        self._mapped: dict[str, dict[str, Mapped]] = {}
        self._last: dict[str, int] = dict.fromkeys(KINDS, 0)
        self._linked = 0
        self._labels: dict[tuple[str, str, str], int] = {}
        self._open()
        self._take_new(told=False)
        promotion.fill(crm, portal)
        crm.listeners.append(self._hear)

    def follow(self) -> None:
        """What came into the CRM without a word: new customers' records, and fields that an account has defined."""
        self._take_fields()
        self._take_new(told=True)

    def _open(self) -> None:
        portal, crm = self._portal, self._crm
        at = crm.business.opened * 1000
        for kind, name in KINDS.items():
            if kind == CUSTOM:
                name = portal.define_object(name, ("Workspace", "Workspaces"), [], "name").type.name
            self._names[kind] = name
        self._take_fields()
        companies = portal.tables["companies"]
        companies.properties["num_associated_contacts"] = Property(
            "num_associated_contacts",
            "number",
            "Number of Associated Contacts",
            calculated=True,
            compute=lambda record: str(len(portal.associations.of("companies", record.id, "contacts"))),
            created=at,
            updated=at,
        )
        portal.tables["tickets"].properties["hs_pipeline"] = Property("hs_pipeline", "enumeration", "Pipeline")
        for user in crm.records("user"):
            portal.owners.append(_owner(user))
        for pipeline in crm.records("pipeline"):
            portal.pipelines.setdefault(KINDS[pipeline.values["of"]], []).append(_pipeline(crm, pipeline))
        for (source, target), labels in LABELS.items():
            for label in labels:
                self._kinds(source, target, label)

    # Definitions

    def _take_fields(self) -> None:
        for kind in KINDS:
            fields = self._crm.fields[kind]
            if fields == self._fields.get(kind):
                continue
            before, now = self._mapped.get(kind, {}), {}
            table = self._portal.tables[self._names[kind]]
            for each in fields:
                found = mapped(kind, each)
                if found is not None:
                    now[each.name] = found
            for name, found in before.items():
                if name not in now or now[name].field != found.field:
                    self._forget(table, found.name)
                if name not in now:
                    table.properties[found.name].archived_at = self._portal.clock()
            at = self._portal.clock() if before else self._crm.business.opened * 1000
            for name, found in now.items():
                if name not in before or before[name].field != found.field:
                    table.properties[found.name] = found.property(at)
            self._fields[kind], self._mapped[kind] = list(fields), now

    def _forget(self, table: Table, name: str) -> None:
        """A property that is gone, or of another type now, has no values."""
        for record in table.records.values():
            record.values.pop(name, None)

    # Records

    def _take_new(self, told: bool) -> None:
        merged: list[tuple[str, Source]] = []
        for kind in KINDS:
            for source in self._new(kind):
                self._last[kind] = source.id
                if source.merged_into is None:
                    self._add(kind, source, told)
                else:
                    merged.append((kind, source))
        for kind, source in merged:
            table = self._portal.tables[self._names[kind]]
            assert source.merged_into is not None
            table.merged[record_id(source.id)] = record_id(source.merged_into)
            survivor = table.find(record_id(source.id))
            if survivor is not None:
                absorb(survivor, record_id(source.id), "")
                table.index.put(survivor, 0)
        self._take_links(told)

    def _new(self, kind: str) -> list[Source]:
        """The records of the kind that are not known yet, in the order of their ids."""
        table, last = self._crm.tables[kind], self._last[kind]
        if last == 0:
            return [table[id] for id in table]
        return [table[id] for id in takewhile(lambda id: id > last, reversed(table))][::-1]

    def _add(self, kind: str, source: Source, told: bool) -> None:
        table = self._portal.tables[self._names[kind]]
        values = {name: value for name, value in self._values(kind, source.values).items() if value is not None}
        record = Record(record_id(source.id), table.type, source.created, source.modified, values)
        self._portal.load(record, source.archived_at, told)

    def _values(self, kind: str, values: dict[str, object]) -> Values:
        made: Values = {}
        for name, value in values.items():
            found = self._mapped[kind].get(name)
            if found is not None:
                made[found.name] = None if value is None else found.text(value)
        if kind == "ticket" and "status" in values:
            made |= self._place(values["status"])
        return made

    def _place(self, status: object) -> Values:
        """Where a ticket of this status stands in the pipeline of tickets."""
        for stage in self._crm.records("stage"):
            pipeline = self._crm.tables["pipeline"][stage.values["pipeline"]]
            if pipeline.values["of"] == "ticket" and stage.values["label"] == status:
                return {"hs_pipeline": pipeline_id(pipeline.id), "hs_pipeline_stage": stage_id(stage.id)}
        return {}

    def _take_links(self, told: bool) -> None:
        """Links of records that were taken; those made in life come as changes, and are there by then."""
        for id in range(self._linked + 1, len(self._crm.associations) + 1):
            link = self._crm.associations[id]
            one, other = self._find(*link.source), self._find(*link.target)
            if link.archived_at is None and one is not None and other is not None:
                kinds = self._kinds(link.source[0], link.target[0], link.label)
                if told:
                    self._portal.associate(one, other, *kinds, at=link.created)
                else:
                    self._portal.associations.add(one.type.name, one.id, other.type.name, other.id, kinds)
        self._linked = len(self._crm.associations)

    def _kinds(self, source: str, target: str, label: str | None) -> tuple[int, ...]:
        """The type ids of a label, which is defined when it is met first."""
        if label is None:
            return ()
        if (source, target, label) not in self._labels:
            ends = self._names[source], self._names[target]
            known = PRIMARY.get(ends) if label == "Primary" else None
            self._labels[source, target, label] = known or self._portal.associations.define(*ends, label)
        return (self._labels[source, target, label],)

    def _find(self, kind: str, id: int) -> Record | None:
        return self._portal.tables[self._names[kind]].find(record_id(id)) if kind in KINDS else None

    # Changes

    def _hear(self, change: Change) -> None:
        self._take_fields()
        if change.kind not in KINDS:
            return
        if change.doing == "create":
            self._take_new(told=True)
            return
        if change.doing in ("associate", "dissociate"):
            self._relink(change)
            return
        record = self._find(change.kind, change.id)
        if record is None or record.id != record_id(change.id):
            return  # merged away before
        portal, at = self._portal, change.at
        match change.doing:
            case "update":
                portal.update(record, self._values(change.kind, change.fields), at)
            case "recalculate":
                for name, value in self._values(change.kind, change.fields).items():
                    portal.recalculate(record, name, value)
            case "delete":
                portal.archive(record, at)
            case "undelete":
                portal.restore(record, at)
            case "purge":
                portal.erase(record, at)
            case "merge":
                loser = self._find(*change.other) if change.other else None
                if loser is not None and loser is not record:
                    portal.merge(record, loser, at=at)

    def _relink(self, change: Change) -> None:
        self._linked = len(self._crm.associations)
        assert change.other is not None
        one, other = self._find(change.kind, change.id), self._find(*change.other)
        if one is None or other is None:
            return
        if change.doing == "dissociate":
            self._portal.dissociate(one, other, at=change.at)
            return
        wanted = self._kinds(change.kind, change.other[0], change.label)
        ours = {id for (*ends, _), id in self._labels.items() if ends == [change.kind, change.other[0]]}
        self._portal.associate(one, other, *wanted, at=change.at)
        if gone := ours - set(wanted):
            self._portal.dissociate(one, other, *gone, at=change.at)


def _owner(user: Source) -> dict[str, object]:
    """Inactive ones are archived."""
    number = int(owner_id(user.id))
    return {
        "id": str(number),
        "email": user.values["email"],
        "type": "PERSON",
        "firstName": user.values["first_name"],
        "lastName": user.values["last_name"],
        "userId": number - 60_000_000 if user.values["active"] else None,
        "userIdIncludingInactive": number - 60_000_000,
        "createdAt": iso(user.created),
        "updatedAt": iso(user.modified),
        "archived": not user.values["active"],
    }


def _pipeline(crm: Crm, pipeline: Source) -> dict[str, object]:
    stages = [each for each in crm.records("stage") if each.values["pipeline"] == pipeline.id]
    dates = {"createdAt": iso(pipeline.created), "updatedAt": iso(pipeline.modified)}
    return {
        "label": pipeline.values["label"],
        "displayOrder": pipeline.values["position"],
        "id": pipeline_id(pipeline.id),
        "stages": [
            {
                "label": stage.values["label"],
                "displayOrder": stage.values["position"],
                "metadata": (
                    {
                        "isClosed": str(stage.values["closed"]).lower(),
                        "probability": f"{stage.values['probability'] / 100}",
                    }
                    if pipeline.values["of"] == "deal"
                    else {"ticketState": "CLOSED" if stage.values["closed"] else "OPEN", "isClosed": "false"}
                ),
                "id": stage_id(stage.id),
                **dates,
                "archived": False,
                "writePermissions": "CRM_PERMISSIONS_ENFORCEMENT",
            }
            for stage in stages
        ],
        **dates,
        "archived": False,
    }
