"""Messages are held against a JSON Schema; one that would take for ever, or ask elsewhere, is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.streams.formats.decoder import Decoded, Decoder, Undecodable
from tests.engine.hostile import nobody_comes
from tests.streams.formats.streams import decoder, document, one, reason

ORDER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^o-[0-9]{1,8}$"},
        "amount": {"type": "number", "minimum": 0},
        "customer": {"$ref": "#/$defs/customer"},
        "free": {"type": "object"},
    },
    "required": ["id"],
    "additionalProperties": False,
    "$defs": {
        "customer": {"type": "object", "properties": {"id": {"type": "integer"}}, "additionalProperties": False},
    },
}


def of(schema: Any, **fields: Any) -> Decoder:
    return decoder("json", format_options={"message_schema": json.dumps(schema)}, **fields)


def test_a_valid_message_is_stored_as_it_came() -> None:
    message = b'{"id": "o-1", "amount": 1234567890123456789012.10, "customer": {"id": 7}}'
    assert one(of(ORDER), message) == Decoded(json.loads(message), message.decode())


@pytest.mark.parametrize(
    ("message", "said"),
    [
        pytest.param(b"{}", "required", id="a field is missing"),
        pytest.param(b'{"id": 7}', "id: .*string", id="another type"),
        pytest.param(b'{"id": "o-1", "secret": "x"}', "secret", id="a field too many"),
        pytest.param(b'{"id": "o-1", "amount": -1}', "amount: .*minimum", id="a number too small"),
        pytest.param(b'{"id": "o-1", "customer": {"id": "canary"}}', "customer.id: a value", id="within"),
        pytest.param(b"{", "no JSON", id="no JSON"),
    ],
)
def test_an_invalid_message_is_rejected_with_a_reason_that_does_not_quote_it(message: bytes, said: str) -> None:
    found = reason(of(ORDER), message)
    assert re.search(said, found)
    assert "canary" not in found


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=5,
)
schemas: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "integer", "maximum": 2}, {"const": "a"}, {"pattern": "^a+$"}, True]),
    lambda inner: (
        st.builds(lambda each: {"items": each}, inner)
        | st.builds(lambda each: {"properties": {"a": each}, "required": ["a"]}, inner)
        | st.builds(lambda several: {"anyOf": several}, st.lists(inner, min_size=1, max_size=2))
        | st.builds(lambda each: {"type": "object", "additionalProperties": each}, inner)
        | st.builds(lambda each: {"not": each}, inner)
    ),
    max_leaves=4,
)


@given(schemas.filter(lambda each: isinstance(each, dict)), st.lists(values, min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_what_is_valid_is_valid_for_another_validator_too(schema: Any, sent: list[Any]) -> None:
    other = jsonschema.Draft202012Validator(schema)
    results = of(schema).decode([json.dumps(each).encode() for each in sent])
    assert [isinstance(each, Decoded) for each in results] == [other.is_valid(each) for each in sent]


def doubling(levels: int) -> Any:
    """Each part refers to the next one twice."""
    parts = {f"p{level}": {"anyOf": [{"$ref": f"#/$defs/p{level + 1}"}] * 2} for level in range(levels)}
    return {"$ref": "#/$defs/p0", "$defs": parts | {f"p{levels}": {"type": "string"}}}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("schema", "said"),
    [
        pytest.param("{", "no JSON", id="no JSON"),
        pytest.param("7", "no object", id="a number"),
        pytest.param('{"type": "strin"}', "no JSON Schema", id="no such type"),
        pytest.param('{"pattern": "("}', "pattern", id="no pattern"),
        pytest.param('{"pattern": "((((a{99}){99}){99}){99}){99}"}', "pattern|parts", id="an enormous pattern"),
        pytest.param('{"$ref": "#/$defs/nope"}', "not part of it", id="a reference to nothing"),
        pytest.param('{"$ref": "file:///etc/passwd"}', "not part of it", id="a reference to a file"),
        pytest.param('{"$ref": "#"}', "without an end", id="nothing but itself"),
        pytest.param('{"allOf": [{"$ref": "#"}, {"$ref": "#"}]}', "without an end", id="itself twice"),
        pytest.param(json.dumps(doubling(60)), "100,000 parts", id="a bomb of references"),
        pytest.param("[" * 300 + "]" * 300, "250 levels", id="too deep"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: str, said: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"message_schema cannot be used.*({said})"):
        decoder("json", format_options={"message_schema": schema})


def test_a_reference_to_elsewhere_is_not_fetched() -> None:
    with nobody_comes() as port:
        for name in ("$ref", "$schema"):
            with pytest.raises(InvalidConfiguration):
                of({name: f"http://127.0.0.1:{port}/schema.json"})


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("schema", "message"),
    [
        pytest.param({"pattern": "^(a+)+$"}, json.dumps("a" * 100_000 + "b"), id="a catastrophic pattern"),
        pytest.param({"pattern": "[ab]*a[ab]{900}c"}, json.dumps("ab" * 1_000_000), id="a pattern of many states"),
        pytest.param(doubling(12) | {"type": "array", "items": doubling(12)["$defs"]["p0"]}, f"[{'1,' * 99_999}1]",
                     id="many parts and many values"),
        pytest.param({"oneOf": [{"properties": {"x": {"$ref": "#"}}, "required": ["x"]}] * 2 + [{"type": "string"}]},
                     '{"x":' * 60 + "1" + "}" * 60, id="itself twice a level"),
        pytest.param({"anyOf": [{"items": {"$ref": "#"}, "minItems": 9}, {"items": {"$ref": "#"}, "maxItems": 0}]},
                     "[" * 200 + "]" * 200, id="itself twice a list"),
    ],
)  # fmt: skip
def test_what_would_take_for_ever_is_rejected(schema: Any, message: str) -> None:
    assert isinstance(one(of(schema), message.encode()), Undecodable)


def test_an_ordinary_schema_that_contains_itself_is_no_trouble() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "n": {"type": "integer"}}}
    deep: dict[str, Any] = {"n": 1}
    for _ in range(200):
        deep = {"left": deep, "right": {"n": 2}}
    assert document(of(tree), json.dumps(deep).encode()) == deep


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"field_mappings": {"total": "total:numeric"}}, "field_mappings: .*: amount, customer, free, id",
                     id="a mapping"),
        pytest.param({"key": ["customer.name"]}, "key: .*There are: id", id="within a reference"),
    ],
)  # fmt: skip
def test_a_field_that_no_message_can_have_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfiguration, match=said):
        of(ORDER, **fields).check()


def test_fields_that_may_be_there_are_not_refused() -> None:
    of(ORDER, key=["free.anything", "customer.id"]).check()
    of({"type": "object", "properties": {"id": {}}}, key=["anything"]).check()
