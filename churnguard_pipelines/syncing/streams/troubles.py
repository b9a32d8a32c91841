"""What keeps streams from getting on that are tried again: shown beside their state until it is over."""

from __future__ import annotations

import threading
from collections.abc import Collection

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.postgres.database import Store

_NONE = (None, None)


class Troubles:
    """Thread safe. Each stream's of its source and of each of its lanes; told is the first of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._noted: dict[str, dict[str, tuple[str, str | None]]] = {}
        self._told: dict[str, tuple[str | None, str | None]] = {}

    def note(self, stream_id: str, where: str, error: Exception | None) -> None:
        with self._lock:
            noted = self._noted.setdefault(stream_id, {})
            if error is None:
                noted.pop(where, None)
            elif isinstance(error, ChurnGuardError):
                noted[where] = error.message, error.remedy
            else:
                noted[where] = f"{type(error).__name__}, which the log has in full.", None

    def keep(self, streams: Collection[str]) -> None:
        """Of these only: the others are told otherwise why they rest."""
        with self._lock:
            for name in self._noted.keys() - set(streams):
                del self._noted[name]
                self._told.pop(name, None)

    def tell(self) -> None:
        """What has changed."""
        with self._lock:
            now = {name: next(iter(noted.values()), _NONE) for name, noted in self._noted.items()}
            news = {name: told for name, told in now.items() if self._told.get(name) != told}
            self._told |= news
        if news:
            STREAMS.note_trouble(self._store, news)
