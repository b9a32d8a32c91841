"""MessagePack becomes JSON with all that it says, whatever JSON has no word for."""

from __future__ import annotations

from base64 import b64encode
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnguard_pipelines.streams.formats.decoder import Decoded, Undecodable
from tests.streams.formats.conftest import Stored
from tests.streams.formats.streams import decoder, document, reason

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts | st.binary(max_size=6)
)  # fmt: skip
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=10
)


@given(st.lists(values, min_size=1, max_size=20))
@settings(deadline=None, max_examples=40)
def test_what_another_program_packed_is_what_is_stored(stored: Stored, sent: list[Any]) -> None:
    results = decoder("msgpack").decode([msgpack.packb(each) for each in sent])
    assert stored([each.text for each in results if isinstance(each, Decoded)]) == [expected(each) for each in sent]


def expected(value: Any) -> Any:
    match value:
        case dict():
            return {name: expected(each) for name, each in value.items()}
        case list():
            return [expected(each) for each in value]
        case bytes():
            return b64encode(value).decode()
        case float() if value != value:
            return "NaN"
        case float() if value in (float("inf"), float("-inf")):
            return "Infinity" if value > 0 else "-Infinity"
        case float():
            return Decimal(repr(value))
    return value


def test_keys_that_are_no_text_are_the_text_of_them() -> None:
    packed = msgpack.packb({None: "b", True: "c", 1.5: "d", b"\xff": "e", -1: 0, "x": 1})
    assert document(decoder("msgpack"), packed) == {
        "true": "c", "null": "b", "1.5": "d", "/w==": "e", "-1": 0, "x": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(msgpack.Timestamp(0), "1970-01-01T00:00:00Z", id="the epoch"),
        pytest.param(msgpack.Timestamp(1, 1), "1970-01-01T00:00:01.000000001Z", id="a nanosecond"),
        pytest.param(msgpack.Timestamp(-1, 500_000_000), "1969-12-31T23:59:59.500Z", id="before"),
        pytest.param(msgpack.ExtType(5, b"ab"), {"type": 5, "data": "YWI="}, id="an extension"),
    ],
)
def test_timestamps_and_extensions(value: Any, shown: Any) -> None:
    assert document(decoder("msgpack"), msgpack.packb([value])) == [shown]


def nested(levels: int) -> bytes:
    return b"\x91" * levels + b"\x01"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(b"\xc1", "no MessagePack", id="a byte that is never used"),
        pytest.param(b"\x01\x01", "no MessagePack", id="two values"),
        pytest.param(b"\xa1\xff", "UTF-8", id="text that is not UTF-8"),
        pytest.param(b"\xa1\0", "NUL", id="a NUL"),
        pytest.param(b"\x82\x01\x01\xa11\x02", "a key twice", id="two keys of one text"),
        pytest.param(b"\x81\x90\x01", "a map or an array", id="a list as a key"),
        pytest.param(b"\x81\xd4\x05a\x01", "an extension", id="an extension as a key"),
        pytest.param(b"\xc7\x0c\xff" + b"\x00" * 4 + b"\x7f" * 8, "years 1 to 9999", id="a moment far off"),
        pytest.param(nested(251), "250 levels", id="too deep"),
        pytest.param(nested(100_000), "no MessagePack", id="a bomb of arrays"),
        pytest.param(b"\xdd\xff\xff\xff\xff", "no MessagePack", id="an array of four billion"),
        pytest.param(b"\xdf\xff\xff\xff\xff", "no MessagePack", id="a map of four billion"),
        pytest.param(b"\xc6\xff\xff\xff\xff", "no MessagePack", id="four gigabytes"),
        pytest.param(b"\xdd\x00\x07\xa1\x20" + b"\x91\x90" * 500_000, "1,000,000 values", id="millions of empty lists"),
    ],
)
def test_what_cannot_be_stored_is_rejected_with_a_reason(value: bytes, said: str) -> None:
    assert said in reason(decoder("msgpack"), value)


def test_every_message_cut_at_any_byte_is_rejected() -> None:
    packed = msgpack.packb({"a": [1, 2.5, None, b"x", "text", msgpack.Timestamp(1, 5)], "b": 2**63})
    cut = [packed[:end] for end in range(len(packed))]
    assert all(isinstance(result, Undecodable) for result in decoder("msgpack").decode(cut))


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_any_bytes_are_a_document_or_rejected(value: bytes) -> None:
    (result,) = decoder("msgpack").decode([value])
    assert isinstance(result, Decoded | Undecodable)
