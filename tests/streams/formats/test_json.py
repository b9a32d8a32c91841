"""JSON is stored as it came, whatever PostgreSQL takes; what it would refuse is rejected before, one by one."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnguard_pipelines.streams.formats.decoder import DEEPEST, Decoded, Undecodable
from tests.streams.formats.conftest import Stored, Taken
from tests.streams.formats.streams import decoder, document, one, reason

numbers = (
    st.integers()
    | st.integers(-(2**70), 2**70)
    | st.decimals(allow_nan=False, allow_infinity=False, places=30)
    | st.builds(lambda digits, exponent: Decimal(f"{digits}e{exponent}"), st.integers(), st.integers(-4500, 4500))
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | numbers
    | st.text()
    | st.sampled_from(["\0", "\\u0000", "a\\", "e-12345", "\U0001f600"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def text_of(value: Any, *, ascii: bool) -> str:
    """As an independent writer has it: numbers with all their digits."""
    if isinstance(value, dict):
        pairs = (
            f"{json.dumps(name, ensure_ascii=ascii)}: {text_of(each, ascii=ascii)}" for name, each in value.items()
        )
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(text_of(each, ascii=ascii) for each in value)}]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=ascii)


texts = st.builds(lambda value, ascii: text_of(value, ascii=ascii), values, st.booleans())
"""Of JSON."""
_SIGNS = '{}[]",:\\u0dDcC8e-+.E19/ \n\t\x00\x0b\x7fé' + "\ufeff"


@st.composite
def nearly(draw: st.DrawFn) -> str:
    """JSON with a few characters of it replaced."""
    text = draw(texts)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.text(_SIGNS, max_size=3)) + text[place + draw(st.integers(0, 2)) :]
    return text.replace("\0", "")  # PostgreSQL's client sends none


@given(st.lists(texts, min_size=1, max_size=10))
@settings(deadline=None, max_examples=30)
def test_what_postgresql_stores_is_what_was_sent_with_every_digit(stored: Stored, sent: list[str]) -> None:
    results = decoder().decode([text.encode() for text in sent])
    kept = [(text, each) for text, each in zip(sent, results, strict=True) if isinstance(each, Decoded)]
    read = stored([each.text for _, each in kept])
    assert read == [json.loads(text, parse_float=Decimal, parse_int=Decimal) for text, _ in kept]
    for (_, each), value in zip(kept, read, strict=True):
        assert rounded(each.document) == rounded(value)


@given(st.lists(nearly(), min_size=1, max_size=15))
@settings(deadline=None, max_examples=50)
def test_what_is_decoded_postgresql_takes_and_what_is_not_it_refuses(taken: Taken, sent: list[str]) -> None:
    results = decoder().decode([text.encode() for text in sent])
    for text, result, valid in zip(sent, results, taken(sent), strict=True):
        if isinstance(result, Undecodable) and "digits" in result.reason:
            continue  # ours is the narrower limit
        assert isinstance(result, Decoded) == valid, (text, result)


def rounded(value: Any) -> Any:
    """Numbers as doubles, where they are some."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return float(Decimal(value))
    return value


def test_a_message_that_is_wrong_is_alone_in_it() -> None:
    first, wrong, last = decoder().decode([b'{"a": 1}', b'{"a": ', b'{"a": 2}'])
    assert [first, last] == [Decoded({"a": 1}, '{"a": 1}'), Decoded({"a": 2}, '{"a": 2}')]
    assert isinstance(wrong, Undecodable)


