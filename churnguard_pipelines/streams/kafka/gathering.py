"""Answers that are asked for together, because many streams look at one cluster in the same moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

FRESH = 1.0
WANTED = 60.0


class Gathered(Generic[K, V]):
    """Whoever wants an answer gets one that is not older than a second. If it has to be asked for, whatever others wait
    for is asked for with it; once answers are old, all that anybody wanted within the last minute."""

    def __init__(self, ask: Callable[[Collection[K]], Mapping[K, V]]) -> None:
        self._ask = ask
        self._asking, self._noting = Lock(), Lock()
        self._wanted: dict[K, float] = {}
        self._answers: dict[K, V] = {}
        self._answered = -FRESH

    def get(self, keys: Collection[K]) -> dict[K, V]:
        """Those that there are answers to. Raises what ``ask`` does."""
        self._want(keys)  # before it is waited for whoever asks just now: one question is for all that wait
        with self._asking:
            self._want(keys)  # still: it may have been waited for longer than anything is kept in mind
            if time.monotonic() - self._answered >= FRESH:
                self._answers = dict(self._ask(self._all_wanted()))
                self._answered = time.monotonic()
            elif not self._answers.keys() >= set(keys):
                self._answers |= self._ask([key for key in self._all_wanted() if key not in self._answers])
            return {key: self._answers[key] for key in keys if key in self._answers}

    def _want(self, keys: Collection[K]) -> None:
        now = time.monotonic()
        with self._noting:
            self._wanted.update(dict.fromkeys(keys, now))

    def _all_wanted(self) -> list[K]:
        now = time.monotonic()
        with self._noting:
            self._wanted = {key: at for key, at in self._wanted.items() if now - at < WANTED}
            return list(self._wanted)
