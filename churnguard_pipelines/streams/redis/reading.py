"""Reads one stream in its consumer group, entry after entry from the place that the warehouse holds.

The place decides what is read; the group only shows to Redis' own tools what was delivered, and counts deliveries. Who
takes a stream over reads what lies between the place and the group's last delivered id by XRANGE: that holds whatever
the dead had pending, and whatever somebody else has read or skipped in the group meanwhile. Beyond that XREADGROUP goes
on where the group stands, in one transaction with a look at where that is: if it is not our place, what lies between is
read first. So nothing is left out that is in the stream, and nothing read twice is stored twice, as the place moves in
the warehouse by compare-and-set.

What is pending is claimed at once: whoever has the lane's lease is the stream's only reader, and a slower one that
still thinks it is cannot store any more.

An entry that ended the process time and again would do so for ever. Its delivery counter shows that: before a batch is
given, its first entry's is counted up, and what follows a place that nobody got beyond is given one by one, then as one
with a defect. A batch that is given back, because it could not be stored now, is counted down again.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Sequence
from contextlib import suppress
from threading import Event
from typing import Any

from redis.exceptions import ResponseError

from churnguard_pipelines.errors import ChurnGuardError, Stopped
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.redis.entries import Entry, Messages, Portions, entries_of
from churnguard_pipelines.streams.redis.ids import ZERO, EntryId, parsed
from churnguard_pipelines.streams.redis.options import RedisOptions
from churnguard_pipelines.streams.redis.place import NOTHING, PARTITION, Facts, Place, facts_of, fields_of
from churnguard_pipelines.streams.redis.server import Command, Server
from churnguard_pipelines.streams.sdk import READ_WITHIN, Loss, MessageBatch

CAREFUL_FROM, MOST_DELIVERIES = 3, 8
"""Deliveries of an entry that ended a process each: from so many on it is given alone, and not any more."""
CONSUMERS = "churnguard-"
"""What the names of ours begin with."""
_CLAIMED_AT_ONCE = 1000


class _KeyGone(Exception):
    """It was deleted or has expired; if it comes again, it begins anew."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def loss(self, topic: str) -> Loss:
        first = str(self.place.id.next)
        reason = "its key was deleted or has expired; if an entry had come after those that we read, it went with it"
        return Loss(topic, PARTITION, first, first, reason, certain=False)


