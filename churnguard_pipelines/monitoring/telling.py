"""Tells destinations of causes: one message when something begins to need somebody, and one when it is over.

What begins together at one provider is one message. Nothing is told of what is silenced, nor of its end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import wait
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.monitoring import channels
from churnguard_pipelines.monitoring.causes import Cause, Key, causes
from churnguard_pipelines.monitoring.health import Severity, span
from churnguard_pipelines.monitoring.monitor import Picture
from churnguard_pipelines.store.control import alerts_told
from churnguard_pipelines.store.control.alert_destinations import (
    Destination,
    list_destinations,
    list_silences,
    note_problem,
)
from churnguard_pipelines.store.postgres.database import Store

EVERY = 15.0
"""Seconds from one look to the next."""
SETTLED = timedelta(minutes=2)
"""What comes back sooner was never over."""
MOST_NAMED = 10
"""Subjects in one message."""
MOST_OF_A_TEXT = 300
_log = logging.getLogger("churnguard.alerts")


class Teller:
    """Looks at pictures of the installation in a thread of its own, as long as it is open; of several processes that
    do, one sends each message. ``installation``: what is wrong with the installation's parts now."""

    def __init__(
        self,
        store: Store,
        picture: Callable[[], Picture],
        installation: Callable[[], Sequence[Cause]] = lambda: (),
        *,
        every: float = EVERY,
        settled: timedelta = SETTLED,
    ) -> None:
        self._store, self._picture, self._installation = store, picture, installation
        self._every, self._settled = every, settled
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)

    def __enter__(self) -> Teller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """A message under way is not waited for; another process, or the next start, sends it again."""
        self._ended.set()

    def look(self) -> None:
        """Once: note what is so, and tell what is to be told."""
        destinations = list_destinations(self._store)
        if not destinations:
            return
        found, silences = causes(self._picture(), self._installation()), list_silences(self._store)
        silent = {
            key for key in _known(self._store, destinations, found) if any(each.covers(*key) for each in silences)
        }
        told = []
        for destination in destinations:
            name, after = destination.destination_id, timedelta(seconds=destination.after_seconds)
            wanted = {key: each for key, each in found.items() if key not in silent and _is_for(destination, each)}
            since = {key: each.since for key, each in wanted.items()}
            alerts_told.note(self._store, name, found.keys(), since, after)
            alerts_told.forget(self._store, name, silent - found.keys())
            if destination.url:
                told.append(in_thread(f"alerts to {name}", partial(self._tell, destination, wanted)))
        wait(told)  # each by itself: what hangs or fails at one keeps no other from its messages
        for each in told:
            each.result()

    def _tell(self, destination: Destination, wanted: Mapping[Key, Cause]) -> None:
        name, alone = destination.destination_id, channels.has_incidents(destination.url)
        until = time.monotonic() + alerts_told.CLAIM.total_seconds() - channels.SECONDS
        begun = [
            key for key in alerts_told.claim(self._store, name, over=False, settled=self._settled) if key in wanted
        ]
        for _, group in groupby(sorted((wanted[key] for key in begun), key=_together), key=_together):
            members = list(group)
            worst = min((each.severity for each in members), key=[Severity.CRITICAL, Severity.WARNING].index)
            title = f"{worst.value}: {_named(members)}"
            self._send(destination, [each.key for each in members], title, _body(members), worst, until)
        over = alerts_told.claim(self._store, name, over=True, settled=self._settled)
        for _, keys in groupby(sorted(over, key=_trouble), key=None if alone else _trouble):
            ended = list(keys)
            title = f"over: {_listed([subject for subject, _ in ended])}: {_words(ended[0][1])}"
            self._send(destination, ended, title, "It is well again.", None, until)

    def _send(
        self,
        destination: Destination,
        keys: Sequence[Key],
        title: str,
        body: str,
        severity: Severity | None,
        until: float,
    ) -> None:
        """Nothing once what was claimed may soon be another's: it is claimed anew."""
        name = destination.destination_id
        if self._ended.is_set() or time.monotonic() > until:
            return
        try:
            channels.send(destination.url, title, body, severity, _incident(destination, keys))
        except ChurnGuardError as error:
            alerts_told.not_taken(self._store, name, keys)
            note_problem(self._store, name, error.message)
            _log.error("%s: %s", name, error.message)
        else:
            alerts_told.told(self._store, name, keys, over=severity is None)
            note_problem(self._store, name, None)

    def _work(self) -> None:
        while not self._ended.wait(self._every):
            try:
                self.look()
            except Exception as error:  # the database is away, or anything else: alerts must come back by themselves
                _log.error("alerts could not be looked at (%s: %s)", type(error).__name__, on_one_line(str(error), 300))


def _known(store: Store, destinations: Iterable[Destination], found: Mapping[Key, Cause]) -> set[Key]:
    return found.keys() | {key for each in destinations for key in alerts_told.keys_of(store, each.destination_id)}


def _is_for(destination: Destination, cause: Cause) -> bool:
    return cause.severity is Severity.CRITICAL or destination.least_severity == Severity.WARNING.value


def _together(cause: Cause) -> tuple[str, str]:
    return cause.provider, cause.trouble


def _trouble(key: Key) -> str:
    return key[1]


def _incident(destination: Destination, keys: Sequence[Key]) -> str | None:
    """Its name, which no other installation's has; none of what is told together, and is not over together."""
    return f"{destination.added:%Y%m%d%H%M%S%f} {' '.join(keys[0])}" if len(keys) == 1 else None


def _named(members: Sequence[Cause]) -> str:
    first = members[0]
    return f"{_listed([each.subject for each in members])}: {_words(first.trouble)} ({first.provider})"


def _listed(subjects: Sequence[str]) -> str:
    return subjects[0] if len(subjects) == 1 else f"{subjects[0]} and {len(subjects) - 1} more"


def _words(trouble: str) -> str:
    return trouble.replace("_", " ")


def _body(members: Sequence[Cause]) -> str:
    now = datetime.now(UTC)
    lines: list[str] = []
    for each in members[:MOST_NAMED]:
        whose = f" of {each.organization_id}" if each.organization_id else ""
        since = span(max(now - each.since, timedelta()))
        lines.append(f"{each.subject}{whose}, for {since}: {_cut(each.text)}")
        lines += [f"- {_cut(other)}" for other in each.others]
        if each.remedy:
            lines.append(f"What to do: {_cut(each.remedy)}")
    if len(members) > MOST_NAMED:
        lines.append(f"… and {len(members) - MOST_NAMED} more.")
    return "\n".join(lines)


def _cut(text: str) -> str:
    """What a source says stays on its line."""
    return on_one_line(text, MOST_OF_A_TEXT)
