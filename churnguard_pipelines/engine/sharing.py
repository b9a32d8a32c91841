"""Shares out what is scarce among organizations: places, turns, threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import TypeVar

Item = TypeVar("Item")


def fair_share(
    wanted: Iterable[Item],
    owner: Callable[[Item], str],
    most: int,
    *,
    most_each: int | None = None,
    held: Mapping[str, int] | None = None,
) -> list[Item]:
    """Up to ``most`` of what is wanted, in the order of service: always for the owner who has the fewest so far.

    What was given first goes first, among an owner's own and among owners with the same number; so whoever gives first
    what has waited longest leaves nobody out. ``held``: what owners have already; ``most_each``: with what they hold.
    """
    queues: dict[str, deque[Item]] = {}
    for item in wanted:
        queues.setdefault(owner(item), deque()).append(item)
    had = held or {}
    turns = [(had.get(name, 0), place, name) for place, name in enumerate(queues)]
    heapify(turns)
    served: list[Item] = []
    while turns and len(served) < most:
        count, place, name = heappop(turns)
        if most_each is not None and count >= most_each:
            continue
        served.append(queues[name].popleft())
        if queues[name]:
            heappush(turns, (count + 1, place, name))
    return served
