"""What keeps streams from getting on: shown beside their state until it is over, and how long it is tried again."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    SourceChanged,
)
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.postgres.database import Store

SURE_AFTER = 30.0
"""Seconds for which a source has to refuse us, and nothing else, before that is believed: one that is being restarted
may not know its users and topics yet."""
AGAIN_AFTER = 10.0
"""Seconds after which it is told again where nothing stands any more: whoever resumes a stream, and another process
that sees it get on, clears what stands."""
_REFUSALS = (AuthenticationFailed, PermissionMissing, InvalidConfiguration)
_NONE = (None, None)


@dataclass(frozen=True, slots=True)
class _Trouble:
    """``refused_since``: None for what is no refusal."""

    told: tuple[str, str | None]
    refused_since: float | None = None


class Troubles:
    """Thread safe. Each stream's of its source and of each of its lanes; told is the first of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._noted: dict[str, dict[str, _Trouble]] = {}
        self._told: dict[str, tuple[str | None, str | None]] = {}
        self._told_again = time.monotonic()

    def note(self, stream_id: str, where: str, error: Exception | None) -> ChurnGuardError | None:
        """Returns the error if no further attempt will mend it: a person has to decide."""
        with self._lock:
            if error is None:
                self._noted.get(stream_id, {}).pop(where, None)
                return None
            noted = self._noted.setdefault(stream_id, {})
            if not isinstance(error, ChurnGuardError):
                noted[where] = _Trouble((f"{type(error).__name__}, which the log has in full.", None))
                return None
            told = error.message, error.remedy
            if not isinstance(error, _REFUSALS):
                noted[where] = _Trouble(told)
                return error if isinstance(error, SourceChanged) else None
            now, before = time.monotonic(), noted.get(where)
            since = now if before is None or before.refused_since is None else before.refused_since
            noted[where] = _Trouble(told, since)
            return error if now - since >= SURE_AFTER else None

    def well(self, stream_id: str) -> None:
        """It gets on, as this process has seen: what stands of it, whoever told that, is over."""
        with self._lock:
            self._noted.setdefault(stream_id, {})

    def keep_of(self, stream_id: str, places: Collection[str]) -> None:
        """Of the stream what is noted of these: nothing is tried elsewhere any more."""
        with self._lock:
            noted = self._noted.get(stream_id, {})
            for where in noted.keys() - set(places):
                del noted[where]

    def keep(self, streams: Collection[str]) -> None:
        """Of these only: the others are told otherwise why they rest."""
        with self._lock:
            for name in self._noted.keys() - set(streams):
                del self._noted[name]
                self._told.pop(name, None)

    def tell(self) -> None:
        """What has changed, and now and then what lasts."""
        with self._lock:
            now = {name: next((each.told for each in noted.values()), _NONE) for name, noted in self._noted.items()}
            news = {name: told for name, told in now.items() if self._told.get(name) != told}
            self._told |= news
        if news:
            STREAMS.note_trouble(self._store, news)
        moment = time.monotonic()
        if moment - self._told_again >= AGAIN_AFTER:
            self._told_again = moment
            lasting = {name: told for name, told in now.items() if told != _NONE}
            if lasting:
                STREAMS.note_trouble(self._store, lasting, again=True)
