"""What events of Salesforce's make of records: outbound messages, and change events.

Neither tells a whole record: a message has the fields that somebody chose for it, a change event those that changed. So
both only name records, which are then asked for as they are; but that one was deleted is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from churnguard_pipelines.connectors.salesforce.describe import Description
from churnguard_pipelines.connectors.salesforce.reading import SalesforceReader
from churnguard_pipelines.connectors.sdk import Object
from churnguard_pipelines.errors import ProviderMisbehaved, RequestRefused
from churnguard_pipelines.records import Deletion, Record

Event = Mapping[str, Any]
Changes = tuple[Sequence[Record], Sequence[Deletion]]


def object_of(event: Event) -> str | None:
    """The name of the object that the event is about; whether we read it is another matter."""
    told = event.get("sObject")
    named = told.get("type") if isinstance(told, dict) else event.get("object")
    return named if isinstance(named, str) else None


class EventReader:
    """``describe``: what the account says of an object; ``anew``: asked now, not remembered."""

    def __init__(self, reader: SalesforceReader, describe: Callable[..., Description]) -> None:
        self._reader = reader
        self._describe = describe
        self._unknown: dict[str, frozenset[str]] = {}  # fields that changed and that the user may not see

    def changes(self, item: Object, events: Sequence[Event]) -> Changes:
        at: dict[str, int] = {}
        last: dict[str, str] = {}
        changed: set[str] = set()
        for event in events:
            changed.update(event.get("changed", ()))
            for key in event["ids"] if "ids" in event else (_id_of(event),):
                at[key] = max(at.get(key, 0), event.get("at", 0))
                last[key] = event.get("change", "UPDATE").removeprefix("GAP_")
        gone, back = ({key for key, doing in last.items() if doing == which} for which in ("DELETE", "UNDELETE"))
        self._know(item, changed)
        try:
            return self._reader.changed(item, at, gone, back)
        except RequestRefused:
            before = self._describe(item.name).digest
            if self._describe(item.name, anew=True).digest == before:
                raise
            return self._reader.changed(item, at, gone, back)  # a field was removed or hidden meanwhile

    def _know(self, item: Object, changed: set[str]) -> None:
        """A field that was made a moment ago comes with the first change of it."""
        known = self._unknown.get(item.name, frozenset())
        if self._strange(item, changed) - known:
            self._describe(item.name, anew=True)
            self._unknown[item.name] = known | self._strange(item, changed)

    def _strange(self, item: Object, changed: set[str]) -> frozenset[str]:
        """Own fields that are not described; those of a name or an address have other names there."""
        about = self._describe(item.name)
        return frozenset(name for name in changed if name.endswith("__c") and "." not in name and not about.has(name))


def _id_of(event: Event) -> str:
    told = event["sObject"].get("Id")
    if not isinstance(told, str) or not told:
        raise ProviderMisbehaved("Salesforce sent an outbound message without the record's Id.")
    return told
