from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.schemes.forms import fields, nested
from webhook_gateway.schemes.sdk import MalformedBody


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"a=1&b=", {"a": "1", "b": ""}),
        (b"a[b]=1&a[c][d]=2", {"a": {"b": "1", "c": {"d": "2"}}}),
        (b"a%5B0%5D=x+y&a%5B1%5D=%C3%A9", {"a": {"0": "x y", "1": "é"}}),
        (b"a[]=1&a[]=2&a[]=3", {"a": {"": ["1", "2", "3"]}}),
        (b"a=1&a=2", {"a": ["1", "2"]}),
        (b"a", {"a": ""}),
        (b"", {}),
    ],
)
def test_nested_names(body: bytes, said: dict[str, object]) -> None:
    assert nested(fields(body)) == said


@pytest.mark.parametrize(
    "body",
    [
        b"a=1&a[b]=2",
        b"a[b]=2&a=1",
        b"a=1&a=2&a[b]=3",
        b"a[=1",
        b"a]=1",
        b"[a]=1",
        b"=1",
        b"a[b]c=1",
        b"a" + b"[b]" * 64,
    ],
)
def test_names_that_contradict_or_are_not_closed(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        nested(fields(body))


@pytest.mark.parametrize("body", [b"\xff", b"a=%ff", b"a=%ed%a0%80", b"&a=1" * 5001])
def test_forms_are_utf_8_and_bounded(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        fields(body)


@given(st.dictionaries(st.text("abc", min_size=1), st.dictionaries(st.text("abc"), st.text(), min_size=1)))
def test_every_value_arrives(said: dict[str, dict[str, str]]) -> None:
    pairs = [(f"{outer}[{inner}]", value) for outer, values in said.items() for inner, value in values.items()]
    assert nested(pairs) == said