@pytest.mark.parametrize("beside", [b"{}", b"[123456789012345678901234567890]", b'"\\u0000"'])
def test_one_that_is_strange_does_not_change_what_the_others_are(beside: bytes) -> None:
    message = b'{"b": 1.10, "a": [1e3, "\\u00e9"]}'
    assert decoder().decode([beside, message])[1] == decoder().decode([message])[0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"123456789012345678901234567890", 123456789012345678901234567890, id="beyond 64 bits"),
        pytest.param(b"[18446744073709551615, -9223372036854775808]", [2**64 - 1, -(2**63)], id="64 bits"),
        pytest.param(b"[18446744073709551616, -9223372036854775809]", [2**64, -(2**63) - 1], id="a little beyond"),
        pytest.param(b"[1e400]", [Decimal("1e400")], id="beyond a double"),
        pytest.param(b"-0.1e-400", -0.0, id="too small for a double"),
        pytest.param(b"9" * 4000, int("9" * 4000), id="4,000 digits"),
        pytest.param(b'"e-99999"', "e-99999", id="text that looks like a number"),
        pytest.param(b'{"a": 1, "a": 2}', {"a": 2}, id="a field twice"),
        pytest.param(b'"\\\\u0000"', "\\u0000", id="an escaped backslash"),
        pytest.param(b'"\\ud83d\\ude00"', "\U0001f600", id="a pair of surrogates"),
        pytest.param(b"null", None, id="null"),
    ],
)
def test_what_is_strange_and_can_be_stored(stored: Stored, value: bytes, expected: Any) -> None:
    result = one(decoder(), value)
    assert result == Decoded(expected, value.decode())
    (found,) = stored([value.decode()])
    assert found == (None if expected is None else expected) or float(found) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(b" ", "no JSON", id="blank"),
        pytest.param(b"\xff", "UTF-8", id="no UTF-8"),
        pytest.param(b'"\xed\xa0\x80"', "UTF-8", id="a surrogate as UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", "BOM", id="a byte order mark"),
        pytest.param(b'{"a": "\\u0000"}', "NUL", id="a NUL"),
        pytest.param(b'{"\\u0000": 1}', "NUL", id="a NUL in a name"),
        pytest.param(b'["\\ud800"]', "surrogate", id="half a pair"),
        pytest.param(b'["\\udc00", 123456789012345678901234567890]', "UTF-8", id="half a pair beside a long number"),
        pytest.param(b"NaN", "no JSON", id="NaN"),
        pytest.param(b"[Infinity, 1e999]", "no JSON", id="Infinity"),
        pytest.param(b"{}{}", "no JSON", id="two documents"),
        pytest.param(b"1" * 4001, "4,000 digits", id="too many digits"),
        pytest.param(b"0." + b"1" * 4001, "4,000 digits", id="too many digits after the point"),
        pytest.param(b"1e4001", "4,000 digits", id="a great exponent"),
        pytest.param(b"1e-16385", "4,000 digits", id="an exponent too small for PostgreSQL"),
        pytest.param(b"0e-99999", "4,000 digits", id="a zero of many places"),
        pytest.param(b"0e99999999999", "4,000 digits", id="a zero with an exponent that PostgreSQL refuses"),
        pytest.param(b"1e99999999999999999999", "4,000 digits", id="an exponent beyond all bounds"),
        pytest.param(b"[" * 251 + b"]" * 251, "250 levels", id="too deep"),
        pytest.param(b'{"a":' * 251 + b"1" + b"}" * 251, "250 levels", id="too deep in objects"),
        pytest.param(b"[" * 100_000, "no JSON", id="a bomb of brackets"),
        pytest.param(b"[123456789012345678901234567890" + b"[" * 100_000, "no JSON", id="a bomb beside a long number"),
        pytest.param(b"[" + b"1," * 1_000_000 + b"1]", "1,000,000 values", id="a million numbers"),
        pytest.param(
            b"[" + b"1e-9999," * 60_000 + b"1]", "500,000,000 digits", id="more than PostgreSQL can write out"
        ),
        pytest.param(b"[" + b"9E+03999," * 130_000 + b"1]", "500,000,000 digits", id="the same of great numbers"),
        pytest.param(b'\0\0\0\0\x01{"a": 1}', "schema_registry", id="in a registry's envelope"),
    ],
)
def test_what_cannot_be_stored_is_rejected_with_a_reason(value: bytes, said: str) -> None:
    assert said in reason(decoder(), value)


def test_brackets_within_text_are_no_depth() -> None:
    text = "[{" * 2000
    assert document(decoder(), json.dumps({"a": text}).encode()) == {"a": text}
    deep = "[" * (DEEPEST - 1) + "1" + "]" * (DEEPEST - 1)
    assert isinstance(one(decoder(), deep.encode()), Decoded)


@pytest.mark.parametrize("value", [["1e9999e-9999" * 100_000], [1.5e-300] * 100_000], ids=["text", "small numbers"])
def test_a_long_message_may_have_exponents(value: list[Any]) -> None:
    assert document(decoder(), json.dumps(value).encode()) == value


def test_every_message_cut_at_any_byte_is_rejected() -> None:
    message = b'{"id": "a", "n": [1.5e3, true, null], "t": "\\u00e9"}'
    cut = [message[:end] for end in range(len(message))]
    assert all(isinstance(result, Undecodable) for result in decoder().decode(cut))


def test_a_format_that_has_no_schema_can_always_be() -> None:
    decoder().check()
