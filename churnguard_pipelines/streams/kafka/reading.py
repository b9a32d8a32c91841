"""Reads one partition from a place on: librdkafka's consumer, the versions of messages, places to go on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as KafkaMessage

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.kafka.cluster import Cluster, Partition
from churnguard_pipelines.streams.kafka.errors import Heard, Journal
from churnguard_pipelines.streams.kafka.options import KafkaOptions
from churnguard_pipelines.streams.sdk import READ_WITHIN, Message, MessageBatch

LINGER = 0.02
"""Seconds in which messages that come one by one are gathered to a batch."""
SLICE, BATCH_BYTES = 1000, 8 * 1024 * 1024
"""What is taken at once, and how many bytes of messages fill a batch."""
LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes, beside those of two of the largest messages: a broker sends one batch of them at least, whatever its size."""
TELL_EVERY = 1.0
CLOSES_WITHIN = 2
"""Seconds. A consumer that ends waits for what it told a coordinator that is away as long as a member's session lasts,
which has no other meaning here, as it is no member: 45 s by default. One that hangs it waits for as long as that does;
nobody else does."""
LATEST_TIME = 1 << 42
"""Milliseconds; a message that claims to be of a later year than 2109 has no say in what is newer."""
_OFFSET_BITS = 20
_LOW_OFFSET = (1 << _OFFSET_BITS) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a partition is read on. ``version``: of messages before it none has a higher one, and all behind it do;
    ``epoch``: the leader's under which the last one was written, by which Kafka notices that its log was cut off and
    written anew."""

    offset: int
    topic_id: str
    version: int = 0
    epoch: int | None = None

    @classmethod
    def of(cls, position: Position) -> Self:
        return cls(position["offset"], position["topic_id"], position.get("version", 0), position.get("epoch"))

    @property
    def position(self) -> dict[str, Any]:
        told: dict[str, Any] = {"offset": self.offset, "topic_id": self.topic_id, "version": self.version}
        return told if self.epoch is None else told | {"epoch": self.epoch}

    @property
    def moment(self) -> int:
        """Milliseconds since 1970 of the last message before it, by the highest clock so far; 0 if there was none."""
        return self.version >> _OFFSET_BITS


class Reader:
    """One thread. ``check``: raises if it must not read on; asked before what was read is given, whenever there was
    news of brokers or topics. ``group``: who is told what is stored; None: nobody. ``heard``: what the consumer told of
    its connections; ``failure``: what came instead of a message and ended it."""

    def __init__(
        self,
        cluster: Cluster,
        options: KafkaOptions,
        partition: Partition,
        place: Place,
        *,
        stream: StreamConfiguration,
        group: str | None,
        check: Callable[[Place], None],
    ) -> None:
        self.partition, self.place = partition, place
        self.heard = Heard()
        self.failure: KafkaError | None = None
        self._journal = Journal()
        self._batch_size = stream.batch_size
        self._check = check
        self._tells_kafka = group is not None
        self._stored = place
        self._told: int | None = place.offset
        self._told_at = time.monotonic()
        own = {"error_cb": self.heard, "logger": self._journal, "debug": "metadata", "group.id": group or "churnguard"}
        own["on_commit"] = self._on_commit
        self._consumer = cluster.client(Consumer, _consuming(options, stream.largest_message) | own)
        try:
            self._consumer.assign([self._at(place)])
        except BaseException:
            self._consumer.close()
            raise

    def close(self) -> None:
        self._tell_kafka(now=True)
        futures.wait([in_thread("closes-a-consumer", self._consumer.close)], 2 * CLOSES_WITHIN)

    def batches(self) -> Iterator[MessageBatch | None]:
        """Until :attr:`failure`."""
        while self.failure is None:
            messages, self.failure = self._read()
            if self.place.offset > self._stored.offset:
                if self._journal.news:
                    self._journal.news = False
                    self._check(self._stored)
                yield MessageBatch(self.place.position, messages, buffered=min(1.0, len(messages) / self._batch_size))
                self._stored = self.place
            elif self.failure is None:
                yield None
            self._tell_kafka(now=False)

    def _read(self) -> tuple[list[Message], KafkaError | None]:
        """What there is now, waiting for the first; and the error that stands behind it."""
        messages: list[Message] = []
        size, wanted, wait = 0, 1, READ_WITHIN / 2
        while True:
            told = self._consumer.consume(wanted, wait)
            size += sum(map(len, told))
            failure = self._take(told, messages)
            if failure is not None or len(told) < wanted or size >= BATCH_BYTES or len(messages) >= self._batch_size:
                return messages, failure
            wanted, wait = min(self._batch_size - len(messages), SLICE), LINGER

    def _take(self, told: Sequence[KafkaMessage], into: list[Message]) -> KafkaError | None:
        """The hot path."""
        (topic, partition), last = self.partition, None
        name, offset = str(partition), self.place.offset
        ahead = self.place.version + 1 - offset  # versions rise as offsets do, and more where the clock goes on
        failure = None
        for each in told:
            error = each.error()
            if error is None:
                at: int = each.offset()  # type: ignore[assignment]  # a message that was read has one
                _, moment = each.timestamp()
                version, by_clock = ahead + at, version_of(moment, at)
                if by_clock > version:
                    version, ahead = by_clock, by_clock - at
                headers, defect = _headers(each)
                into.append(
                    Message(
                        topic, name, str(at), version, each.key(), each.value(), moment if moment >= 0 else None,
                        headers, defect,
                    )
                )  # fmt: skip
                offset, last = at + 1, each
            elif error.code() == KafkaError._PARTITION_EOF:
                # Markers of transactions, what was aborted and what compaction took are passed without a message.
                offset = max(offset, each.offset() or 0)
            elif each.topic() is not None and error.code() not in _PASSES:
                failure = error
                break
        epoch = last.leader_epoch() if last is not None else self.place.epoch
        self.place = Place(offset, self.place.topic_id, ahead + offset - 1, epoch)
        return failure

    def _tell_kafka(self, *, now: bool) -> None:
        """A courtesy to Kafka's own tools; that it is refused is no matter."""
        if not self._tells_kafka or self._stored.offset == self._told:
            return
        if now or time.monotonic() - self._told_at >= TELL_EVERY:
            self._told, self._told_at = self._stored.offset, time.monotonic()
            self._consumer.commit(offsets=[self._at(self._stored)], asynchronous=True)

    def _on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        if error is not None and (error.retriable() or error.code() in _WAITS):
            self._told = None

    def _at(self, place: Place) -> TopicPartition:
        epoch: dict[str, Any] = {} if place.epoch is None else {"leader_epoch": place.epoch}
        return TopicPartition(*self.partition, place.offset, **epoch)


