"""Reads one partition from a place on: librdkafka's consumer, the versions of messages, places to go on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as KafkaMessage

from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.kafka.errors import Heard
from churnguard_pipelines.streams.kafka.options import KafkaOptions
from churnguard_pipelines.streams.sdk import READ_WITHIN, Message, MessageBatch

LINGER = 0.02
"""Seconds in which messages that come one by one are gathered to a batch."""
SLICE, BATCH_BYTES = 1000, 8 * 1024 * 1024
"""What is taken at once, and how many bytes of messages fill a batch."""
COMMIT_EVERY = 1.0
LATEST_TIME = 1 << 42
"""Milliseconds; a message that claims to be of a later year than 2109 has no say in what is newer."""
_OFFSET_BITS = 20
_LOW_OFFSET = (1 << _OFFSET_BITS) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a partition is read on. ``version``: the highest of a message before it; ``epoch``: the leader's under
    which the last one was written, by which Kafka notices that its log was cut off and written anew."""

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
    """One thread. ``properties``: of the cluster's clients; ``heard``: what the consumer told of its connections."""

    def __init__(
        self,
        topic: str,
        number: int,
        place: Place,
        *,
        make: Callable[[dict[str, Any]], Consumer],
        properties: Mapping[str, Any],
        options: KafkaOptions,
        group: str,
        batch_size: int,
        tells_kafka: bool,
    ) -> None:
        self.topic, self.number, self.place = topic, number, place
        self.heard = Heard()
        self.failure: KafkaError | None = None
        self._batch_size = batch_size
        self._tells_kafka = tells_kafka
        self._stored = place.offset
        self._committed, self._committed_at = place.offset, time.monotonic()
        self._consumer = make({**properties, **_consuming(options), "group.id": group, "error_cb": self.heard})
        try:
            self._consumer.assign([self._at(place.offset, place.epoch)])
        except BaseException:
            self._consumer.close()
            raise

    def close(self) -> None:
        self._tell_kafka(now=True)
        self._consumer.close()

    def batches(self) -> Iterator[MessageBatch | None]:
        """Until something came that is no message: :attr:`failure`."""
        while self.failure is None:
            messages, failure = self._read()
            moved = self.place.offset > self._stored
            if moved:
                yield MessageBatch(self.place.position, messages, buffered=min(1.0, len(messages) / self._batch_size))
                self._stored = self.place.offset
            elif failure is None:
                yield None
            self._tell_kafka(now=False)
            self.failure = failure

    def _read(self) -> tuple[list[Message], KafkaError | None]:
        """What there is now, waiting for the first; and the error that stands behind it."""
        messages: list[Message] = []
        size, wanted, wait = 0, 1, READ_WITHIN / 2
        while True:
            told = self._consumer.consume(wanted, wait)
            for each in told:
                error = each.error()
                if error is None:
                    messages.append(self._message(each))
                    size += len(each)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._pass(each.offset())
                elif error.code() not in _NO_MATTER:
                    return messages, error
            if len(told) < wanted or size >= BATCH_BYTES or len(messages) >= self._batch_size:
                return messages, None
            wanted, wait = min(self._batch_size - len(messages), SLICE), LINGER

    def _message(self, told: KafkaMessage) -> Message:
        topic, number = self.topic, self.number
        offset: int = told.offset()  # type: ignore[assignment]  # a message that was read has one
        _, moment = told.timestamp()
        place = self.place
        version = max(place.version + 1, version_of(moment, offset))
        self.place = Place(offset + 1, place.topic_id, version, told.leader_epoch())
        headers = _headers(told)
        produced_at = moment if moment >= 0 else None
        return Message(topic, str(number), str(offset), version, told.key(), told.value(), produced_at, headers)

    def _pass(self, end: int | None) -> None:
        """Markers of transactions, what was aborted and what compaction took are passed without a message."""
        if end is not None and end > self.place.offset:
            self.place = replace(self.place, offset=end)

    def _tell_kafka(self, *, now: bool) -> None:
        """A courtesy to Kafka's own tools; that it fails is no matter."""
        if not self._tells_kafka or self._stored == self._committed:
            return
        if not (now or time.monotonic() - self._committed_at >= COMMIT_EVERY):
            return
        self._committed, self._committed_at = self._stored, time.monotonic()
        self._consumer.commit(offsets=[self._at(self._stored, None)], asynchronous=True)

    def _at(self, offset: int, epoch: int | None) -> TopicPartition:
        if epoch is None:
            return TopicPartition(self.topic, self.number, offset)
        return TopicPartition(self.topic, self.number, offset, leader_epoch=epoch)


_NO_MATTER = (
    KafkaError.GROUP_AUTHORIZATION_FAILED,  # only Kafka's own tools know less then
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
)
"""Comes instead of a message, and passes by itself."""


def version_of(moment: int, offset: int) -> int:
    """Orders messages of different partitions by their clock: a key that moved to another partition is not held up by
    its last version in the old one. Milliseconds since 1970."""
    return (min(max(moment, 0), LATEST_TIME) << _OFFSET_BITS) | (offset & _LOW_OFFSET)


def _headers(told: KafkaMessage) -> dict[str, str]:
    """What is no text, or none that PostgreSQL takes, is escaped; of several of one name the last holds."""
    headers = told.headers()
    if not headers:
        return {}
    pairs = headers.items() if isinstance(headers, dict) else headers
    return {_text(name): _text(value) for name, value in pairs}


def _text(value: str | bytes | None) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value or ""
    return text.replace("\0", "\\x00") if "\0" in text else text


def _consuming(options: KafkaOptions) -> dict[str, Any]:
    """A consumer's own: nothing is committed or skipped by itself, and little is read ahead, as many are open."""
    return {
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "allow.auto.create.topics": False,
        "fetch.wait.max.ms": options.fetch_wait_max_ms,
        "fetch.min.bytes": options.fetch_min_bytes,
        "fetch.error.backoff.ms": 200,
        "fetch.queue.backoff.ms": 10,
        "fetch.max.bytes": 1024 * 1024,
        "max.partition.fetch.bytes": 1024 * 1024,
        "queued.max.messages.kbytes": 2048,
        "receive.message.max.bytes": 128 * 1024 * 1024,
    }
