"""Rows of Mailchimp's as records: with a key that is unique in the account, and nothing where it says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from churnguard_pipelines.connectors.mailchimp.api import Row
from churnguard_pipelines.connectors.mailchimp.objects import MemberOptions, moments
from churnguard_pipelines.connectors.sdk import Object
from churnguard_pipelines.records import Record

KEYS: Mapping[str, tuple[str, ...]] = {
    "merge_fields": ("list_id", "merge_id"),
    "interest_categories": ("list_id", "id"),
    "interests": ("list_id", "id"),
    "segments": ("list_id", "id"),
    "tags": ("list_id", "id"),
    "segment_members": ("list_id", "segment_id", "id"),
    "email_activity": ("campaign_id", "email_id", "action", "timestamp", "url"),
    "sent_to": ("campaign_id", "email_id"),
    "unsubscribes": ("campaign_id", "email_id", "timestamp"),
}
"""What is joined to the field ``key``: most ids of Mailchimp's are unique within a list, or a campaign, only."""


class Shape:
    """How an object's rows become records."""

    def __init__(self, item: Object) -> None:
        self._moments = moments(item)
        self._key = _member_key if isinstance(item.options, MemberOptions) else _joined(KEYS.get(item.name))

    def records(self, rows: Iterable[Row], asked: int) -> list[Record]:
        """``asked`` is their version: what is read later is newer, also where no date says that it changed."""
        return [Record(self._shaped(row), asked) for row in rows]

    def _shaped(self, row: Row) -> Row:
        for *outer, last in self._moments:
            holder = found(row, outer)
            if isinstance(holder, dict) and holder.get(last) == "":
                holder[last] = None
        if self._key is not None:
            row["key"] = self._key(row)
        return row


def found(row: Any, path: Iterable[str]) -> Any:
    for name in path:
        row = row.get(name) if isinstance(row, dict) else None
    return row


def _joined(names: tuple[str, ...] | None) -> Callable[[Row], str] | None:
    """None where rows have keys of their own. A row that lacks a part gets no readable key, and is rejected."""
    if names is None:
        return None

    def key(row: Row) -> str:
        parts = [row.get(name) for name in names]
        needed = parts[:-1] if names[-1] == "url" else parts
        return "" if any(each in (None, "") for each in needed) else ":".join(str(each) for each in parts if each)

    return key


def _member_key(row: Row) -> str:
    """By the contact, who stays the same when the address changes, which the id is a digest of."""
    merges = row.get("merge_fields")
    if isinstance(merges, dict):
        row["merge_fields"] = {name: None if value == "" else value for name, value in merges.items()}
    contact = row.get("contact_id") or row.get("id")
    return f"{row['list_id']}:{contact}" if contact and row.get("list_id") else ""
