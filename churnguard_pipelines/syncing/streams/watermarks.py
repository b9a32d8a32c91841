"""Asks many sources how far their partitions are ahead of what is stored, without waiting for those that are silent.

Each stream's source is opened once and asked every few seconds, in a thread; what did not answer in one look counts in
the one after it did. A source that does not answer in time is told to stop, and keeps its place among its
organization's own until it has.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from threading import Event

from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.engine.fair_threads import FairThreads, in_thread
from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.records import Checkpoint, Lane, Position
from churnguard_pipelines.store.control.streams import ActiveStream
from churnguard_pipelines.store.ingest import checkpoints, stream_progress
from churnguard_pipelines.store.ingest.stream_progress import Observed
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.streams import source_class
from churnguard_pipelines.streams.sdk import StreamSource, Watermark
from churnguard_pipelines.syncing.streams.lane import refuse_another_source

ASK_EVERY = 4.0
PARTITIONS_EVERY = 30.0
ANSWERS_WITHIN = 15.0
LOOK = 0.5
"""Seconds: a look waits no longer for answers."""
ASKED_AT_ONCE, ASKED_AT_ONCE_EACH = 32, 8
"""Of all organizations and of each."""
KEEP_EVERY = 30.0
"""Seconds after which what has not changed is noted again."""
LONGEST_NAME = 2000
"""Bytes of a partition's name: it is a key in the store."""
MOST_BEHIND = 10**12
"""Messages: whatever a source says, all of them together are a number that can be stored."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """``lanes``: partitions that have work; ``error``: why a source could not say."""

    lanes: tuple[Lane, ...] = ()
    error: Exception | None = None


@dataclass(slots=True)
class _Asked:
    """A stream that is asked: one thread at a time."""

    stream: ActiveStream
    cancelled: Event = field(default_factory=Event)
    source: StreamSource | None = None
    partitions: tuple[str, ...] = ()
    partitions_at: float = -math.inf
    asked_at: float = -math.inf
    future: Future[Answer] | None = None
    answer: Answer | None = None
    observed: tuple[Observed, ...] = ()
    kept: tuple[Observed, ...] = ()
    kept_at: float = -math.inf


class Watermarks:
    """One thread at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = FairThreads("asks-for-watermarks", ASKED_AT_ONCE, ASKED_AT_ONCE_EACH)
        self._asked: dict[str, _Asked] = {}

    def look(self, streams: Mapping[str, ActiveStream]) -> dict[str, Answer]:
        """The newest answer of each of these streams that has given one; after :data:`LOOK` seconds at most."""
        self._let_go(streams)
        now = time.monotonic()
        due = [each for each in map(self._of, streams.values()) if self._is_due(each, now)]
        due.sort(key=lambda each: each.asked_at)
        stored = self._positions(due)
        for each in due:
            each.asked_at = now
            positions = stored.get(each.stream.stream_id, {})
            organization_id = each.stream.configuration.organization_id
            each.future = self._threads.submit(organization_id, partial(_ask, each, positions))
        wait([each.future for each in due if each.future is not None], LOOK)
        self._collect()
        self._keep(now)
        return {name: each.answer for name, each in self._asked.items() if each.answer is not None}

    def close(self) -> None:
        """Nothing is waited for."""
        self._let_go({})

    def _of(self, stream: ActiveStream) -> _Asked:
        return self._asked.setdefault(stream.stream_id, _Asked(stream))

    def _is_due(self, each: _Asked, now: float) -> bool:
        if each.future is None:
            return now - each.asked_at >= ASK_EVERY
        if now - each.asked_at > ANSWERS_WITHIN and not each.future.done() and not each.cancelled.is_set():
            asked = each.future.running()
            if asked:
                each.cancelled.set()
            each.answer = Answer(each.answer.lanes if each.answer else (), _silent(each.stream, asked))
            each.observed = ()
        return False

    def _let_go(self, streams: Mapping[str, ActiveStream]) -> None:
        """Of those that are no more, or are another one now."""
        for name, each in list(self._asked.items()):
            now = streams.get(name)
            if now is None or now.revision != each.stream.revision:
                del self._asked[name]
                _end(each)

    def _positions(self, due: list[_Asked]) -> dict[str, dict[str, Checkpoint]]:
        if not due:
            return {}
        owners = [(each.stream.configuration.organization_id, each.stream.stream_id) for each in due]
        with self._store.operator() as connection:
            return checkpoints.of_several(connection, owners)

    def _collect(self) -> None:
        for each in self._asked.values():
            if each.future is None or not each.future.done():
                continue
            answer, each.future = each.future.result(), None
            if answer.error is not None:  # how far it is now, nobody knows
                each.observed = ()
            if each.cancelled.is_set():  # it was too late; another source begins anew
                _close(each)
                each.cancelled = Event()
                if answer.error is not None:  # as a rule that it was told to stop
                    continue
            each.answer = answer

    def _keep(self, now: float) -> None:
        """What has changed, of all of them in one statement."""
        news: list[Observed] = []
        for each in self._asked.values():
            if each.observed and (each.observed != each.kept or now - each.kept_at >= KEEP_EVERY):
                each.kept, each.kept_at = each.observed, now
                news += each.observed
        stream_progress.observe(self._store, news)


