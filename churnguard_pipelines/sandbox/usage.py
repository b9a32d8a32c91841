"""The product of a business tells of what is done in it: an event as JSON, on a Redis stream or a Kafka topic.

`{account}.product_usage`, at `redis://…` or `kafka://host:port,…`. The history is written once, into an empty stream;
while the business lives, somebody does something several times a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from hashlib import sha256
from random import Random
from typing import Any, Protocol

import orjson

from churnguard_pipelines.sandbox.business import usage
from churnguard_pipelines.sandbox.world import World

TOPIC = "{account}.product_usage"
EVERY = 0.25  # seconds, on average
KEPT = 100_000  # entries of a Redis stream, or a few more
PARTITIONS = 4
PATIENCE_SECONDS = 30


class Feed(Protocol):
    """Where events are published. ``away``: what its calls raise while nobody answers."""

    away: tuple[type[Exception], ...]

    def published(self) -> int:
        """How many there have been ever: the broker knows."""
        ...

    def publish(self, events: Sequence[dict[str, Any]]) -> None: ...

    def close(self) -> None: ...


class RedisFeed:
    def __init__(self, url: str, name: str) -> None:
        import redis

        self.away: tuple[type[Exception], ...] = (redis.RedisError,)
        self._name = name
        self._server = redis.Redis.from_url(url, socket_timeout=PATIENCE_SECONDS)

    def published(self) -> int:
        if not self._server.exists(self._name):
            return 0
        told: Any = self._server.xinfo_stream(self._name)
        return int(told["entries-added"])

    def publish(self, events: Sequence[dict[str, Any]]) -> None:
        """All or none of them."""
        with self._server.pipeline(transaction=True) as pipeline:
            for event in events:
                pipeline.xadd(self._name, {"data": orjson.dumps(event)}, maxlen=KEPT, approximate=True)
            pipeline.execute()

    def close(self) -> None:
        self._server.close()


class KafkaFeed:
    def __init__(self, servers: str, name: str) -> None:
        from confluent_kafka import KafkaError, KafkaException, Producer
        from confluent_kafka.admin import AdminClient, NewTopic

        self.away: tuple[type[Exception], ...] = (KafkaException, TimeoutError)
        self._name = name
        self._admin = AdminClient({"bootstrap.servers": servers})
        self._producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 5})
        try:
            self._admin.create_topics([NewTopic(name, PARTITIONS)])[name].result(PATIENCE_SECONDS)
        except KafkaException as problem:
            if problem.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def published(self) -> int:
        from confluent_kafka import KafkaError, KafkaException

        # Of a topic that was made just now: it has no leader yet, or not all have heard of that.
        not_yet = (
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError.LEADER_NOT_AVAILABLE,
            KafkaError.NOT_LEADER_FOR_PARTITION,
            KafkaError.UNKNOWN_LEADER_EPOCH,
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._ends()
            except KafkaException as problem:
                if problem.args[0].code() not in not_yet or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _ends(self) -> int:
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import OffsetSpec

        partitions = self._admin.list_topics(self._name, timeout=PATIENCE_SECONDS).topics[self._name].partitions
        asked = self._admin.list_offsets({TopicPartition(self._name, each): OffsetSpec.latest() for each in partitions})
        return sum(answer.result(PATIENCE_SECONDS).offset for answer in asked.values())

    def publish(self, events: Sequence[dict[str, Any]]) -> None:
        for event in events:
            self._producer.produce(self._name, orjson.dumps(event), key=event["customer_id"])
        if self._producer.flush(PATIENCE_SECONDS):
            raise TimeoutError(f"Kafka has not taken all of {self._name}")

    def close(self) -> None:
        self._producer.flush(PATIENCE_SECONDS)


def feed_at(url: str, account: str) -> Feed:
    name = TOPIC.format(account=account)
    servers = url.removeprefix("kafka://")
    return RedisFeed(url, name) if servers == url else KafkaFeed(servers, name)


class Usage:
    """One business's events on a feed, which is reached. Lives in a thread of its own after :meth:`live`."""

    def __init__(self, world: World, account: str, feed: Feed) -> None:
        self._world, self._account, self._feed = world, account, feed
        self._chance = Random(f"{account}/usage")  # noqa: S311 - a simulation
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._published = feed.published()
        if not self._published:
            with world.lock:
                done = usage.history(world.businesses[account])
            self._publish(done)

    @property
    def books(self) -> dict[str, Any]:
        """How many events have been published, and a digest of their ids, one a line in their order."""
        ids = "\n".join(map(usage.event_id, range(1, self._published + 1)))
        return {"events": self._published, "ids_sha256": sha256(ids.encode()).hexdigest()}

    def live(self) -> None:
        self._thread = threading.Thread(target=self._live, name=f"usage-{self._account}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._feed.close()

    def _live(self) -> None:
        while not self._ended.is_set():
            try:
                self._published = self._feed.published()
                while not self._ended.wait(self._chance.expovariate(1 / EVERY)):
                    self._moment()
            except self._feed.away:  # life goes on when it is back
                self._ended.wait(1.0)

    def _moment(self) -> None:
        with self._world.lock:
            business = self._world.businesses[self._account]
            doing = usage.present(business, int(time.time()), self._chance)
        if doing is not None:
            self._publish([doing])

    def _publish(self, done: Sequence[usage.Doing]) -> None:
        self._feed.publish([each.event(number) for number, each in enumerate(done, self._published + 1)])
        self._published += len(done)
