"""The yardsticks of streams: what one writes by hand in one file, with nothing around it."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import psycopg
import redis
from confluent_kafka import Consumer, TopicPartition

BATCH = 1000
BARE_KAFKA = "consume(1000) + binary COPY of what came + offsets, in one transaction"
BARE_REDIS = "XREADGROUP of 1000 + XACK, nothing written"
TABLES = """
CREATE TABLE IF NOT EXISTS public.bench_offsets (part int PRIMARY KEY, next_offset bigint NOT NULL);
CREATE TABLE IF NOT EXISTS public.bench_messages (
    part int NOT NULL, at_offset bigint NOT NULL, key text, value text NOT NULL, PRIMARY KEY (part, at_offset));
TRUNCATE public.bench_offsets, public.bench_messages;
"""
COPY = "COPY public.bench_messages (part, at_offset, key, value) FROM STDIN (FORMAT binary)"
OFFSETS = """INSERT INTO public.bench_offsets SELECT * FROM unnest(%s::int[], %s::bigint[])
    ON CONFLICT (part) DO UPDATE SET next_offset = excluded.next_offset"""


def kafka_to_postgresql(database_url: str, servers: str, topic: str, partitions: int, messages: int) -> float:
    """Seconds."""
    with psycopg.connect(database_url) as connection:
        connection.execute(TABLES)
        connection.commit()
        consumer = Consumer({
            "bootstrap.servers": servers, "group.id": "bench-bare", "enable.auto.commit": False,
            "enable.auto.offset.store": False, "isolation.level": "read_committed",
        })  # fmt: skip
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        read, begun = 0, time.perf_counter()
        while read < messages:
            read += _store(connection, consumer.consume(BATCH, 1.0))
        seconds = time.perf_counter() - begun
        consumer.close()
        assert connection.execute("SELECT count(*) FROM public.bench_messages").fetchone() == (messages,)
    return seconds


def _store(connection: psycopg.Connection[Any], messages: list[Any]) -> int:
    offsets: dict[int, int] = {}
    with connection.cursor() as cursor:
        with cursor.copy(COPY) as copy:
            copy.set_types(["int4", "int8", "text", "text"])
            for each in messages:
                part, offset = each.partition(), each.offset()
                copy.write_row((part, offset, each.key().decode(), each.value().decode()))
                offsets[part] = offset + 1
        cursor.execute(OFFSETS, [list(offsets), list(offsets.values())])
    connection.commit()
    return len(messages)


def redis_to_nowhere(url: str, stream: str, messages: int) -> float:
    """Seconds."""
    group = f"bare-{uuid4()}"
    with redis.Redis.from_url(url) as server:
        server.xgroup_create(stream, group, id="0")
        read, begun = 0, time.perf_counter()
        while read < messages:
            answer: Any = server.xreadgroup(group, "bench", {stream: ">"}, count=BATCH)
            [[_, entries]] = answer
            server.xack(stream, group, *(name for name, _ in entries))
            read += len(entries)
        seconds = time.perf_counter() - begun
        server.xgroup_destroy(stream, group)
    return seconds
