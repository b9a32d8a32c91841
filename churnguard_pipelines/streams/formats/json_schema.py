"""JSON whose messages must be valid by a JSON Schema, drafts 4 to 2020-12.

A schema is a stranger's, and so is what it is held against: patterns take time in proportion to the text, nothing is
fetched, and what both together may cost is bounded before. The validator cannot be interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jsonschema_rs

from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.store.ingest.rejected import deeper_than
from churnguard_pipelines.streams.formats.decoder import DEEPEST, Decoded, Undecodable
from churnguard_pipelines.streams.formats.json import decoded
from churnguard_pipelines.streams.formats.json_schema_cost import Cost
from churnguard_pipelines.streams.formats.json_schema_references import Resolver
from churnguard_pipelines.streams.formats.registry import Source
from churnguard_pipelines.streams.formats.schemas import Schema

_PATTERNS = jsonschema_rs.RegexOptions(size_limit=1 << 17, dfa_size_limit=1 << 22)


class JsonSchema(Schema):
    def __init__(self, source: Source) -> None:
        self._schema = _document(source.text)
        others = {name: _document(text) for name, text in source.references.items()}
        self._references = Resolver(self._schema, others)
        self._cost = Cost(self._schema, self._references)
        try:
            self._validator = jsonschema_rs.validator_for(
                self._schema,
                retriever=self._references.retrieve,
                pattern_options=_PATTERNS,
                mask="a value",
            )
        except jsonschema_rs.ValidationError as error:
            raise Malformed(f"it is no JSON Schema that can be used; {_told(error)}") from None
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise Malformed(f"it is no JSON Schema that can be used; {on_one_line(str(error), 300)}") from None

    def decoded(self, message: bytes) -> Decoded | Undecodable:
        found = decoded(message)
        if isinstance(found, Undecodable):
            return found
        if not self._cost.is_bounded(message, found.document):
            return Undecodable("it is too long or too deep to be held against a JSON Schema of so many parts")
        try:
            self._validator.validate(found.document)
        except jsonschema_rs.ValidationError as error:
            return Undecodable(f"it is not valid by its JSON Schema: {_told(error)}")
        except (ValueError, TypeError, OverflowError) as error:
            return Undecodable(f"it cannot be held against its JSON Schema ({type(error).__name__})")
        return found

    def missing(self, path: Sequence[str]) -> Sequence[str] | None:
        """Only of objects that may have no other fields than those that are named."""
        found = [self._schema]
        for name in path:
            whole = [*self._references.whole(found)]
            if not whole or any(_is_open(each) for each in whole):
                return None
            named: dict[str, Any] = {}
            for each in whole:
                named |= each["properties"]
            if name not in named:
                return list(named)
            found = [each["properties"][name] for each in whole if name in each["properties"]]
        return None


def _is_open(schema: Any) -> bool:
    """Whether an object of it may have fields that it does not name, or be composed of several."""
    return not (
        isinstance(schema, dict)
        and isinstance(schema.get("properties"), dict)
        and schema.get("additionalProperties") is False
        and not schema.get("patternProperties")
        and not {"allOf", "anyOf", "oneOf", "if"} & set(schema)
    )


def _told(error: jsonschema_rs.ValidationError) -> str:
    place = ".".join(map(str, error.instance_path))
    words = on_one_line(" ".join(error.message.split()), 300)
    return f"{on_one_line(place, 200)}: {words}" if place else words


def _document(text: str) -> Any:
    try:
        document = exact_json.loads(text.encode())
    except json.JSONDecodeError:
        raise Malformed("it is no JSON") from None
    if not isinstance(document, (dict, bool)) or deeper_than(DEEPEST, document):
        raise Malformed(f"it is no object, or nested deeper than {DEEPEST} levels")
    return document
