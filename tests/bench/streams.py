"""Streams: how many messages a second one session stores, beside what one writes by hand against the same broker; how
soon a message is a row, what a backlog needs of memory, what quiet streams cost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import orjson
import psutil
import psycopg
import redis
from confluent_kafka.admin import NewTopic

from churnguard_pipelines.cli.demo.broker import Broker, server_program
from churnguard_pipelines.model import Organization, StreamConfiguration, StreamTarget, StreamType
from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.target import table_of
from tests.bench.bare_streams import BARE_KAFKA, BARE_REDIS, kafka_to_postgresql, redis_to_nowhere
from tests.bench.child import Streamed, streamed_in_child
from tests.bench.harness import Row, compare
from tests.conftest import as_administrator
from tests.sources.homes import temporary_home
from tests.sources.kafka import KafkaServer, running_kafka

AREA, ORGANIZATION = "streams", "bench-streams"
MESSAGES, BACKLOG = 400_000, 1_000_000
"""So many that the 0.3 s in which a session finds its streams and begins to read them count for little."""
KEYS = 200_000
"""Different ones: each second message of the upsert is about a record that is there already."""
PARTITIONS = 4
MESSAGE_BYTES = 300
MAPPINGS = {
    "id": "usage_id", "event": "event", "seats": "seats:bigint", "amount": "amount:numeric",
    "occurred_at": "occurred_at:timestamptz",
}  # fmt: skip
_numbers = count(1)
WARM_RATE, WARM_SECONDS = 500, 20
IDLE_SECONDS = 20
CONFIGURED = 500
SESSION = """
import sys
from churnguard_pipelines.model import StreamType
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.streams.kind import KINDS
store = Store.open(load_settings(), migrate=False)
Session(store, "bench", KINDS[StreamType(sys.argv[1])](store), linger=600).run()
"""
TICK = """
import sys, time
import dagster as dg
from churnguard_pipelines.definitions import definitions
repository = definitions.get_repository_def()
sensor = repository.get_sensor_def(sys.argv[1])
with dg.DagsterInstance.get() as instance, dg.partition_loading_context(dynamic_partitions_store=instance):
    took = []
    for _ in range(4):
        begun = time.perf_counter()
        sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=repository))
        took.append(time.perf_counter() - begun)
        time.sleep(5)  # as the daemon does; by then all are asked again
