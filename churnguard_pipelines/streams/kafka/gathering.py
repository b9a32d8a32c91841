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
    """Whoever wants an answer gets one that is not older than a second; if it has to be asked for, all that anybody
    wanted within the last minute are asked for with it."""

    def __init__(self, ask: Callable[[Collection[K]], Mapping[K, V]]) -> None:
        self._ask = ask
        self._lock = Lock()
        self._wanted: dict[K, float] = {}
        self._answers: Mapping[K, V] = {}
        self._answered = -FRESH

    def get(self, keys: Collection[K]) -> dict[K, V]:
        """Those that there are answers to. Raises what ``ask`` does."""
        with self._lock:
            now = time.monotonic()
            self._wanted.update(dict.fromkeys(keys, now))
            if now - self._answered >= FRESH or not self._answers.keys() >= set(keys):
                self._wanted = {key: at for key, at in self._wanted.items() if now - at < WANTED}
                answers = self._ask(list(self._wanted))
                self._answers, self._answered = answers, time.monotonic()
            return {key: self._answers[key] for key in keys if key in self._answers}
