"""A whole number of any length is the one that was sent; what is no JSON is refused by both parsers alike."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.engine.answers import Response

LONG = 123456789012345678901234567890
numbers = st.integers() | st.integers(-(2**70), 2**70) | st.sampled_from([LONG, 2**63, 2**64 - 1, 2**64, -(2**63) - 1])
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
@settings(deadline=None)
def test_what_is_read_is_what_was_written(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert exact_json.loads(text.encode()) == value
    assert exact_json.loads(exact_json.dumps(value)) == value
    if isinstance(value, dict):
        assert exact_json.dumps(value, sort_keys=True) == exact_json.dumps(
            dict(reversed(value.items())), sort_keys=True
        )


def test_a_number_too_long_for_a_number_is_its_text() -> None:
    digits = "9" * (exact_json.MOST_DIGITS + 1)
    assert exact_json.loads(f'{{"id": {digits}, "other": {digits[1:]}}}'.encode()) == {
        "id": digits,
        "other": int(digits[1:]),
    }


@pytest.mark.parametrize(
    "text",
    [
        b"1e400", b"-1e400", b"NaN", b"[Infinity]", b"-Infinity", b'"\\ud800"', b'{"\\uDC00": 1}', b'"\xff"',
        b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}", b"{}{}", b"{'a': 1}", b"[1,]", b"01", b'"\n"', b'"\x00"', b"[" * 5000,
        b'{"a":' * 100_000, b"",
    ],
)  # fmt: skip
def test_the_slow_parser_refuses_what_the_fast_one_refuses(text: bytes) -> None:
    for refused in (text, b'[123456789012345678901234567890, "", ' + text + b"]"):
        with pytest.raises(json.JSONDecodeError):
            orjson.loads(refused)
        with pytest.raises(json.JSONDecodeError):
            exact_json.loads(refused)


def test_the_last_of_two_fields_of_one_name_counts_in_both() -> None:
    assert exact_json.loads(b'{"a": 1, "a": 2}') == {"a": 2}
    assert exact_json.loads(f'{{"a": 1, "a": {LONG}}}'.encode()) == {"a": LONG}


def test_a_number_that_is_no_double_is_read_exactly_where_that_is_asked_for() -> None:
    assert exact_json.exactly(b"[1e400, 1.5, 7]") == [Decimal("1e400"), 1.5, 7]
    assert [type(each) for each in exact_json.exactly(b"[1.5, 7, -1e309]")] == [float, int, Decimal]
    for refused in (b"1e4000", b"1e-4001", b"0e-9999999999999999999999", b"1" * 4001, b"0." + b"1" * 4001, b"NaN"):
        with pytest.raises(json.JSONDecodeError):
            exact_json.exactly(refused)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text",
    [b"1" * 1_048_576, b"[" + b"1" * 3000 + (b"," + b"1" * 3000) * 349 + b"]", b'"' + b"1" * 1_048_574 + b'"',
     b"[" + b"1," * 524_287 + b"1]", b"[0." + b"1" * 1_048_576 + b"]", b'"' + b"1" * 30 + b'\\"' * 524_288 + b'"'],
)  # fmt: skip
def test_a_megabyte_of_digits(text: bytes) -> None:
    exact_json.loads(text)


def test_an_answer_of_a_provider_is_exact() -> None:
    answer = Response(200, {}, f'{{"data": [{{"id": {LONG}}}]}}'.encode(), 0.0)
    assert answer.json() == {"data": [{"id": LONG}]}
