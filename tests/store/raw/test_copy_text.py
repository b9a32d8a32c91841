"""What goes into COPY comes out of the table, whatever it contains."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.store.raw.copy_text import PART_BYTES, PART_ROWS, encode, parts

TEXT = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
TRICKY = st.none() | st.text("\t\n\r\\\x1d\x1e\x1f\bNab.é🙂", max_size=6)
NUMBER = st.none() | st.integers(-(2**63), 2**63 - 1)


@pytest.fixture
def scratch(server_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server_url) as connection:
        connection.execute("CREATE TEMPORARY TABLE scratch (a text, n bigint, b text, row serial)")
        yield connection


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(TEXT | TRICKY, NUMBER, TEXT | TRICKY), max_size=8))
def test_every_value_comes_back_as_it_was(scratch: psycopg.Connection, rows: list[tuple[object, ...]]) -> None:
    scratch.execute("TRUNCATE scratch")
    with scratch.cursor().copy("COPY scratch (a, n, b) FROM STDIN") as copy:
        copy.write(encode(rows, text_columns={0, 2}))
    assert scratch.execute("SELECT a, n, b FROM scratch ORDER BY row").fetchall() == rows


@pytest.mark.parametrize("value", ["a\0b", "half a \ud800 pair"])
def test_what_postgresql_cannot_hold_is_refused_before_anything_is_sent(value: str) -> None:
    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        encode([("fine", 1, None), (value, 2, None)], text_columns={0, 2})


@pytest.mark.parametrize(
    ("rows", "length"), [(0, 1), (1, 1), (PART_ROWS + 1, 1), (40, PART_BYTES // 8), (5, 3 * PART_BYTES)]
)
def test_many_rows_come_in_parts_and_large_ones_in_smaller_parts(rows: int, length: int) -> None:
    """What is encoded at once is copied some times: all of a batch of large rows would take that often its size."""
    made = [("x" * length, number, None) for number in range(rows)]
    told = list(parts(made, {0, 2}))
    assert b"".join(told) == encode(made, {0, 2})
    assert all(part.count(b"\n") == 1 or (len(part) <= PART_BYTES and part.count(b"\n") <= PART_ROWS) for part in told)