class GroupReading:
    """One turn of one stream. ``batches`` is what :meth:`StreamSource.batches` promises."""

    def __init__(
        self, server: Server, stream: StreamConfiguration, options: RedisOptions, topic: str, cancelled: Event
    ) -> None:
        self._server, self._stream, self._topic, self._cancelled = server, stream, topic, cancelled
        self._group = options.group or f"churnguard-{stream.stream_id}"
        self._consumer = f"{CONSUMERS}{secrets.token_hex(6)}"
        self._messages = Messages(stream, options, topic)
        self._portions = Portions(stream)
        self._delivered = ZERO  # the group's last, as far as we know
        self._careful = ZERO  # up to where entries are given one by one
        self._done: list[str] = []  # stored, and not yet acknowledged

    def batches(self, place: Place | None) -> Generator[MessageBatch | None]:
        while True:
            try:
                yield from self._followed(place)
            except _KeyGone as gone:
                place = Place(version=gone.place.version)
                self._done, self._careful = [], ZERO
                yield MessageBatch(place.position, lost=[gone.loss(self._topic)])

    def _followed(self, place: Place | None) -> Generator[MessageBatch | None]:
        while (opened := self._opened(place)) is None:  # it comes with its first entry
            self._cancelled.wait(READ_WITHIN)
            yield None
        place, lost = opened
        if lost or self._stream.start == "latest":
            yield MessageBatch(place.position, lost=lost)
        while True:
            facts, entries, deliveries = self._read(place)
            self._check_same(place, facts, beyond=len(entries or ()))
            gone = place.lost(facts, self._topic)
            place = place.past(facts)
            if not entries:
                if entries is not None and place.id < facts.last:  # all that was behind us has been deleted
                    place = Place(facts.last, facts.added, place.version)
                    yield MessageBatch(place.position, lost=[gone] if gone else ())
                elif gone:
                    yield MessageBatch(place.position, lost=[gone])
                elif entries is not None and not self._waited(place):
                    yield None
                continue
            batch, place = self._batch(entries, deliveries, place, facts, gone)
            try:
                yield batch
            except BaseException:
                self._give_back(entries[0][0], deliveries)
                raise
            self._done = [message.offset for message in batch.messages]

    def _opened(self, place: Place | None) -> tuple[Place, Sequence[Loss]] | None:
        """The place to read from, the group that goes with it, and what of the dead's entries is gone for good. None as
        long as there is no such stream."""
        answer, groups = self._server.ask_at_once([("XINFO", "STREAM", self._topic), ("XINFO", "GROUPS", self._topic)])
        if isinstance(answer, ResponseError):
            self._check_missing(answer)
            if place is not None:
                self._check_same(place, NOTHING)
            return None
        facts = facts_of(answer, self._stream.stream_id)
        if place is None:
            place = Place.latest(facts) if self._stream.start == "latest" else Place.earliest(facts)
        self._check_same(place, facts)
        self._delivered = self._group_at(groups) or self._create_group(place)
        if self._delivered < place.id:
            self._set_group(place)
        first = self._pending_first(place)
        if first is not None and first[1] >= CAREFUL_FROM:
            self._careful = self._delivered
        deleted = self._claim(place, facts)
        self._forget_the_dead()
        return place, deleted

    def _read(self, place: Place) -> tuple[Facts, Sequence[Entry] | None, int]:
        """The stream's facts, entries that follow the place without a gap, and how often the first of them has been
        delivered before. No entries: there are none; None for them: look again."""
        if place.id < self._delivered:
            return self._read_delivered(place)
        groups, answer, told = self._transaction(
            ("XINFO", "GROUPS", self._topic),
            ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", self._next_count(place),
             "STREAMS", self._topic, ">"),
            ("XINFO", "STREAM", self._topic),
        )  # fmt: skip
        facts = self._facts(told)
        if isinstance(answer, ResponseError):  # somebody has removed the group
            self._check_same(place, facts)
            self._delivered = self._create_group(place)
            return facts, None, 0
        entries = entries_of(answer[0][1]) if answer else []
        stood = self._group_at(groups) or place.id
        if stood == place.id:
            self._delivered = entries[-1][0] if entries else stood
            return facts, self._portions.fitting(entries, self._server.received), 0
        # Somebody else has moved the group. What this has delivered is pending, and comes by its place.
        self._delivered = max(stood, entries[-1][0] if entries else stood)
        self._done = [str(entry) for entry, _ in entries if entry <= place.id]
        if self._delivered < place.id:
            self._set_group(place)
        return facts, None, 0

    def _read_delivered(self, place: Place) -> tuple[Facts, Sequence[Entry] | None, int]:
        after, until = f"({place.id}", str(self._delivered)
        answer, pending, told = self._transaction(
            ("XRANGE", self._topic, after, until, "COUNT", self._next_count(place)),
            ("XPENDING", self._topic, self._group, after, until, 1),
            ("XINFO", "STREAM", self._topic),
        )
        facts = self._facts(told)
        if isinstance(pending, ResponseError):
            self._check_same(place, facts)
            self._delivered = max(self._delivered, self._create_group(place))
            pending = []
        entries = self._portions.fitting(entries_of(answer), self._server.received)
        if not entries:  # all of it was deleted
            self._check_same(place, facts)
            self._set_group(place)
            return facts, None, 0
        first = entries[0][0]
        deliveries = int(pending[0][3]) if pending and parsed(pending[0][0]) == first else 0
        if deliveries >= CAREFUL_FROM:
            entries = entries[:1]
        self._count_delivery(first, max(deliveries, CAREFUL_FROM if first <= self._careful else 0) + 1)
        return facts, entries, deliveries

    def _batch(
        self, entries: Sequence[Entry], deliveries: int, place: Place, facts: Facts, gone: Loss | None
    ) -> tuple[MessageBatch, Place]:
        defect = None
        if deliveries >= MOST_DELIVERIES:
            defect = f"each of {deliveries} times that this entry was to be stored, the process came to an end"
        messages = self._messages.of(entries, place.version, defect)
        moved = place.after(entries[-1][0], len(entries), messages[-1].version, facts)
        buffered = min(len(entries) / self._stream.batch_size, 1.0)
        return MessageBatch(moved.position, messages, [gone] if gone else (), buffered), moved

    def _check_same(self, place: Place, facts: Facts, beyond: int = 0) -> None:
        """Raises ``SourceChanged``; what a pattern means may come and go, as a key of each day does that expires."""
        if facts is NOTHING and self._topic not in self._stream.topics and place.id != ZERO:
            raise _KeyGone(place)
        place.check_same(facts, self._topic, self._stream.stream_id, beyond)

    def _waited(self, place: Place) -> bool:
        """Whether something came within a moment."""
        self._acknowledge()
        if self._cancelled.is_set():
            return False
        milliseconds = int(READ_WITHIN * 900)
        try:
            came = self._server.ask("XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", self._topic, str(place.id))
        except Stopped:
            return False
        return bool(came)

    def _transaction(self, *commands: Command) -> list[Any]:
        """What is done is acknowledged on the way."""
        done, self._done = self._done, []
        before = [("XACK", self._topic, self._group, *done)] if done else []
        answers: list[Any] = self._server.ask_at_once(commands, before=before, kept=self._portions.kept)
        return answers

    def _acknowledge(self) -> None:
        done, self._done = self._done, []
        if done:
            self._server.ask("XACK", self._topic, self._group, *done)

    def _next_count(self, place: Place) -> int:
        return 1 if place.id < self._careful else self._portions.count

    def _facts(self, told: Any) -> Facts:
        if isinstance(told, ResponseError):  # it is gone, and so may be what we had not read of it
            self._check_missing(told)
            return NOTHING
        return facts_of(told, self._stream.stream_id)

    def _check_missing(self, error: ResponseError) -> None:
        if "no such key" not in str(error):
            with self._server.translated():
                raise error

    def _group_at(self, groups: Any) -> EntryId | None:
        """Its last delivered id; None if there is no such group."""
        for each in groups if isinstance(groups, list) else ():
            told = fields_of(each)
            if told[b"name"] == self._group.encode():
                return parsed(told[b"last-delivered-id"])
        return None

    def _create_group(self, place: Place) -> EntryId:
        try:
            self._server.ask("XGROUP", "CREATE", self._topic, self._group, str(place.id), *_entries_read(place))
        except ChurnGuardError:  # somebody else has made it just now; if not, the next question tells
            groups = self._server.ask("XINFO", "GROUPS", self._topic)
            if (found := self._group_at(groups)) is None:
                raise
            return found
        return place.id

    def _set_group(self, place: Place) -> None:
        self._server.ask("XGROUP", "SETID", self._topic, self._group, str(place.id), *_entries_read(place))
        self._delivered = place.id

    def _pending_first(self, place: Place) -> tuple[EntryId, int] | None:
        found = self._server.ask("XPENDING", self._topic, self._group, str(place.id.next), "+", 1)
        return (parsed(found[0][0]), int(found[0][3])) if found else None

    def _claim(self, place: Place, facts: Facts) -> Sequence[Loss]:
        """All that is pending becomes this consumer's; what is stored already is acknowledged, what was deleted before
        it was stored is told: from between those that are still there, as the others are counted when they are read."""
        counted = max(place.id, facts.before_first)
        cursor, deleted = "0-0", []
        while not self._cancelled.is_set():
            found, ours, *gone = self._server.ask(
                "XAUTOCLAIM", self._topic, self._group, self._consumer, 0, cursor, "COUNT", _CLAIMED_AT_ONCE, "JUSTID"
            )
            if stored := [each for each in ours if parsed(each) <= place.id]:
                self._server.ask("XACK", self._topic, self._group, *stored)
            deleted += [entry for each in (gone[0] if gone else ()) if (entry := parsed(each)) > counted]
            cursor = found.decode()
            if cursor == "0-0":
                break
        if not deleted:
            return ()
        reason = f"{len(deleted):,} of these entries were delivered, and deleted before they were stored"
        return [Loss(self._topic, PARTITION, str(min(deleted)), str(max(deleted)), reason)]

    def _forget_the_dead(self) -> None:
        """Consumers of earlier turns that have nothing pending any more."""
        for each in self._server.ask("XINFO", "CONSUMERS", self._topic, self._group):
            told = fields_of(each)
            name = told[b"name"].decode("utf-8", "replace")
            if name.startswith(CONSUMERS) and name != self._consumer and told[b"pending"] == 0:
                self._server.ask("XGROUP", "DELCONSUMER", self._topic, self._group, name)

    def _count_delivery(self, entry: EntryId, deliveries: int) -> None:
        """It becomes pending if it was not."""
        self._server.ask(
            "XCLAIM", self._topic, self._group, self._consumer, 0, str(entry),
            "RETRYCOUNT", deliveries, "FORCE", "JUSTID",
        )  # fmt: skip

    def _give_back(self, entry: EntryId, deliveries: int) -> None:
        """It was not this entry's fault; where the server does not hear us, it is counted once too often."""
        with suppress(ChurnGuardError):
            self._count_delivery(entry, deliveries)


def _entries_read(place: Place) -> tuple[str | int, ...]:
    return () if place.added is None else ("ENTRIESREAD", place.added)


def batches_again(
    server: Server, stream: StreamConfiguration, options: RedisOptions, topic: str, place: Place, cancelled: Event
) -> Generator[MessageBatch | None]:
    """The same entries, of which the group does not hear."""
    messages, portions = Messages(stream, options, topic), Portions(stream)
    while True:
        answer = server.ask(
            "XRANGE", topic, f"({place.id}", "+", "COUNT", portions.count, kept=portions.kept
        )  # fmt: skip
        entries = portions.fitting(entries_of(answer), server.received)
        if entries:
            found = messages.of(entries, place.version)
            place = Place(entries[-1][0], None, found[-1].version)
            yield MessageBatch(place.position, found)
        else:
            cancelled.wait(READ_WITHIN)
            yield None
