"""An Avro schema, made ready: its leaves give what JSON knows, and it is known whether a message of it can be read
without being measured before.

fastavro's reader is bounded by a message's bytes only where each value takes one: a list of a quintillion nulls takes
ten, and a value within itself a byte a level, until the process has no stack left and ends.
https://avro.apache.org/docs/1.12.0/specification/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import fastavro

from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.engine.values import NUMERIC_DIGITS
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.store.ingest.rejected import deeper_than
from churnguard_pipelines.streams.formats.decoder import DEEPEST, MOST_VALUES

Node = Any
"""Of a schema: a primitive's or another's name, a list of a union's branches, or an object with its ``type``."""

_PRIMITIVES = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))
OURS = "churnguard-"
"""Begins the names of our logical types."""
_LEAVES: Mapping[tuple[str, str | None], str] = {
    ("bytes", None): "binary",
    ("fixed", None): "binary",
    ("float", None): "number",
    ("double", None): "number",
    ("bytes", "decimal"): "decimal",
    ("fixed", "decimal"): "decimal",
    ("fixed", "uuid"): "uuid",
    ("fixed", "duration"): "duration",
    ("int", "date"): "date",
    ("int", "time-millis"): "time-millis",
    ("long", "time-micros"): "time-micros",
    **{
        ("long", f"{local}timestamp-{unit}"): f"{local}timestamp-{unit}"
        for local in ("", "local-")
        for unit in ("millis", "micros", "nanos")
    },
}
"""Our logical type by Avro's own and its logical type; one that is not known counts as none."""
_SIZES = {"uuid": 16, "duration": 12}


class AvroShape:
    """``schema``: for fastavro's reader, of a record with the one field ``value``, which takes the same bytes.
    ``must_be_measured``: a message may make more of itself than its bytes allow.

    Raises ``Malformed``.
    """

    def __init__(self, text: str, references: Mapping[str, str]) -> None:
        self.must_be_measured = False
        self._named: dict[str, Node] = {}
        self._depths: dict[str, int] = {}
        """Of the named types that are complete."""
        told: dict[str, Any] = {}
        try:
            for each in references.values():
                fastavro.parse_schema(_document(each), named_schemas=told)
            self.parsed = fastavro.parse_schema(_document(text), named_schemas=told)
            self._told = told
            self.root, _ = self._made(self.parsed)
            fields = [{"name": "value", "type": self.root}]
            self.schema = fastavro.parse_schema({"type": "record", "name": "Message", "fields": fields})
        except Malformed:
            raise
        except Exception as error:  # whatever a stranger's schema brings about
            raise Malformed(f"it is no Avro schema ({type(error).__name__}: {on_one_line(str(error), 200)})") from None

    def of(self, node: Node) -> Node:
        """What a name stands for."""
        return self._named.get(node, node) if isinstance(node, str) else node

    def missing(self, path: Sequence[str]) -> Sequence[str] | None:
        found = [self.root]
        for name in path:
            branches = [self.of(each) for node in found for each in (node if isinstance(node, list) else [node])]
            kinds = [each if isinstance(each, str) else each["type"] for each in branches]
            if "map" in kinds:
                return None
            records = [each for each, kind in zip(branches, kinds, strict=True) if kind == "record"]
            within = [field for each in records for field in each["fields"]]
            found = [field["type"] for field in within if field["name"] == name]
            if not found:
                return [field["name"] for field in within]
        return None

    def _made(self, node: Node) -> tuple[Node, int]:
        """And how many levels it has."""
        if isinstance(node, list):
            branches = [("null", 0) if each == "null" else self._made(each) for each in node]
            return [each for each, _ in branches], max((depth for _, depth in branches), default=0)
        if isinstance(node, str):
            return self._by_name(node)
        kind = node["type"]
        if isinstance(kind, (dict, list)):
            return self._made(kind)
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            below, depth = self._made(node[inner])
            return {"type": kind, inner: below}, _within_bounds(depth + 1)
        if kind in _PRIMITIVES:
            return self._leaf(kind, node), 0
        return self._new(kind, node)

    def _by_name(self, name: str) -> tuple[Node, int]:
        if name in _PRIMITIVES:
            self.must_be_measured |= name == "null"
            return self._leaf(name, {}), 0
        if name not in self._named:
            return self._made(self._told[name])
        self.must_be_measured |= name not in self._depths  # it lies within itself
        return name, self._depths.get(name, 0)

    def _new(self, kind: str, node: Node) -> tuple[Node, int]:
        name, depth = node["name"], 0
        made: dict[str, Any] = {"type": kind, "name": name}
        self._named[name] = made
        if kind == "enum":
            made["symbols"] = node["symbols"]
        elif kind == "fixed":
            made |= {"size": node["size"], **self._logical(kind, node)}
            self.must_be_measured |= made["size"] == 0
        elif kind in ("record", "error"):
            fields = [(field["name"], *self._made(field["type"])) for field in node["fields"]]
            made |= {"type": "record", "fields": [{"name": each, "type": below} for each, below, _ in fields]}
            self.must_be_measured |= not fields
            depth = _within_bounds(1 + max((below for _, _, below in fields), default=0))
        else:
            raise Malformed(f"it has a type that Avro does not, {on_one_line(str(kind), 100)}")
        self._depths[name] = depth
        return made, depth

    def _leaf(self, kind: str, node: Mapping[str, Any]) -> Node:
        logical = self._logical(kind, node)
        return {"type": kind, **logical} if logical else kind

    def _logical(self, kind: str, node: Mapping[str, Any]) -> dict[str, Any]:
        ours = _LEAVES.get((kind, node.get("logicalType")))
        if ours in _SIZES and node["size"] != _SIZES[ours]:
            ours = None
        ours = ours or _LEAVES.get((kind, None))
        if ours != "decimal":
            return {"logicalType": OURS + ours} if ours else {}
        scale = node.get("scale", 0)
        if not (isinstance(scale, int) and 0 <= scale <= NUMERIC_DIGITS):
            raise Malformed(f"it has a decimal whose scale is not from 0 to {NUMERIC_DIGITS:,}")
        return {"logicalType": OURS + ours, "scale": scale}


