"""What it can cost to hold a document against a JSON Schema, found before: the validator cannot be interrupted.

A part that is referred to several times is looked at as often, and what refers to several such parts multiplies; a
schema that contains itself more than once in the same place multiplies at each level of the document.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from math import log
from typing import Any, NamedTuple

from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.store.ingest.rejected import deeper_than
from churnguard_pipelines.streams.formats.json_schema_references import Resolver

MOST_WORK = 500_000_000
"""Parts of the schema times bytes of the message: some seconds at the worst."""
MOST_PARTS = 100_000
"""Of a schema, with all that it refers to written out in each place."""

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_IN_PLACE = ("not", "if", "then", "else")
_LISTS_IN_PLACE = ("allOf", "anyOf", "oneOf")
_MAPS_IN_PLACE = ("dependentSchemas", "dependencies")
_ANYWHERE = (
    "items", "prefixItems", "additionalItems", "unevaluatedItems", "contains", "additionalProperties",
    "unevaluatedProperties", "propertyNames",
)  # fmt: skip
_ANY = "*"
_ATOM = re.compile(
    r"\\[pP]\{?[^}]*\}?|\\.|\[(?:\\.|[^\]\\])*\]?|\(|\)|\{(?P<least>\d+)(?:,(?P<most>\d*))?\}|.", re.DOTALL
)
_A_CLASS = 50
"""States of one of Unicode's."""


class _Counted(NamedTuple):
    """``ways``: back to a part that this one is within, by the last field on the way; None where there is none on it.
    ``at_once``: the parts to which one of the latter leads, by their ``id()``."""

    parts: int
    ways: Counter[str | None]
    at_once: frozenset[int]


class Cost:
    """Of one schema. Raises ``Malformed`` for one that is too great, or contains itself without an end."""

    def __init__(self, schema: Any, resolver: Resolver) -> None:
        self._resolver = resolver
        self._ways = 1
        """At most so many times does a level of the document multiply the work."""
        self._parts = self._counted(schema)

    def is_bounded(self, message: bytes, document: Any) -> bool:
        if self._parts * len(message) > MOST_WORK:
            return False
        if self._ways == 1:
            return True
        values = 1 + sum(map(message.count, (b",", b"[", b"{")))
        levels = int(log(max(1, MOST_WORK / (self._parts * values)), self._ways + 1))
        return not deeper_than(levels + 1, document)

    def _counted(self, schema: Any) -> int:
        counted: dict[int, _Counted] = {}
        looked_at: set[int] = set()
        waiting: list[tuple[Any, Any, bool]] = [(schema, schema, False)]
        while waiting:
            part, within, complete = waiting.pop()
            if complete:
                counted[id(part)] = self._of(part, within, counted)
                looked_at.discard(id(part))
            elif isinstance(part, dict) and id(part) not in counted and id(part) not in looked_at:
                looked_at.add(id(part))
                waiting.append((part, within, True))
                waiting += [(each, document, False) for each, document, _ in self._below(part, within)]
        return counted[id(schema)].parts if isinstance(schema, dict) else 1

    def _of(self, part: Mapping[str, Any], within: Any, counted: Mapping[int, _Counted]) -> _Counted:
        parts = len(part) + sum(map(_states, _patterns(part)))
        parts += sum(
            len(part[name]) for name in ("enum", "required", "const") if isinstance(part.get(name), (list, dict))
        )
        ways: Counter[str | None] = Counter()
        at_once: frozenset[int] = frozenset()
        for each, _, field in self._below(part, within):
            if isinstance(each, dict):  # not counted yet: it is what this is a part of
                below = counted.get(id(each)) or _Counted(1, Counter({None: 1}), frozenset((id(each),)))
                parts += below.parts
                for last, number in below.ways.items():
                    ways[field if last is None else last] += number
                at_once |= below.at_once if field is None else frozenset()
        if id(part) in at_once:
            raise Malformed("it contains itself without an end")
        if parts > MOST_PARTS:
            raise Malformed(f"it has more than {MOST_PARTS:,} parts when its references are written out")
        self._ways = max(self._ways, ways[_ANY] + max((ways[each] for each in ways if each != _ANY), default=0))
        return _Counted(parts, ways, at_once)

    def _below(self, part: Mapping[str, Any], within: Any) -> Iterator[tuple[Any, Any, str | None]]:
        """Each with the document that it is part of, and the field that it is of; None for the same value's."""
        within = part if isinstance(part.get("$id"), str) else within
        for name in _REFERENCES:
            if isinstance(part.get(name), str):
                yield (*self._resolver.find(part[name], within), None)
        for field, each in _map(part, "properties"):
            yield each, within, field
        yield from ((each, within, _ANY) for _, each in _map(part, "patternProperties"))
        yield from ((each, within, _ANY) for name in _ANYWHERE for each in _one_or_more(part.get(name)))
        yield from ((each, within, None) for name in _MAPS_IN_PLACE for _, each in _map(part, name))
        yield from ((each, within, None) for name in _LISTS_IN_PLACE for each in _one_or_more(part.get(name)))
        yield from ((part[name], within, None) for name in _IN_PLACE if name in part)


def _map(part: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    found = part.get(name)
    yield from found.items() if isinstance(found, dict) else ()


def _one_or_more(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def _patterns(node: Mapping[str, Any]) -> Iterator[str]:
    properties = node.get("patternProperties")
    yield from properties if isinstance(properties, dict) else ()
    if isinstance(node.get("pattern"), str):
        yield node["pattern"]


def _states(pattern: str) -> int:
    """Of its automaton, roughly: each may have to be looked at for each character of a text."""
    outer: list[int] = []
    states = latest = 0
    for atom in _ATOM.finditer(pattern):
        match atom[0][0]:
            case "(":
                outer.append(states)
                states = latest = 0
            case ")":
                latest = states
                states += outer.pop() if outer else 0
            case "{" if atom["least"]:
                times = max(int(atom["least"][:6]), int((atom["most"] or "1")[:6]))
                states += latest * (times - 1)
                latest *= times
            case _:
                latest = _A_CLASS if atom[0][:2] in ("\\p", "\\P") else 1
                states += latest
        if states > MOST_PARTS:
            break
    return sum(outer, states)
