"""A message of CSV is one row, one of plain text a document of one field; nothing of either is lost or guessed."""

from __future__ import annotations

import csv
import io
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.streams.formats.decoder import Decoded, Undecodable
from tests.streams.formats.conftest import Stored
from tests.streams.formats.streams import decoder, document, reason

cells = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', ",", "a\nb", "\r\n", ";", "'", "", " ", "1.10"]
)


@given(
    rows=st.lists(st.lists(cells, min_size=2, max_size=4), min_size=1, max_size=20), delimiter=st.sampled_from(",;\t|")
)
@settings(deadline=None, max_examples=40)
def test_a_row_that_was_written_is_the_row_that_is_stored(
    stored: Stored, rows: list[list[str]], delimiter: str
) -> None:
    sent = [written(row, delimiter=delimiter) for row in rows]
    results = decoder("csv", format_options={"delimiter": delimiter}).decode(sent)
    assert stored([each.text for each in results if isinstance(each, Decoded)]) == [numbered(row) for row in rows]


def written(row: list[str], **options: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerow(row)
    return text.getvalue().encode()


def numbered(row: list[str]) -> dict[str, str]:
    return {f"column_{number}": cell for number, cell in enumerate(row, 1)}


def test_columns_have_the_names_that_they_are_given() -> None:
    named = decoder("csv", format_options={"columns": ["id", "name"], "delimiter": ";", "quote": "'"})
    assert document(named, b"1;'a;b'\r\n") == {"id": "1", "name": "a;b"}
    assert document(named, b"1;") == {"id": "1", "name": ""}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(b"1", "1 fields, there are 2 columns", id="too few"),
        pytest.param(b"1,2,3", "3 fields, there are 2 columns", id="too many"),
        pytest.param(b"1,2\n3,4", "more than one row", id="two rows"),
        pytest.param(b"1,2\n\n", "more than one row", id="an empty row behind it"),
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(b"\n", "empty", id="an empty row"),
        pytest.param(b'1,"2', "cannot be read", id="a quote that does not end"),
        pytest.param(b'1,"2"3', "cannot be read", id="text after a quote"),
        pytest.param(b"1,\xff", "UTF-8", id="no UTF-8"),
        pytest.param(b"1,\0", "NUL", id="a NUL"),
        pytest.param(b"," * 60_000, "50,000 fields", id="a bomb of commas"),
    ],
)
def test_what_is_no_row_is_rejected_with_a_reason(value: bytes, said: str) -> None:
    assert said in reason(decoder("csv", format_options={"columns": ["a", "b"]}), value)


def test_millions_of_rows_are_not_made_to_be_rejected() -> None:
    """Each was a list, a hundred times as large as its line break."""
    rows = b"\n" * 1_000_000
    csv_rows = decoder("csv")
    tracemalloc.start()
    try:
        assert "more than one row" in reason(csv_rows, rows)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(rows)
    finally:
        tracemalloc.stop()


def test_a_field_as_long_as_a_message_may_be() -> None:
    long = "x" * 1_000_000
    assert document(decoder("csv"), f'"{long}",1'.encode()) == {"column_1": long, "column_2": "1"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"columns": ["a", "b", "a"]}, "names a twice", id="a name twice"),
        pytest.param({"delimiter": '"'}, "cannot go together", id="one sign for both"),
        pytest.param({"delimiter": "\n"}, "cannot go together", id="a line break"),
        pytest.param({"message_schema": "{}"}, "no use for format_options.message_schema", id="a schema"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfiguration, match=said):
        decoder("csv", format_options=options)


def test_a_mapping_of_a_column_that_is_not_there_is_refused() -> None:
    options = {"columns": ["id", "amount"]}
    decoder("csv", format_options=options, field_mappings={"amount": "amount:numeric"}, key=["id"]).check()
    with pytest.raises(InvalidConfiguration, match=r"field_mappings: .*no field “amont”.*There are: amount, id"):
        decoder("csv", format_options=options, field_mappings={"amont": "amount:numeric"}).check()
    with pytest.raises(InvalidConfiguration, match=r"key: .*no field “name”.*column_1"):
        decoder("csv", key=["name"]).check()


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
@settings(deadline=None, max_examples=20)
def test_text_is_stored_as_it_is(stored: Stored, texts: list[str]) -> None:
    results = decoder("text").decode([text.encode() for text in texts])
    assert stored([each.text for each in results if isinstance(each, Decoded)]) == [{"value": text} for text in texts]


def test_text_that_cannot_be_stored_is_rejected() -> None:
    first, wrong, last = decoder("text").decode([b"a\0b", b"\xff", b"c"])
    assert [type(each) for each in (first, wrong, last)] == [Undecodable, Undecodable, Decoded]
    assert "NUL" in reason(decoder("text"), b"\0")
    with pytest.raises(InvalidConfiguration, match="There are: value"):
        decoder("text", filters=[{"field": "id", "value": 1}]).check()
