"""Reads rows by spans of time, where an answer has no more than so many rows and pages by offset cannot be trusted.

An answer that is not full has all rows of its span, as they were at one moment: nothing is skipped because something
before it went away meanwhile. A full one may lack some, so its span is asked for again in parts. Spans are made as wide
as goes by the ones before, so that most answers are nearly full and few are asked for in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple


class Span(NamedTuple):
    """Epoch seconds; both belong to it."""

    start: int
    end: int

    @property
    def seconds(self) -> int:
        return self.end - self.start + 1


class Rows(NamedTuple):
    """``whole``: there are no others in the span. ``asked``: when, as :class:`Answer` has it. ``apart``: seconds that
    the rows of a full answer lie apart; if they are the newest ones, as they mostly are, it tells how dense these are.
    """

    rows: Sequence[Any]
    whole: bool
    asked: int
    apart: int = 2**40


FULL_SHARE = 0.75
"""Of a full answer, that a span should bring."""
MOST_GROWTH = 8.0


def read_spans(
    fetch: Callable[[Span], Rows], spans: Sequence[Span], most: int, connections: int
) -> Iterator[tuple[Rows, list[Span]]]:
    """The rows of each span as they come, with the spans that are still to be read once they are stored.

    ``fetch``: of a span of one second it gives all rows; of a longer one ``most`` at most. An error ends the reading.
    """
    waiting, width = list(spans), 2**40
    under_way: dict[Future[Rows], Span] = {}
    with ThreadPoolExecutor(connections, thread_name_prefix="span") as pool:
        try:
            while waiting or under_way:
                while waiting and len(under_way) < connections:
                    span = _newest(waiting, width)
                    under_way[pool.submit(fetch, span)] = span
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    span = under_way.pop(future)
                    found = future.result()
                    if not found.whole:
                        width = max(1, min(min(width, span.seconds) // 2, int(FULL_SHARE * found.apart)))
                        waiting.insert(0, span)
                        continue
                    growth = MOST_GROWTH if not found.rows else min(MOST_GROWTH, FULL_SHARE * most / len(found.rows))
                    if growth < 1 or span.seconds >= width:
                        width = max(1, int(span.seconds * growth))
                    yield found, [*under_way.values(), *waiting]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _newest(waiting: list[Span], width: int) -> Span:
    """Takes the newest part of the first span, no wider than that."""
    first = waiting.pop(0)
    if first.seconds <= width:
        return first
    middle = first.end - width
    waiting.insert(0, Span(first.start, middle))
    return Span(middle + 1, first.end)
