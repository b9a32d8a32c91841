"""Kafka's topics: a lane for each partition, read from the warehouse's own offset on.

The warehouse has the offsets; Kafka gets them afterwards, for its own tools. A consumer is assigned its partition by
us, not by the group's protocol: who reads what is decided by our leases, and moves one partition at a time.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from copy import copy
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import ClassVar

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import (
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
    SourceChanged,
)
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.kafka.cluster import (
    EARLIEST,
    LATEST,
    LATEST_BY_TIME,
    Offset,
    Partition,
    Topic,
    cluster_of,
)
from churnguard_pipelines.streams.kafka.errors import explained
from churnguard_pipelines.streams.kafka.names import is_pattern, is_topic, matching, parsed, partition_name
from churnguard_pipelines.streams.kafka.options import options_of
from churnguard_pipelines.streams.kafka.reading import LATEST_TIME, Place, Reader, version_of
from churnguard_pipelines.streams.sdk import MessageBatch, Seek, StreamSource, Watermark

MOST_PARTITIONS = 2_000
"""That a stream may have; each is a lane."""
DOWN_FOR = 20.0
"""Seconds without a broker after which it is asked whether any answers."""
QUIET_FOR = 20.0
"""Seconds without a message after which it is asked whether the partition can be read at all."""


class Kafka(StreamSource):
    provider: ClassVar[str] = "kafka"

    def __init__(self, stream: StreamConfiguration, guard: AddressGuard, cancelled: Event) -> None:
        super().__init__(stream, guard, cancelled)
        self._options = options_of(stream, guard)
        if unknown := [topic for topic in stream.topics if not is_topic(topic)]:
            raise InvalidConfiguration(
                f"{unknown[0][:100]!r} cannot be a topic of Kafka's.",
                integration_id=stream.stream_id,
                remedy="Its letters are a-z, A-Z, 0-9, dot, underscore and dash; in a pattern * stands for any.",
            )
        self._cluster = cluster_of(self._options, guard, stream.organization_id)
        self._waited: dict[Partition, tuple[Place | None, datetime]] = {}

    def identity(self) -> str:
        with self._named():
            return self._cluster.identity()

    def check(self) -> None:
        with self._named():
            self._cluster.identity(now=True)
            topics = self._topics()
            if idle := [each for each in self.stream.topics if is_pattern(each) and not matching([each], topics)]:
                raise InvalidConfiguration(
                    f"no topic that may be seen matches {idle[0]!r}.", remedy="Correct `topics`, or allow DESCRIBE."
                )
            if secret := sorted(name for name, topic in topics.items() if not topic.readable):
                raise PermissionMissing(
                    f"its user may not read {', '.join(secret[:5])}.", remedy="Allow READ on them in Kafka's ACLs."
                )

    def partitions(self) -> Sequence[str]:
        with self._named():
            return [partition_name(*each) for each in _partitions(self._topics())]

    def watermarks(self, stored: Mapping[str, Position]) -> Mapping[str, Watermark]:
        with self._named():
            topics = self._topics(stored)
            places = {parsed(name): Place.of(position) for name, position in stored.items()}
            wanted = [(*each, EARLIEST) for each in _partitions(topics) if each not in places]
            wanted += [(*each, LATEST) for each in _partitions(topics)]
            found = self._cluster.offsets(wanted)
            ends = {(name, number): told.offset for (name, number, spec), told in found.items() if spec == LATEST}
            begins = {(name, number): told.offset for (name, number, spec), told in found.items() if spec == EARLIEST}
            behind: dict[Partition, int | None] = dict.fromkeys(_partitions(topics))
            for each, end in ends.items():  # nobody leads the others just now: whoever reads them says so
                place, topic = places.get(each), topics[each[0]]
                if place is None:
                    behind[each] = None if self.stream.start == "latest" else end - begins.get(each, end)
                else:
                    if place.topic_id != topic.id or place.offset > end:
                        self._check_place(each, place)  # where it ends may have been asked before the place was stored
                    behind[each] = max(0, end - place.offset)
            for name, topic in topics.items():
                if gone := [each for each in places if each[0] == name and each[1] >= topic.partitions]:
                    self._check_topic(gone[0], places[gone[0]])
            oldest = self._oldest({each: places.get(each) for each, messages in behind.items() if messages})
            return {
                partition_name(*each): Watermark(str(ends.get(each, "")), messages, oldest.get(each))
                for each, messages in behind.items()
            }

    def batches(self, partition: str, position: Position | None) -> Generator[MessageBatch | None]:
        with self._named():
            self._cluster.identity(now=True)
            which = parsed(partition)
            place = self._beginning(which) if position is None else Place.of(position)
            self._check_place(which, place)
            group = None if self.again else self._options.group_id or f"churnguard-{self.stream.stream_id}"
            reader = Reader(
                self._cluster, self._options, which, place, stream=self.stream, group=group,
                check=partial(self._check_news, which),
            )  # fmt: skip
            with closing(reader):
                if position is None:
                    yield MessageBatch(place.position)
                yield from self._watched(reader)

    def sought(self, seek: Seek) -> Mapping[str, Position]:
        with self._named():
            topics = self._topics()
            all_of_them = _partitions(topics)
            if isinstance(seek.to, Mapping):
                told = self._given(seek.to, all_of_them)
            else:
                spec = {"earliest": EARLIEST, "latest": LATEST}.get(seek.to) if isinstance(seek.to, str) else None
                if spec is None and not isinstance(seek.to, datetime):
                    raise InvalidConfiguration(
                        f"{seek.to!r} is no place in a topic.", remedy="Say earliest, latest, a time or offsets."
                    )
                told = self._offsets(all_of_them, LATEST)
                asked = spec if spec is not None else max(0, int(seek.to.timestamp() * 1000))  # type: ignore[union-attr]
                # Of a moment after the last message there is no offset: then it is the end.
                told |= {each: offset for each, offset in self._offsets(all_of_them, asked).items() if offset >= 0}
            latest = self._cluster.offsets([(*each, LATEST_BY_TIME) for each in told], now=True)
            return {
                partition_name(*each): Place(
                    offset, topics[each[0]].id, _version_before(offset, latest.get((*each, LATEST_BY_TIME)))
                ).position
                for each, offset in told.items()
            }

    def _watched(self, reader: Reader) -> Iterator[MessageBatch | None]:
        quiet = time.monotonic()
        for batch in reader.batches():
            yield batch
            now = time.monotonic()
            if batch is not None:
                quiet = now
                continue
            self._cluster.check_heard(reader.heard)
            down = reader.heard.down
            if down is not None and now - down > DOWN_FOR:
                self._cluster.identity(now=True)
                reader.heard.down = None
            elif down is None and now - quiet > QUIET_FOR:
                self._check_place(reader.partition, reader.place)
                quiet = time.monotonic()
        assert reader.failure is not None
        self._check_place(reader.partition, reader.place)
        raise explained(self.guard, reader.failure, "its brokers")

    def _beginning(self, partition: Partition) -> Place:
        name, number = partition
        topic = self._cluster.topics([name], now=True).get(name)
        found = self._offsets([partition], LATEST if self.stream.start == "latest" else EARLIEST)
        if topic is None or partition not in found:
            raise InvalidConfiguration(f"there is no partition {number} of a topic {name}.", remedy="Correct `topics`.")
        return Place(found[partition], topic.id)

    def _check_news(self, partition: Partition, place: Place) -> None:
        """A broker that came to be one may be reached, the topic is the one it was, and the partition has a leader."""
        self._cluster.identity(now=True)
        self._check_topic(partition, place)

    def _check_topic(self, partition: Partition, place: Place) -> None:
        name, number = partition
        topic = self._cluster.topics([name], now=True).get(name)
        if topic is None:
            raise self._changed(f"the topic {name}, read to offset {place.offset:,}, is not there any more.")
        if topic.id != place.topic_id:
            raise self._changed(
                f"the topic {name} was deleted and made anew (its id was {place.topic_id} and is {topic.id}): "
                f"offset {place.offset:,} of partition {number} belongs to the old one."
            )
        if number >= topic.partitions:
            raise self._changed(
                f"partition {number} of {name}, read to offset {place.offset:,}, is gone: it has {topic.partitions:,}."
            )
        if number in topic.without_leader:
            raise ProviderUnavailable(
                f"partition {number} of {name} has no leader: the brokers that have it are away.",
                remedy="It is tried again; if it lasts, look after them.",
            )

    def _check_place(self, partition: Partition, place: Place) -> None:
        """Raises ``SourceChanged`` if reading cannot go on from there: whoever did would skip or repeat in silence."""
        self._check_topic(partition, place)
        bounds = [(*partition, EARLIEST), (*partition, LATEST)]
        found = self._cluster.offsets(bounds, now=True)
        low, high = (found[each].offset if each in found else place.offset for each in bounds)
        held = f"{partition_name(*partition)} now holds offsets {low:,} to {high:,}"
        if place.offset < low:
            raise self._changed(
                f"{held}, and is read to {place.offset:,}: up to {low - place.offset:,} messages were deleted before "
                "they were read, by the topic's retention or by somebody."
            )
        if place.offset > high:
            raise self._changed(
                f"{held}, and was read to {place.offset:,} already: Kafka lost its latest {place.offset - high:,}."
            )

    def _changed(self, what: str) -> SourceChanged:
        return SourceChanged(
            what,
            remedy=f"Decide where to read on: `churnguard streams seek {self.stream.stream_id} --to earliest`, latest, "
            "a time or offsets. Nothing is skipped or repeated until then.",
        )

    def _topics(self, stored: Mapping[str, Position] | None = None) -> dict[str, Topic]:
        named = {each for each in self.stream.topics if not is_pattern(each)}
        patterns = [each for each in self.stream.topics if is_pattern(each)]
        wanted = named | (matching(patterns, self._cluster.topic_names()) if patterns else set())
        topics = self._cluster.topics(wanted) if wanted else {}
        if missing := sorted(named - topics.keys()):
            if any(parsed(partition)[0] in missing for partition in stored or ()):
                raise self._changed(f"the topic {missing[0]} is not there any more.")
            raise InvalidConfiguration(
                f"there is no topic {', '.join(missing[:5])}.", remedy="Correct `topics`, or create it in Kafka."
            )
        if (count := sum(topic.partitions for topic in topics.values())) > MOST_PARTITIONS:
            raise InvalidConfiguration(
                f"its topics have {count:,} partitions; a stream may have {MOST_PARTITIONS:,}.",
                remedy="Read them by several streams.",
            )
        return topics

    def _oldest(self, waiting: Mapping[Partition, Place | None]) -> dict[Partition, datetime]:
        """When the first message was produced that is not stored yet, as far as partitions' clocks only go forward. A
        partition is asked for it again once it has been read on: that is work for its broker."""
        known = {each: told for each, told in self._waited.items() if each in waiting and waiting[each] == told[0]}
        asked = [(*each, place.moment + 1 if place else 0) for each, place in waiting.items() if each not in known]
        found = self._cluster.offsets(asked, now=True) if asked else {}
        for (name, number, _), told in found.items():
            place = waiting[name, number]
            if 0 <= told.at < LATEST_TIME and (place is None or told.offset >= place.offset):
                moment = datetime.fromtimestamp(told.at / 1000, UTC)
                known[name, number] = place, moment
        self._waited = known
        return {each: moment for each, (_, moment) in known.items()}

    def _offsets(self, partitions: Sequence[Partition], spec: int) -> dict[Partition, int]:
        found = self._cluster.offsets([(*each, spec) for each in partitions], now=True)
        return {(name, number): told.offset for (name, number, _), told in found.items()}

    def _given(self, wanted: Mapping[str, str], there: Sequence[Partition]) -> dict[Partition, int]:
        known = {partition_name(*each): each for each in there}
        if unknown := sorted(wanted.keys() - known.keys()):
            raise InvalidConfiguration(
                f"there is no partition {unknown[0]!r}.", remedy=f"There are: {', '.join(list(known)[:20])}."
            )
        asked = [known[name] for name in wanted]
        lows, highs = self._offsets(asked, EARLIEST), self._offsets(asked, LATEST)
        for name, text in wanted.items():
            low, high = lows[known[name]], highs[known[name]]
            if not (text.isascii() and text.isdigit() and len(text) <= 20 and low <= int(text) <= high):
                raise InvalidConfiguration(f"{name} has no offset {text[:20]!r}.", remedy=f"It has {low} to {high}.")
        return {known[name]: int(text) for name, text in wanted.items()}

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Clients are shared; an error is of this stream."""
        try:
            yield
        except ChurnGuardError as error:
            raise _told_of(self.stream.stream_id, error) from None


def _partitions(topics: Mapping[str, Topic]) -> list[Partition]:
    return [(name, number) for name in sorted(topics) for number in range(topics[name].partitions)]


def _told_of(stream_id: str, error: ChurnGuardError) -> ChurnGuardError:
    own = copy(error)
    own.integration_id = stream_id
    return own


def _version_before(offset: int, latest: Offset | None) -> int:
    """That of the message before it. ``latest``: the message with the latest time, which all behind it are ahead of:
    read on there without that, they would count as older than what is stored."""
    if latest is None or not 0 <= latest.offset < offset:
        return 0
    return version_of(latest.at, latest.offset) + offset - 1 - latest.offset