def _ask(each: _Asked, stored: Mapping[str, Checkpoint]) -> Answer:
    """In a thread."""
    each.asked_at = time.monotonic()  # it may have waited for its turn
    try:
        return _answer(each, stored)
    except ChurnGuardError as error:
        return Answer(error=error)
    except Exception as error:
        _log.exception("%s: its source could not be asked", each.stream.stream_id)
        return Answer(error=error)


def _answer(each: _Asked, stored: Mapping[str, Checkpoint]) -> Answer:
    stream = each.stream
    if each.source is None:
        each.source = source_class(stream.configuration)(
            stream.configuration, guard_of(stream.configuration), each.cancelled
        )
    source, now = each.source, time.monotonic()
    if now - each.partitions_at >= PARTITIONS_EVERY:
        each.partitions, each.partitions_at = _named(stream, source.partitions()), now
    if source.pushes:
        return Answer(tuple(map(stream.lane, each.partitions)))
    if stored:
        identity = source.identity()
        for name, checkpoint in stored.items():
            refuse_another_source(stream.lane(name), checkpoint, identity)
    positions: dict[str, Position] = {name: checkpoint.position for name, checkpoint in stored.items()}
    watermarks = source.watermarks(positions)
    if not watermarks:
        raise ProviderUnavailable(
            "its source has nothing yet that its topics name.",
            integration_id=stream.stream_id,
            remedy="It is read as soon as there is something; correct `topics` if that is not to come.",
        )
    _named(stream, watermarks)
    each.observed = tuple(_observed(stream.lane(name), mark) for name, mark in watermarks.items())
    at_its_end = stream.configuration.start == "latest"  # where a position has to be found before anything comes
    return Answer(
        tuple(
            stream.lane(name)
            for name, mark in watermarks.items()
            if mark.behind != 0 or (at_its_end and name not in stored)
        )
    )


def _named(stream: ActiveStream, partitions: Iterable[str]) -> tuple[str, ...]:
    """What is noted of them is noted together with what is of others' streams: raises ``InvalidConfiguration`` for a
    name that could not be stored."""
    names = tuple(partitions)
    for name in names:
        if not name.isprintable() or len(name.encode()) > LONGEST_NAME:
            raise InvalidConfiguration(
                f"its source has a partition whose name cannot be kept: {on_one_line(name, 100)!r}.",
                integration_id=stream.stream_id,
                remedy=f"A name has printable signs, and {LONGEST_NAME:,} bytes at most; name other topics.",
            )
    return names


def _observed(lane: Lane, mark: Watermark) -> Observed:
    end = on_one_line(mark.end, 200)
    if mark.behind == 0:
        return Observed(lane, end, 0, 0.0)
    behind = None if mark.behind is None else min(max(mark.behind, 0), MOST_BEHIND)
    seconds = None if mark.oldest is None else max((datetime.now(UTC) - mark.oldest).total_seconds(), 0.0)
    return Observed(lane, end, behind, seconds)


def _silent(stream: ActiveStream, asked: bool) -> ProviderUnavailable:
    if not asked:
        return ProviderUnavailable(
            f"its source has not been asked for {ANSWERS_WITHIN:.0f} s: too many of its organization do not answer.",
            integration_id=stream.stream_id,
            remedy="Pause the streams whose sources do not answer, or see why.",
        )
    return ProviderUnavailable(
        f"its source has not answered for {ANSWERS_WITHIN:.0f} s.",
        integration_id=stream.stream_id,
        remedy="Check its address, and whether it can be reached from here.",
    )


def _end(each: _Asked) -> None:
    each.cancelled.set()
    if each.future is None or each.future.cancel():
        _close(each)
    else:
        each.future.add_done_callback(lambda _: _close(each))


def _close(each: _Asked) -> None:
    """In a thread: it may hang as well."""
    source, each.source = each.source, None
    if source is not None:
        in_thread("closes-a-source", source.close)