_PASSES = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._TIMED_OUT)
"""Comes instead of a message, and passes by itself. What is of no topic is of the group, which is only a courtesy."""
_WAITS = (KafkaError._WAIT_COORD, *_PASSES)
_NONE: Mapping[str, str] = {}
_checked_headers = methodcaller("headers")
"""Not ``message.headers()``: of a name that is no UTF-8 it gives a list with a hole, and an error that is pending. Of a
method that was called often Python does not look for that, and the whole process dies; called so it always does."""


def version_of(moment: int, offset: int) -> int:
    """Orders messages of different partitions by their clock: a key that moved to another partition is not held up by
    its last version in the old one. Milliseconds since 1970. Of a partition's messages one that comes so and so many
    offsets after another has a version higher by as many at least, from wherever it is read."""
    if not 0 <= moment <= LATEST_TIME:
        moment = 0 if moment < 0 else LATEST_TIME
    return moment << _OFFSET_BITS | offset & _LOW_OFFSET


def _headers(told: KafkaMessage) -> tuple[Mapping[str, str], str | None]:
    """What is no text, or none that PostgreSQL takes, is escaped; of several of one name the last holds. And what is
    wrong with the message, if its headers cannot be read."""
    try:
        headers = _checked_headers(told)
    except (SystemError, UnicodeError):  # the client takes names for UTF-8, which Kafka does not ask for
        return {}, "the name of one of its headers is not UTF-8; its headers are not kept"
    if not headers:
        return _NONE, None
    return {
        _text(name): _text(value) for name, value in (headers.items() if isinstance(headers, dict) else headers)
    }, None


def _text(value: str | bytes | None) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value or ""
    return text.replace("\0", "\\x00") if "\0" in text else text


def _consuming(options: KafkaOptions, largest: int) -> dict[str, Any]:
    """A consumer's own: nothing is committed or skipped by itself, and little is read ahead, as many are open."""
    return {
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "session.timeout.ms": CLOSES_WITHIN * 1000,
        "heartbeat.interval.ms": CLOSES_WITHIN * 100,
        "allow.auto.create.topics": False,
        "fetch.wait.max.ms": options.fetch_wait_max_ms,
        "fetch.min.bytes": options.fetch_min_bytes,
        "fetch.error.backoff.ms": 200,
        "fetch.queue.backoff.ms": 10,
        "fetch.max.bytes": 1024 * 1024,
        "max.partition.fetch.bytes": 512 * 1024,
        "queued.max.messages.kbytes": 1024,
        "receive.message.max.bytes": 2 * largest + LARGEST_ANSWER,
    }