def measure(shape: AvroShape, message: bytes) -> None:
    """Raises ``Malformed`` for a message that is not of its schema, or has too many or too deep values."""
    _Measure(shape, message).value(shape.root, 0)


class _Measure:
    def __init__(self, shape: AvroShape, message: bytes) -> None:
        self._shape = shape
        self._message = message
        self._at = 0
        self._left = MOST_VALUES

    def value(self, node: Node, depth: int) -> None:
        self._take()
        while isinstance(node, list):
            branch = self._number()
            if not 0 <= branch < len(node):
                raise Malformed("a message that is not of its schema")
            node = node[branch]
        node = self._shape.of(node)
        kind = node if isinstance(node, str) else node["type"]
        if kind in ("record", "array", "map"):
            if depth >= DEEPEST:
                raise Malformed(f"nested deeper than {DEEPEST} levels")
            if kind == "record":
                for field in node["fields"]:
                    self.value(field["type"], depth + 1)
            else:
                self._blocks(node["items"] if kind == "array" else node["values"], depth, keys=kind == "map")
        elif kind in ("int", "long"):
            self._number()
        elif kind == "enum":
            if not 0 <= self._number() < len(node["symbols"]):
                raise Malformed("a message that is not of its schema")
        elif kind in ("bytes", "string"):
            self._skip(self._number())
        else:
            self._skip(node["size"] if kind == "fixed" else _WIDTHS[kind])

    def _blocks(self, inner: Node, depth: int, *, keys: bool) -> None:
        while count := self._number():
            if count < 0:
                count = -count
                self._number()  # its bytes
            for _ in range(count):
                if keys:
                    self._skip(self._number())
                self.value(inner, depth + 1)

    def _number(self) -> int:
        result, shift = 0, 0
        while True:
            if self._at >= len(self._message) or shift > 63:
                raise Malformed("a message that is cut")
            byte = self._message[self._at]
            self._at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (result >> 1) ^ -(result & 1)
            shift += 7

    def _skip(self, size: int) -> None:
        if not 0 <= size <= len(self._message) - self._at:
            raise Malformed("a message that is cut")
        self._at += size

    def _take(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Malformed(f"a message with more than {MOST_VALUES:,} values")


_WIDTHS = {"null": 0, "boolean": 1, "float": 4, "double": 8}


def _document(text: str) -> Any:
    try:
        document = exact_json.loads(text.encode())
    except json.JSONDecodeError:
        raise Malformed("it is no JSON") from None
    if deeper_than(DEEPEST, document):
        raise Malformed(f"it is nested deeper than {DEEPEST} levels")
    return document


def _within_bounds(depth: int) -> int:
    if depth > DEEPEST:
        raise Malformed(f"its types are nested deeper than {DEEPEST} levels")
    return depth
