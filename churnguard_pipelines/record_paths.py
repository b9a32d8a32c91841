"""Paths into foreign documents: the part of JSONPath (RFC 9535) that takes time in proportion to the document.

``data.customers``, ``$.data.items[*].value``, ``pages[-1].next``, ``links['a.b']``, ``groups.*``. Neither ``..`` nor
filters: what they cost is up to whoever writes the document. A ``?`` at the end says that nothing may be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LONGEST, DEEPEST = 1000, 50
"""Characters and steps of a path."""

_STEP = re.compile(
    r"""\.?(?:(?P<every>\*|\[\*\])|\[(?P<index>-?\d{1,9})\]|\['(?P<quoted>[^']+)'\]|\["(?P<double>[^"]+)"\])"""
    r"""|\.?(?P<name>[^.\[\]*'"?$\s](?:[^.\[\]'"?]*[^.\[\]'"?\s])?)"""
)
EVERY = object()
"""The step to every item of a list, or value of an object."""


@dataclass(frozen=True, slots=True)
class RecordPath:
    """``steps``: names, indices, and :data:`EVERY`. ``optional``: that nothing is there is no error."""

    text: str
    steps: tuple[Any, ...]
    optional: bool = False

    def find(self, document: Any) -> list[Any]:
        """What lies there, in the document's order; none if nothing does."""
        found = [document]
        for step in self.steps:
            found = [below for node in found for below in _below(node, step)]
        return found

    def first(self, document: Any) -> Any:
        return next(iter(self.find(document)), None)


def parse(text: str) -> RecordPath:
    """Raises ``ValueError`` saying from where on it is not understood."""
    optional = text.endswith("?")
    inner = text.removesuffix("?").removeprefix("$")
    if len(inner) > LONGEST:
        raise ValueError(f"a path has at most {LONGEST} characters")
    steps: list[Any] = []
    position = 0
    while position < len(inner):
        step = _STEP.match(inner, position)
        if step is None or (inner[position] != "." and position and step["name"]):
            known = "a path is written as data.items[0].name, or items[*].value"
            raise ValueError(f"“{inner[position:][:40]}” is not understood; {known}")
        steps.append(_of(step))
        position = step.end()
    if len(steps) > DEEPEST:
        raise ValueError(f"a path has at most {DEEPEST} steps")
    return RecordPath(text, tuple(steps), optional)


def _of(step: re.Match[str]) -> Any:
    if step["every"]:
        return EVERY
    return int(step["index"]) if step["index"] else step["quoted"] or step["double"] or step["name"]


def _below(node: Any, step: Any) -> Iterator[Any]:
    if step is EVERY:
        if isinstance(node, (dict, list)):
            yield from node.values() if isinstance(node, dict) else node
    elif isinstance(step, int):
        if isinstance(node, list) and -len(node) <= step < len(node):
            yield node[step]
    elif isinstance(node, dict) and step in node:
        yield node[step]
