"""Reads change events: what happened to which records, and which fields changed.

The fields that changed come as bitmaps over the event's schema: ``0x…`` of its own fields, the lowest bit the first,
and ``5-0x…`` of the fields within the one of the bit 5, a name or an address.
https://developer.salesforce.com/docs/platform/pub-sub-api/guide/event-deserialization-considerations.html
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import orjson

LONGEST_SCHEMA = 2**21  # characters
_HEADER = "ChangeEventHeader"
_BITS = re.compile(r"(?:(\d{1,5})-)?0x([0-9A-Fa-f]{1,4096})", re.ASCII)
_ID = re.compile(r"(?!0{15})[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?", re.ASCII)
_LAST = 253_402_300_800_000  # milliseconds: the end of the year 9999
_PRIMITIVES = frozenset(("boolean", "int", "long", "float", "double", "bytes", "string"))
"""None of them takes no room: what is read of an event is bounded by its size."""


class Unreadable(Exception):
    """An event, or its schema, that is not what Salesforce describes."""


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """``doing``: CREATE, UPDATE, DELETE, UNDELETE, or one of them after GAP\\_: Salesforce cannot say what changed.
    ``ids``: of the records; none where it does not say which, as in GAP_OVERFLOW. ``at``: when it was committed, in
    milliseconds. ``changed``: names of fields, those within another one after its name: ``MailingAddress.City``."""

    object: str
    doing: str
    ids: tuple[str, ...]
    at: int
    changed: frozenset[str]


class Schema:
    """Of one object's events as its fields were at the time. Raises :class:`Unreadable`."""

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST_SCHEMA:
            raise Unreadable("a schema that is too long")
        try:
            told = orjson.loads(text)
            self._fields = _fields_of(told)
            self._parsed = fastavro.parse_schema(told)
        except Unreadable:
            raise
        except Exception as error:  # whatever a stranger's schema brings about
            raise Unreadable(f"a schema that is none ({type(error).__name__})") from None

    def read(self, payload: bytes) -> ChangeEvent:
        try:
            record: Any = fastavro.schemaless_reader(io.BytesIO(payload), self._parsed, None)
            header = record[_HEADER]
            ids = [str(each) for each in header["recordIds"]]
            bitmaps = [*header["changedFields"], *header.get("nulledFields", ()), *header.get("diffFields", ())]
            if not 0 <= header["commitTimestamp"] < _LAST:
                raise Unreadable("an event of no moment")
            return ChangeEvent(
                str(header["entityName"]), str(header["changeType"]),
                tuple(ids) if all(map(_ID.fullmatch, ids)) else (),
                int(header["commitTimestamp"]), self.named(bitmaps),
            )  # fmt: skip
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable(f"an event that does not fit its schema ({type(error).__name__})") from None

    def named(self, bitmaps: Sequence[str]) -> frozenset[str]:
        """The fields whose bits are set."""
        found: set[str] = set()
        for text in bitmaps:
            match = _BITS.fullmatch(text)
            if match is None:
                raise Unreadable("a bitmap that is none")
            place, bits = match[1], int(match[2], 16)
            if place is None:
                found.update(name for name, _ in _chosen(self._fields, bits))
                continue
            if int(place) >= len(self._fields):
                raise Unreadable("a bitmap of a field that is not there")
            outer, within = self._fields[int(place)]
            found.update(f"{outer}.{name}" for name in _chosen(within, bits))
        return frozenset(found)


def _chosen(fields: Sequence[Any], bits: int) -> list[Any]:
    if bits >> len(fields):
        raise Unreadable("a bitmap of a field that is not there")
    return [field for place, field in enumerate(fields) if bits >> place & 1]


def _fields_of(told: Any) -> list[tuple[str, tuple[str, ...]]]:
    """The event's fields in order, each with those within it. Refuses what could be read without an end: records within
    records, and what takes no room in an event."""
    known: dict[str, tuple[str, ...]] = {}
    found = [(str(each["name"]), _within(each["type"], known, top=True)) for each in told["fields"]]
    if told["type"] != "record" or not found or found[0][0] != _HEADER:
        raise Unreadable("a schema of something else than a change")
    return found


def _within(kind: Any, known: dict[str, tuple[str, ...]], *, top: bool = False) -> tuple[str, ...]:
    """``known``: the types that were given a name so far, without their namespaces."""
    if isinstance(kind, list):  # a union
        inner = [_within(each, known, top=top) for each in kind if each != "null"]
        return next((names for names in inner if names), ())
    if isinstance(kind, str):
        names = () if kind in _PRIMITIVES else known.get(_bare(kind))
        if names is None or (names and not top):
            raise Unreadable("a type that nobody knows")
        return names
    form = kind["type"]
    if form in _PRIMITIVES or (form == "array" and kind["items"] in _PRIMITIVES):
        return ()
    if form not in ("enum", "record") or (form == "record" and not (top and kind["fields"])):
        raise Unreadable("a type that no change has")
    names = ()
    if form == "record":
        names = tuple(str(each["name"]) for each in kind["fields"])
        for each in kind["fields"]:
            _within(each["type"], known)
    name = _bare(str(kind["name"]))
    if name in known:
        raise Unreadable("two types of one name")
    known[name] = names
    return names


def _bare(name: str) -> str:
    return name.rpartition(".")[2]