print(max(took[1:]))
"""


def run(store: Store) -> Iterator[Row]:
    add_organization(store, Organization(organization_id=ORGANIZATION, name="Bench"), actor="bench")
    with running_kafka() as kafka:
        produce(kafka, "many", MESSAGES)
        database = as_administrator(store.database_url)
        bare = partial(kafka_to_postgresql, database, kafka.address, "many", PARTITIONS, MESSAGES)
        for target in StreamTarget:
            ours = partial(_seconds, store, partial(_of_kafka, kafka, "many", target))
            yield compare(AREA, f"kafka_{target}", "messages/s", MESSAGES, ours, bare, BARE_KAFKA)
        yield _backlog(store, kafka)
        yield from _warm_and_idle(store, kafka)
        yield _tick(store, kafka)
    with _valkey() as url:
        fill(url, "many", MESSAGES)
        bare = partial(redis_to_nowhere, url, "many", MESSAGES)
        ours = partial(_seconds, store, partial(_of_redis, url, "many"))
        yield compare(AREA, "redis", "messages/s", MESSAGES, ours, bare, BARE_REDIS)


@contextmanager
def _valkey() -> Iterator[str]:
    program = server_program()
    assert program is not None
    with temporary_home() as home:
        broker = Broker(home, program)
        try:
            yield broker.start()
        finally:
            broker.stop()


def _seconds(store: Store, made: Callable[[], StreamConfiguration]) -> float:
    return stored(store, made(), MESSAGES).seconds


def stored(store: Store, stream: StreamConfiguration, messages: int) -> Streamed:
    """All that its topic has, into an empty table; it is removed afterwards."""
    managing.create(store, stream, actor="bench")
    try:
        took = streamed_in_child(stream.stream_type, messages)
        _must_have(store, stream, KEYS if stream.target == StreamTarget.UPSERT else messages)
    finally:
        managing.remove(store, stream.stream_id, actor="bench", purge=True)
    return took


def _must_have(store: Store, stream: StreamConfiguration, rows: int) -> None:
    there = Warehouse(store).count(table_of(stream).name, ORGANIZATION, stream.stream_id)
    assert there == rows, f"{there:,} of {rows:,} rows"


def _backlog(store: Store, kafka: KafkaServer) -> Row:
    produce(kafka, "backlog", BACKLOG)
    took = stored(store, _of_kafka(kafka, "backlog"), BACKLOG)
    rate = BACKLOG / took.seconds
    return Row(AREA, "kafka_backlog_1m", "messages/s", rate, None, None, None, peak_mib=took.peak_mib)


def _warm_and_idle(store: Store, kafka: KafkaServer) -> Iterator[Row]:
    """The same session: first it has messages at a steady rate, then none."""
    stream = _of_kafka(kafka, kafka.create("paced", PARTITIONS))
    managing.create(store, stream, actor="bench")
    session = psutil.Popen([sys.executable, "-c", SESSION, stream.stream_type], env=dict(os.environ))
    try:
        _paced(store, kafka, stream, 3)  # until it is warm
        lags = sorted(_paced(store, kafka, stream, WARM_SECONDS))
        p50, p99 = lags[len(lags) // 2] * 1000, lags[len(lags) * 99 // 100] * 1000
        yield Row(AREA, "produce_to_row_warm", "messages/s", WARM_RATE, None, None, None, p50, p99)
        time.sleep(5)  # what came is told to whoever wants to know
        before = session.cpu_times()
        time.sleep(IDLE_SECONDS)
        spent = sum(session.cpu_times()[:2]) - sum(before[:2])
        yield Row(AREA, "idle_stream", "% of a core", 100 * spent / IDLE_SECONDS, None, None, None)
    finally:
        session.terminate()
        session.wait()
        managing.remove(store, stream.stream_id, actor="bench", purge=True)


def _paced(store: Store, kafka: KafkaServer, stream: StreamConfiguration, seconds: float) -> list[float]:
    """Seconds from the moment each was handed to the producer until its commit was seen; one clock. Rows and position
    become visible together, and the positions are few."""
    handed: dict[tuple[int, int], float] = {}
    seen: dict[tuple[int, int], float] = {}
    producer = kafka.producer(linger_ms=0)
    ended = threading.Event()
    observer = threading.Thread(target=_observe, args=[store, stream, ended, seen])
    observer.start()
    begun, number = time.time(), 0
    while (now := time.time()) < begun + seconds:
        while number < (now - begun) * WARM_RATE:
            key, value = message(number)
            told = partial(_note, handed, time.time())
            producer.produce(stream.topics[0], value, key=key, partition=number % PARTITIONS, on_delivery=told)
            number += 1
        producer.poll(0.001)
    producer.flush(60)
    deadline = time.monotonic() + 60
    while not seen.keys() >= handed.keys():
        assert time.monotonic() < deadline, "not all became rows"
        time.sleep(0.05)
    ended.set()
    observer.join()
    assert len(handed) == number
    return [seen[name] - at for name, at in handed.items()]


def _note(handed: dict[tuple[int, int], float], at: float, error: Any, message: Any) -> None:
    assert error is None, error
    handed[message.partition(), message.offset()] = at


def _observe(
    store: Store, stream: StreamConfiguration, ended: threading.Event, seen: dict[tuple[int, int], float]
) -> None:
    """Which offsets are stored, two hundred times a second."""
    question = "SELECT lane, position FROM ingest.checkpoints WHERE integration_id = %s"
    reached: dict[int, int] = {}
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        while not ended.wait(0.005):
            found = connection.execute(question, [stream.stream_id]).fetchall()
            now = time.time()
            for lane, position in found:
                part, until = int(lane.rpartition("/")[2]), int(position["offset"])
                for offset in range(reached.get(part, 0), until):
                    seen[part, offset] = now
                reached[part] = until


def _tick(store: Store, kafka: KafkaServer) -> Row:
    """Of the sensor that looks at all of them, once it has seen them; in a process of its own, as Dagster's is."""
    topics = [f"tick-{number}" for number in range(CONFIGURED)]
    made = kafka.admin.create_topics([NewTopic(each, 1) for each in topics])
    for each in made.values():
        each.result(120)
    streams = [_of_kafka(kafka, each) for each in topics]
    for stream in streams:
        STREAMS.add(store, stream, actor="bench")
    try:
        environment = os.environ | dagster_environment(store)
        command = [sys.executable, "-c", TICK, "kafka_messages_waiting"]
        told = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    finally:
        for stream in streams:
            STREAMS.remove(store, stream.stream_id, actor="bench")
    return Row(AREA, f"sensor_tick_{CONFIGURED}", "s", float(told.splitlines()[-1]), None, None, None)


def message(number: int) -> tuple[bytes, bytes]:
    """Key and value, of so many bytes."""
    key = f"usr_{number % KEYS:08d}"
    document = {
        "id": f"use_{number:010d}", "user": key, "event": "report_viewed", "seats": number % 50,
        "amount": f"{number % 10_000 / 100:.2f}", "occurred_at": "2026-11-26T12:00:00.000Z",
        "properties": {"report": "Churn by plan", "milliseconds": number % 1000}, "note": "",
    }  # fmt: skip
    lacking = MESSAGE_BYTES - len(orjson.dumps(document))
    return key.encode(), orjson.dumps(document | {"note": "x" * lacking})


def produce(kafka: KafkaServer, topic: str, messages: int) -> None:
    producer = kafka.producer(linger_ms=50)
    kafka.create(topic, PARTITIONS)
    for number in range(messages):
        key, value = message(number)
        while True:
            try:
                producer.produce(topic, value, key=key, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 1000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0


def fill(url: str, stream: str, messages: int) -> None:
    with redis.Redis.from_url(url) as server:
        for first in range(0, messages, 1000):
            with server.pipeline(transaction=False) as pipeline:
                for number in range(first, first + 1000):
                    pipeline.xadd(stream, {"data": message(number)[1]})
                pipeline.execute()


def _of_kafka(kafka: KafkaServer, topic: str, target: StreamTarget = StreamTarget.APPEND) -> StreamConfiguration:
    return _stream(StreamType.KAFKA, topic, target, bootstrap_servers=kafka.address)


def _of_redis(url: str, name: str) -> StreamConfiguration:
    return _stream(StreamType.REDIS, name, StreamTarget.APPEND, url=url)


def _stream(kind: StreamType, topic: str, target: StreamTarget, **connection: str) -> StreamConfiguration:
    """A new one each time, that begins with the topic's first message."""
    return StreamConfiguration.model_validate(
        {
            "stream_id": f"bench-{topic}-{next(_numbers)}",
            "organization_id": ORGANIZATION,
            "name": topic,
            "stream_type": kind,
            "topics": [topic],
            "processing_mode": "exactly_once",
            "target": target,
            "connection_config": connection,
            "field_mappings": MAPPINGS,
        }
    )
