"""Back-fill by windows over a list, newest first, that changes while it is read."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from threading import Barrier, Lock
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnguard_pipelines.connectors.sdk.paging import OpenWindow, Page, read_lists, read_windows

END = 1000  # records are created at 0 <= t < 1000
WHOLE = OpenWindow(0, END)


class Cut(Exception):
    """The reading ends here, as if the process had."""


class Book:
    """A provider's list. Of records created in one second the later one has the higher id and comes first.

    ``disturb`` happens before each page, with the book.
    """

    def __init__(self, times: list[int], size: int = 5, disturb: Callable[[Book], None] = lambda book: None) -> None:
        self.records = {f"r{number:05}": created for number, created in enumerate(times)}
        self.pages = 0
        self.at_once = 0
        self.most_at_once = 0
        self._size = size
        self._disturb = disturb
        self._lock = Lock()

    def insert(self, created: int) -> None:
        self.records[f"s{len(self.records) + self.pages:05}"] = created

    def fetch(self, window: OpenWindow) -> Page:
        """As the Stripe reader asks: after a record, or from its time on if it was deleted meanwhile."""
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        with self._lock:
            self.pages += 1
            self._disturb(self)
            page = self._page(window)
            self.at_once -= 1
        return page

    def _page(self, window: OpenWindow) -> Page:
        newest_first = sorted(((created, key) for key, created in self.records.items()), reverse=True)
        inside = [(created, key) for created, key in newest_first if window.start <= created < window.end]
        if window.after in self.records:
            at = (self.records[window.after], window.after)
            inside = [each for each in inside if each < at]
        elif window.after is not None and window.after_created is not None:
            inside = [each for each in inside if each[0] <= window.after_created]
        found, has_more = inside[: self._size], len(inside) > self._size
        last = (found[-1][1], found[-1][0]) if has_more else None
        return Page([{"id": key, "created": created} for created, key in found], has_more, 0, last)


def read(book: Book, windows: list[OpenWindow], connections: int, pages: int | None = None) -> tuple[set[str], Any]:
    """Ids read until the end or for so many pages, and the windows that are then still open, as a checkpoint."""
    met: set[str] = set()
    left = [window.to_json() for window in windows]
    for number, (page, still_open) in enumerate(read_windows(book.fetch, windows, connections), start=1):
        met |= {record["id"] for record in page.records}
        left = [window.to_json() for window in still_open]
        if number == pages:
            break
    return met, json.loads(json.dumps(left))


times = st.lists(st.integers(0, END - 1) | st.sampled_from([500, 501]), max_size=120)


@settings(max_examples=150, deadline=None)
@given(times=times, connections=st.integers(1, 6), size=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_every_record_that_exists_all_the_time_is_read(
    times: list[int], connections: int, size: int, seed: int
) -> None:
    chance = random.Random(seed)
    steady = {f"r{number:05}" for number in range(0, len(times), 2)}

    def disturb(book: Book) -> None:
        """Something comes, and something that is not steady goes, perhaps the very record to go on from."""
        if chance.random() < 0.4:
            book.insert(chance.randrange(END))
        going = sorted(set(book.records) - steady)
        if going and chance.random() < 0.6:
            del book.records[chance.choice(going)]

    book = Book(times, size, disturb)
    met, left = read(book, [WHOLE], connections)
    assert steady <= met
    assert left == []
    assert book.most_at_once <= connections


@settings(max_examples=150, deadline=None)
@given(times=times, connections=st.integers(1, 6), size=st.integers(1, 9), cuts=st.lists(st.integers(1, 8), max_size=6))
def test_a_reading_goes_on_from_any_list_of_open_windows_without_loss(
    times: list[int], connections: int, size: int, cuts: list[int]
) -> None:
    book = Book(times, size)
    met: set[str] = set()
    left: list[list[Any]] = [WHOLE.to_json()]
    for pages in [*cuts, None]:
        found, left = read(book, [OpenWindow(*saved) for saved in left], connections, pages)
        met |= found
    assert met == set(book.records)
    assert left == []


@settings(max_examples=60, deadline=None)
@given(times=times, size=st.integers(1, 9))
def test_a_quiet_list_is_read_once_and_not_again(times: list[int], size: int) -> None:
    """Windows that are split do not overlap."""
    book = Book(times, size)
    read_ids = [record["id"] for page, _ in read_windows(book.fetch, [WHOLE], 4) for record in page.records]
    assert sorted(read_ids) == sorted(book.records)


def test_a_dense_list_is_split_no_further_than_the_connections_need() -> None:
    book = Book(list(range(END)))
    most = max(len(still_open) for _, still_open in read_windows(book.fetch, [WHOLE], 3))
    assert 3 <= most <= 3 + 1


def test_a_page_that_fails_ends_the_reading_with_its_error() -> None:
    book = Book(list(range(END)))

    def fetch(window: OpenWindow) -> Page:
        if book.pages >= 10:
            raise Cut
        return book.fetch(window)

    met: set[str] = set()
    left: list[OpenWindow] = [WHOLE]

    def read_on() -> None:
        for page, still_open in read_windows(fetch, [WHOLE], 3):
            met.update(record["id"] for record in page.records)
            left[:] = still_open

    with pytest.raises(Cut):
        read_on()
    rest, _ = read(book, left, 3)
    assert met | rest == set(book.records)


def test_a_window_is_split_where_there_is_time_to_split() -> None:
    assert OpenWindow(0, 10, "x", 8).split() == [OpenWindow(4, 10, "x", 8), OpenWindow(0, 4)]
    assert OpenWindow(7, 10, "x", 7).split() == [OpenWindow(7, 10, "x", 7)]


def test_half_as_many_pages_more_than_connections_are_under_way_so_that_no_connection_waits_for_us() -> None:
    together = Barrier(6)

    def fetch(cursor: tuple[str, int]) -> tuple[tuple[str, int], tuple[str, int] | None]:
        name, number = cursor
        together.wait(20)
        return cursor, (name, number + 1) if number < 3 else None

    read = list(read_lists(fetch, [(name, 1) for name in "abcdef"], connections=4))
    assert sorted(read) == [(name, number) for name in "abcdef" for number in (1, 2, 3)]
    for name in "abcdef":
        assert [number for each, number in read if each == name] == [1, 2, 3]
