"""Finds what the references of a JSON Schema mean, within it and among those that it came with. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.streams.formats.decoder import DEEPEST


class Resolver:
    """``others``: by the name that the schema has for them."""

    def __init__(self, schema: Any, others: Mapping[str, Any]) -> None:
        self._schema = schema
        self._others = others
        self._named: dict[str, Any] = {}
        for document in (schema, *others.values()):
            self._learn(document)

    def retrieve(self, uri: str) -> Any:
        """Nothing is asked of what is not here."""
        found = self._document(uri)
        if found is None:
            raise ValueError("only schemas that the registry lists as its references can be referred to")
        return found

    def find(self, reference: str, within: Any) -> tuple[Any, Any]:
        """What is meant, and the document that it is part of. ``within``: the one that refers. Raises ``Malformed``."""
        name, _, fragment = reference.partition("#")
        document = self._document(name) if name else within
        if document is not None and fragment and not fragment.startswith("/"):
            found = self._named.get(f"#{fragment}")
        else:
            found = None if document is None else _pointed(document, unquote(fragment))
        if found is None:
            raise Malformed(f"it refers to “{on_one_line(reference, 100)}”, which is not part of it")
        return found, document

    def _document(self, uri: str) -> Any:
        """By its own name, or the one that others have for it."""
        return self._named.get(uri, self._others.get(uri, self._others.get(uri.rpartition("/")[2])))

    def whole(self, schemas: Sequence[Any]) -> Iterator[Any]:
        """With references followed."""
        for schema in schemas:
            for _ in range(DEEPEST):
                if not (isinstance(schema, dict) and isinstance(schema.get("$ref"), str)):
                    break
                schema, _ = self.find(schema["$ref"], self._schema)
            yield schema

    def _learn(self, document: Any) -> None:
        """Its parts that have names."""
        waiting = [document]
        while waiting:
            each = waiting.pop()
            if isinstance(each, dict):
                for word, before in (("$id", ""), ("id", ""), ("$anchor", "#"), ("$dynamicAnchor", "#")):
                    if isinstance(each.get(word), str):
                        self._named.setdefault(before + each[word].removesuffix("#"), each)
                waiting += each.values()
            elif isinstance(each, list):
                waiting += each


def _pointed(document: Any, pointer: str) -> Any:
    """https://www.rfc-editor.org/rfc/rfc6901; None where nothing is."""
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(document, list) and step.isdecimal() and len(step) < 10 and int(step) < len(document):
            document = document[int(step)]
        elif isinstance(document, dict) and step in document:
            document = document[step]
        else:
            return None
    return document
