"""A customer's applications that write to a topic, good and bad, in transactions and without; what they wrote is what
Kafka shows to a reader who knows nothing of us."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from tests.sources.kafka import KafkaServer

PARTITIONS = 4
KEYS = 5_000
CHUNK = 500
"""Messages of one transaction, or written beside one."""


@dataclass
class Truth:
    """``events``: number and whether it can be stored, by partition in the order of offsets; ``records``: the number of
    the newest message of each key, None if that says it is gone."""

    events: dict[int, list[tuple[int, int | None]]] = field(default_factory=dict)
    records: dict[str, int | None] = field(default_factory=dict)
    poison: set[str] = field(default_factory=set)
    keyless: set[str] = field(default_factory=set)


class Generator:
    """One thread. Every message that can be read has a number, each once but for those that are written twice."""

    def __init__(self, server: KafkaServer, topic: str, seed: int) -> None:
        self._topic = topic
        self._chance = random.Random(seed)
        self._failed: list[KafkaError] = []
        self._plain = server.producer(enable_idempotence=True, message_timeout_ms=300_000)
        self._transactional = server.producer(
            transactional_id=f"writes-{topic}", message_timeout_ms=300_000, transaction_timeout_ms=300_000
        )
        self._patiently(self._transactional.init_transactions)
        self.written: Counter[str] = Counter()
        self._number = 0

    def write(self, messages: int) -> None:
        for _ in range(0, messages, CHUNK):
            kind = self._chance.choice(("plain", "plain", "committed", "aborted"))
            if kind == "plain":
                self._chunk(self._plain, "plain")
                self._flush(self._plain)
                continue
            self._transactional.begin_transaction()
            self._chunk(self._transactional, kind)
            self._flush(self._transactional)
            finish = self._transactional
            self._patiently(finish.commit_transaction if kind == "committed" else finish.abort_transaction)

    def write_on(self, messages: int, over: threading.Event) -> None:
        """So many, and then some now and then until it is over: there is always something to read."""
        self.write(messages)
        while not over.wait(0.05):
            self.write(CHUNK)

    def _chunk(self, producer: Producer, kind: str) -> None:
        chance = self._chance
        for _ in range(CHUNK):
            self._number += 1
            key = f"k{chance.randrange(KEYS)}"
            dice = chance.random()
            body = json.dumps(
                {"n": self._number, "id": f"lost-{self._number}", "kind": kind, "pad": "x" * 150}
            ).encode()
            if dice < 0.01:
                self._produce(producer, key.encode(), b"{" + body)  # no JSON
            elif dice < 0.015:
                self._produce(producer, None, body)  # a record without a key
            elif dice < 0.05:
                self._produce(producer, key.encode(), None)
            else:
                self._produce(producer, key.encode(), body)
                if dice > 0.97:
                    self._produce(producer, key.encode(), body)  # the same once more
            self.written[kind] += 1

    def _produce(self, producer: Producer, key: bytes | None, value: bytes | None) -> None:
        while True:
            try:
                producer.produce(self._topic, value, key, on_delivery=self._delivered)
            except BufferError:
                producer.poll(0.1)
            else:
                producer.poll(0)
                return

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failed.append(error)

    def _flush(self, producer: Producer) -> None:
        while producer.flush(10):
            pass
        assert not self._failed, self._failed[:3]

    def _patiently(self, finish: Callable[[], None]) -> None:
        """The broker may be away; Kafka tells what may be asked again."""
        while True:
            try:
                finish()
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
            else:
                return


def truth(server: KafkaServer, topic: str) -> Truth:
    """What anybody reads there who only wants what was committed."""
    found = Truth()
    consumer = Consumer(
        {
            "bootstrap.servers": server.address, "group.id": "truth", "auto.offset.reset": "earliest",
            "isolation.level": "read_committed", "enable.partition.eof": True, "enable.auto.commit": False,
        }
    )  # fmt: skip
    with closing(consumer):
        for number in range(PARTITIONS):
            consumer.assign([TopicPartition(topic, number, 0)])
            _read(consumer, topic, number, found)
    return found


def _read(consumer: Consumer, topic: str, number: int, found: Truth) -> None:
    events = found.events.setdefault(number, [])
    while True:
        for message in consumer.consume(5000, 1.0):
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                return
            _note(message, f"{topic}/{number}/{message.offset()}", events, found)


def _note(message: Any, name: str, events: list[tuple[int, int | None]], found: Truth) -> None:
    offset, value = message.offset(), message.value()
    key = message.key().decode() if message.key() is not None else None
    if value is None:
        events.append((offset, None))
        found.records[str(key)] = None
        return
    try:
        told = json.loads(value)
    except ValueError:
        found.poison.add(name)
        return
    assert told["kind"] != "aborted"
    events.append((offset, told["n"]))
    if key is None:
        found.keyless.add(name)
    else:
        found.records[key] = told["n"]
