"""A portal of a few lines behind the stand-in: one type of records, its list, its search with a late index, its
batches, its recycle bin; and associations. What it does that no sane provider does, a test makes it do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.connectors.hubspot.conftest import NOW, Row, iso
from tests.connectors.standin import Query, StandIn

CAP = 10_000
REFUSED_CAP = {
    "status": "error", "category": "VALIDATION_ERROR",
    "message": "The maximum number of results is 10000. Paging beyond it is not supported.",
}  # fmt: skip


@dataclass
class Entry:
    """A record. Times in milliseconds; ``indexed``: from when on search shows its latest state."""

    id: int
    values: dict[str, Any]
    created: int
    modified: int
    indexed: int = 0
    archived_at: int | None = None


@dataclass
class Portal:
    """``modified``: the property that search sorts by. ``sloppy``: milliseconds before a span that search shows too."""

    provider: StandIn
    type: str
    modified: str = "hs_lastmodifieddate"
    sloppy: int = 0
    records: dict[int, Entry] = field(default_factory=dict)
    aliases: dict[int, int] = field(default_factory=dict)
    searches: list[dict[str, Any]] = field(default_factory=list)
    lists: list[Query] = field(default_factory=list)
    pairs: dict[tuple[str, str], dict[int, dict[int, list[Row]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        says, base = self.provider.says, f"/crm/v3/objects/{self.type}"
        says[base] = [self._list]
        says[f"{base}/search"] = [self._search]
        says[f"{base}/batch/read"] = [self._batch]

    @property
    def now(self) -> int:
        return (self.provider.now or 0) * 1000

    def passes(self, *, seconds: float = 0, hours: float = 0) -> None:
        self.provider.now = int((self.provider.now or 0) + seconds + hours * 3600)

    def has_properties(self, *listed: Row) -> None:
        self.provider.says[f"/crm/v3/properties/{self.type}"] = [{"results": list(listed)}]

    def put(self, id: int, *, at: int | None = None, created: int | None = None, lag: int = 0, **values: Any) -> Entry:
        """Make or change a record ``at`` that moment; its index shows it ``lag`` milliseconds later."""
        at = self.now if at is None else at
        before = self.records.get(id)
        values = (before.values if before else {}) | values
        first = before.created if before else (created if created is not None else at)
        self.records[id] = entry = Entry(id, values, first, at, at + lag)
        return entry

    def archive(self, id: int) -> None:
        self.records[id].archived_at = self.now

    def restore(self, id: int) -> None:
        """It has its old modification date again."""
        self.records[id].archived_at = None

    def merge(self, winner: int, loser: int) -> None:
        self.put(winner, hs_merged_object_ids=str(loser))
        del self.records[loser]
        self.aliases[loser] = winner

    def relate(self, target: str, source_id: int, target_id: int, *labels: str | None) -> None:
        types = [
            {"category": "HUBSPOT_DEFINED", "typeId": n, "label": label} for n, label in enumerate(labels or (None,))
        ]
        self.pairs.setdefault((self.type, target), {}).setdefault(source_id, {})[target_id] = types
        self.provider.says[f"/crm/v4/associations/{self.type}/{target}/batch/read"] = [
            lambda query: self._associations(target, query["body"])
        ]

    def unrelate(self, target: str, source_id: int, target_id: int) -> None:
        del self.pairs[self.type, target][source_id][target_id]

    # --- what it answers

    def _shown(self, entry: Entry, properties: Any = None) -> Row:
        own = {"hs_object_id": str(entry.id), self.modified: iso(entry.modified), "createdate": iso(entry.created)}
        values = own | entry.values
        if properties is not None:
            values = {name: values.get(name) for name in properties}
        archived = entry.archived_at is not None
        return {
            "id": str(entry.id), "properties": values, "createdAt": iso(entry.created),
            "updatedAt": iso(entry.modified), "archived": archived,
            **({"archivedAt": iso(entry.archived_at)} if entry.archived_at is not None else {}),
        }  # fmt: skip

    def _list(self, query: Query) -> Any:
        self.lists.append(query)
        archived, after = query.get("archived") == ["true"], int(query.get("after", ["0"])[0])
        wanted = query["properties"][0].split(",") if "properties" in query else None
        size = int(query["limit"][0])
        there = sorted(
            (each for each in self.records.values() if (each.archived_at is not None) == archived and each.id > after),
            key=lambda each: each.id,
        )
        page = there[:size]
        following = {"paging": {"next": {"after": str(page[-1].id)}}} if len(there) > size else {}
        return {"results": [self._shown(each, wanted) for each in page], **following}

    def _batch(self, query: Query) -> Any:
        body = query["body"]
        assert len(body["inputs"]) <= 100
        archived = query.get("archived") == ["true"]
        ids = dict.fromkeys(self.aliases.get(int(each["id"]), int(each["id"])) for each in body["inputs"])
        found = [self.records[id] for id in ids if id in self.records]
        rows = [self._shown(each, body["properties"]) for each in found if (each.archived_at is not None) == archived]
        return (200 if len(rows) == len(body["inputs"]) else 207), {"status": "COMPLETE", "results": rows}

    def _search(self, query: Query) -> Any:
        body = query["body"]
        self.searches.append(body)
        filters = body["filterGroups"][0]["filters"]
        if any(each["operator"] in ("GTE", "GT") and each["value"] == "0" and each["propertyName"] != "hs_object_id"
               for each in filters):  # fmt: skip
            return 500, {"status": "error", "message": "internal error"}
        first, size = int(body.get("after", 0)), body["limit"]
        if first + size > CAP:
            return 400, REFUSED_CAP
        found = [each for each in self.records.values() if self._matches(each, filters)]
        order = body["sorts"][0]["propertyName"] if body.get("sorts") else "hs_object_id"
        found.sort(key=lambda each: each.id if order == "hs_object_id" else self._value(each, order))
        rows = [self._shown(each, body["properties"]) for each in found[first : first + size]]
        return {"total": len(found), "results": rows}

    def _matches(self, entry: Entry, filters: list[Row]) -> bool:
        if entry.archived_at is not None or entry.indexed > self.now:
            return False
        for each in filters:
            told, wanted = self._value(entry, each["propertyName"]), int(each["value"])
            if each["operator"] == "GTE" and told < wanted - self.sloppy:
                return False
            if each["operator"] == "GT" and told <= wanted:
                return False
            if each["operator"] == "LTE" and told > wanted:
                return False
        return True

    def _value(self, entry: Entry, name: str) -> int:
        return {"hs_object_id": entry.id, self.modified: entry.modified}.get(name, entry.created)

    def _associations(self, target: str, body: Row) -> Any:
        assert len(body["inputs"]) <= 1000
        rows, errors = [], []
        for each in body["inputs"]:
            found = self.pairs[self.type, target].get(int(each["id"]))
            if not found:
                errors.append({"status": "error", "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND"})
                continue
            pairs = list(found.items())[int(each.get("after", 0)) :]
            more = {"paging": {"next": {"after": str(int(each.get("after", 0)) + 3)}}} if len(pairs) > 3 else {}
            to = [{"toObjectId": id, "associationTypes": types} for id, types in pairs[:3]]
            rows.append({"from": {"id": each["id"]}, "to": to, **more})
        return (207 if errors else 200), {"status": "COMPLETE", "results": rows, "errors": errors}


def property_of(name: str, type: str = "string", **told: Any) -> Row:
    return {"name": name, "type": type, "label": name.title(), "calculated": False, "options": [], **told}


LONG_AGO = (NOW - 30 * 86_400) * 1000


def deals_of(provider: StandIn) -> Portal:
    """A portal of deals with one property of most kinds."""
    made = Portal(provider, "deals")
    made.has_properties(
        property_of("dealname"), property_of("amount", "number"), property_of("closedate", "datetime"),
        property_of("hs_merged_object_ids", "enumeration"), property_of("days_to_close", "number", calculated=True),
        property_of("hs_lastmodifieddate", "datetime"), property_of("tier", "enumeration", options=[{"value": "gold"}]),
    )  # fmt: skip
    return made
