from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhook_gateway.schemes import scheme
from webhook_gateway.schemes.bodies import DEPTH, digest, entity, parsed, parsed_batch, scalar, storable
from webhook_gateway.schemes.sdk import MOST_EVENTS, Delivery, MalformedBody, TooManyEvents


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def accepted(body: bytes) -> bool:
    try:
        parsed(body)
    except MalformedBody:
        return False
    return True


def nest(levels: int, inner: Any) -> Any:
    for level in range(levels):
        inner = {"a": inner, "[": "{"} if level % 2 else [inner, [], '"]}', "\\"]
    return inner


@given(
    st.recursive(
        st.none() | st.integers() | st.text(alphabet='[]{}"\\a') | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='[]{}"\\a'), inner),
    ),
    st.integers(0, 2 * DEPTH),
)
@settings(max_examples=200, deadline=None)
def test_json_is_taken_exactly_to_the_depth(inner: Any, levels: int) -> None:
    value = nest(levels, inner)
    assert accepted(json.dumps(value).encode()) == (depth(value) <= DEPTH)


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}"), ('[[],"[",{"a":', "}]")])
def test_the_deepest_that_is_taken(opened: str, closed: str) -> None:
    levels = DEPTH // len(closed)
    for inner, taken in (("1", True), ("[]", False), ('"["', True)):
        assert accepted(f"{opened * levels}{inner}{closed * levels}".encode()) == taken


def test_wide_json_is_not_deep() -> None:
    value = [{"a": [1, {"b": "]"}]} for _ in range(5000)]
    assert parsed(json.dumps(value).encode()) == value


@pytest.mark.parametrize("length", [*range(32_760, 32_770), *range(65_525, 65_540), 500_000])
def test_it_is_as_deep_behind_a_long_string(length: int) -> None:
    for levels in (DEPTH - 1, DEPTH):
        value = ['"[' * (length // 2), nest(levels - 1, []) if levels % 2 else [nest(levels - 2, [])]]
        assert accepted(json.dumps(value).encode()) == (depth(value) <= DEPTH)


def test_an_array_of_too_many_objects_is_not_read() -> None:
    """What is inside an event, or in its strings, is none."""
    one = {"event": "open", "inside": [{}, {"a": {}}], "text": '{"{}'}
    assert len(parsed_batch(json.dumps([one] * MOST_EVENTS).encode())) == MOST_EVENTS
    with pytest.raises(TooManyEvents):
        parsed_batch(json.dumps([one] * (MOST_EVENTS + 1)).encode())


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", [b"[", b"]", b"{", b'{"a":', b"[]", b'"', b'\\"', b'"\\', b'["\\"', b"[\\", b'[{"":'], ids=repr
)
def test_a_megabyte_of_anything_is_refused_quickly(unit: bytes) -> None:
    assert not accepted(unit * (1_048_576 // len(unit)))


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"NaN", b"[Infinity]", b"1e999", b"{'a':1}", b'{"a":1,}', b"{}{}", b"{}\x00", b'"\x00"',
        b"\xef\xbb\xbf{}", b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\xc0\x80"', "{}".encode("utf-16"),
        b"// x\n{}", b"nul", b"01", b'"a',
    ],
)  # fmt: skip
def test_json_is_strict(body: bytes) -> None:
    assert not accepted(body)


def test_whole_numbers_beyond_64_bits_are_exact_as_ids_and_in_what_is_stored() -> None:
    long = 123456789012345678901234567890
    body = f'[{{"eventId":{long},"objectId":{long + 1},"subscriptionType":"contact.creation"}}]'.encode()
    (event,) = scheme("hubspot").events(Delivery("POST", "", {}, body, 0.0))
    assert event.id == f"{long}:::"
    assert event.entity == f"contact:{long + 1}"
    assert f"[{event.payload}]".encode() == body
    one, other = (
        scheme("sendgrid").events(Delivery("POST", "", {}, f'[{{"event":"open","n":{n}}}]'.encode(), 0.0))[0].id
        for n in (long, long + 1)
    )
    assert one != other


def test_a_refusal_does_not_quote_the_body() -> None:
    with pytest.raises(MalformedBody) as refused:
        parsed(b'{"token": sk_live_secret}')
    assert "sk_live" not in str(refused.value)
    assert refused.value.__cause__ is None


@given(st.text(st.characters(codec=None)))
def test_what_cannot_be_stored_is_hashed(text: str) -> None:
    kept = storable(text)
    kept.encode()
    assert len(kept) <= 200
    assert kept == text or len(kept) == 64
    assert storable(kept) == kept


@given(st.lists(st.text(st.characters(codec=None))), st.lists(st.text(st.characters(codec=None))))
def test_a_digest_is_of_its_parts(first: list[str], second: list[str]) -> None:
    assert (digest(*first) == digest(*second)) == (first == second)


def test_scalars() -> None:
    values: list[Any] = ["a", 5, -1, "", None, True, 1.5, [], {}]
    assert [scalar(value) for value in values] == ["a", "5", "-1", *[""] * 6]
    assert entity("contact", 0) == "contact:0"
    assert entity("contact", None) == ""
