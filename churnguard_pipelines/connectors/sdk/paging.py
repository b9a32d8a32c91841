"""Back-fill by creation time: windows whose pages are read in parallel, and split where the data is dense.

A provider that lists newest first, filters by creation time and pages by "after this id" can be read by many
connections at once. What is left to read is a list of open windows; it is the checkpoint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """A window of creation times that is not read to its end yet. Creation times in epoch seconds, ``start <= created <
    end``; ``after``: the last id read in it; ``after_created``: the latest known creation time of one read in it."""

    start: int
    end: int
    after: str | None = None
    after_created: int | None = None

    def to_json(self) -> list[Any]:
        return [self.start, self.end, self.after, self.after_created]

    def split(self) -> list[Self]:
        """What is left, newest first, in two halves of equal time if there is time to halve."""
        newest = self.end if self.after_created is None else self.after_created
        middle = (self.start + newest) // 2
        if not self.start < middle < newest:
            return [self]
        return [replace(self, start=middle), replace(self, end=middle, after=None, after_created=None)]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. ``records`` newest first; ``last``: id and creation time (if it is known) of the last one."""

    records: Sequence[dict[str, Any]]
    has_more: bool
    version: int
    last: tuple[str, int | None] | None


Windows = TypeVar("Windows", bound=OpenWindow)
Cursor = TypeVar("Cursor")
Rows = TypeVar("Rows")


def read_windows(
    fetch: Callable[[Windows], Page], windows: Sequence[Windows], connections: int
) -> Iterator[tuple[Page, list[Windows]]]:
    """Each page as it arrives, with the windows that are still open once it is stored.

    At most ``connections`` pages are under way or waiting; a page that fails ends the reading with its error.
    """
    waiting = list(windows)
    under_way: dict[Future[Page], Windows] = {}
    with ThreadPoolExecutor(connections, thread_name_prefix="page") as pool:
        try:
            while waiting or under_way:
                while waiting and len(under_way) < connections:
                    window = waiting.pop(0)
                    under_way[pool.submit(fetch, window)] = window
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    window = under_way.pop(future)
                    page = future.result()
                    if page.has_more and page.last is not None:
                        rest = replace(window, after=page.last[0], after_created=page.last[1])
                        # Only for a connection with nothing to do: every window ends with a page that is not full.
                        idle = connections > 1 and len(waiting) + len(under_way) < connections
                        waiting[:0] = rest.split() if idle else [rest]
                    yield page, [*under_way.values(), *waiting]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_lists(
    fetch: Callable[[Cursor], tuple[Rows, Cursor | None]], cursors: Sequence[Cursor], connections: int
) -> Iterator[Rows]:
    """The pages of several lists as they arrive. ``fetch``: a page, and the cursor of its list's next one. A page that
    fails ends the reading with its error.

    Half as many more as there are ``connections`` are under way, so that none of these, to which the quota keeps, waits
    for us while pages are unpacked and stored.
    """
    waiting, at_once = deque(cursors), connections + connections // 2
    under_way: set[Future[tuple[Rows, Cursor | None]]] = set()
    with ThreadPoolExecutor(at_once, thread_name_prefix="page") as pool:
        try:
            while waiting or under_way:
                while waiting and len(under_way) < at_once:
                    under_way.add(pool.submit(fetch, waiting.popleft()))
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    rows, following = future.result()
                    if following is not None:
                        waiting.appendleft(following)
                    yield rows
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
