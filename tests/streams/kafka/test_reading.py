"""Messages of a partition, as Kafka has them, and places from which they are read on."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

import pytest
from confluent_kafka import Consumer, TopicPartition

from churnguard_pipelines.streams.kafka.reading import version_of
from tests.sources.kafka import KafkaServer
from tests.streams.kafka.conftest import Sources
from tests.streams.kafka.reading import read
from tests.streams.kafka.wire import produce_raw
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("kafka")


def test_messages_come_in_their_order_with_all_that_they_have(kafka: KafkaServer, topic: str, source: Sources) -> None:
    producer = kafka.producer()
    moment = 1_790_000_000_123
    producer.produce(topic, b"one", key=b"k1", timestamp=moment, headers=[("trace", b"abc"), ("trace", b"abd")])
    producer.produce(topic, b"", key=b"\xff", timestamp=moment + 1)
    producer.produce(topic, None, key=b"k1", timestamp=moment + 2)
    producer.flush()
    one, empty, tombstone = read(source(topic), f"{topic}/0", lambda done: len(done.messages) == 3).messages
    assert (one.topic, one.partition, one.offset, one.key, one.value) == (topic, "0", "0", b"k1", b"one")
    assert (one.produced_at, one.headers) == (moment, {"trace": "abd"})  # of two headers the last holds
    assert (empty.key, empty.value, tombstone.value) == (b"\xff", b"", None)
    assert one.version < empty.version < tombstone.version


def test_headers_that_are_no_text_are_escaped(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"x"], headers=[("raw", b"\xff\x00ok"), ("none", None), ("umlaut", "ä".encode())])
    (message,) = read(source(topic), f"{topic}/0", lambda done: done.messages).messages
    assert message.headers == {"raw": "\\xff\\x00ok", "none": "", "umlaut": "ä"}


def test_a_header_whose_name_is_no_text_is_its_messages_fault(kafka: KafkaServer, topic: str, source: Sources) -> None:
    """Kafka takes any bytes; the client's library does not, and took the whole process with it."""
    kafka.produce(topic, [b"good"] * 500, headers=[("name", b"x")])  # Python goes another way where it has gone often
    for _ in range(3):
        produce_raw(kafka.address, topic, b"bad", header=b"\xff\xfe")
    kafka.produce(topic, [b"good"], headers=[("name", b"x")])
    done = read(source(topic), f"{topic}/0", lambda done: len(done.messages) == 504)
    assert done.values == [*[b"good"] * 500, *[b"bad"] * 3, b"good"]
    told = "the name of one of its headers is not UTF-8; its headers are not kept"
    assert [message.defect for message in done.messages] == [*[None] * 500, *[told] * 3, None]
    assert done.messages[-1].headers == {"name": "x"}


def test_a_batch_has_as_many_messages_as_are_stored_together(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"%d" % number for number in range(2500)])
    done = read(source(topic, batch_size=700), f"{topic}/0", lambda done: len(done.messages) == 2500)
    assert max(len(batch.messages) for batch in done.batches) <= 700
    assert done.values == [b"%d" % number for number in range(2500)]


def test_large_messages_fill_a_batch_by_their_bytes(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [bytes(900_000)] * 40)
    done = read(source(topic), f"{topic}/0", lambda done: len(done.messages) == 40)
    assert max(sum(len(each.value or b"") for each in batch.messages) for batch in done.batches) < 24_000_000


def test_it_goes_on_from_the_position_that_holds(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"0", b"1", b"2"])
    first = read(source(topic, batch_size=2), f"{topic}/0", lambda done: len(done.messages) == 2)
    kafka.produce(topic, [b"3"])
    second = read(source(topic), f"{topic}/0", lambda done: done.offset == 4, first.position)
    assert [message.offset for message in second.messages] == ["2", "3"]
    assert second.messages[0].version > first.messages[-1].version


def test_the_first_position_is_stored_before_the_first_message(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"before"])
    latest = source(topic, start="latest")
    position = read(latest, f"{topic}/0", lambda done: done.position).position
    kafka.produce(topic, [b"after"])
    assert read(latest, f"{topic}/0", lambda done: done.messages, position).values == [b"after"]


def test_what_was_aborted_is_left_out_and_passed(kafka: KafkaServer, topic: str, source: Sources) -> None:
    producer = kafka.producer(transactional_id=f"of-{topic}")
    producer.init_transactions()
    for value, commits in ((b"kept", True), (b"dropped", False), (b"kept too", True), (b"dropped too", False)):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush()
        producer.commit_transaction() if commits else producer.abort_transaction()
    reader = source(topic)
    done = read(reader, f"{topic}/0", lambda done: done.offset == 8)  # four messages, four markers
    assert done.values == [b"kept", b"kept too"]
    assert done.position is not None
    (watermark,) = reader.watermarks({f"{topic}/0": done.position}).values()
    assert (watermark.end, watermark.behind) == ("8", 0), "a quiet topic would start sessions for ever"


def test_a_transaction_is_read_once_it_is_committed(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"plain"])
    producer = kafka.producer(transactional_id=f"open-{topic}")
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"open")
    producer.flush()
    kafka.produce(topic, [b"behind it"])
    reader = source(topic)
    before = read(reader, f"{topic}/0", lambda done: done.messages)
    assert before.values == [b"plain"]
    assert before.position is not None
    assert reader.watermarks({f"{topic}/0": before.position})[f"{topic}/0"].behind == 0  # nothing that can be read
    producer.commit_transaction()
    after = read(reader, f"{topic}/0", lambda done: len(done.messages) == 2, before.position)
    assert after.values == [b"open", b"behind it"]


def test_a_compacted_topic_is_read_over_its_gaps(kafka: KafkaServer, topic: str, source: Sources) -> None:
    compacted = kafka.create(
        f"{topic}.compacted", cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.001",
        min_compaction_lag_ms="0", delete_retention_ms="0",
    )  # fmt: skip
    reader = source(compacted)

    def compacts() -> bool:
        kafka.produce(compacted, [b"%d" % number for number in range(20)], key=b"same")
        found = read(reader, f"{compacted}/0", lambda done: done.offset >= 20 and done.values[-1:] == [b"19"])
        return len(found.messages) < found.offset

    wait_for(compacts, 120)


def test_kafkas_own_tools_see_what_is_stored(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"0", b"1"])
    told = Consumer({"bootstrap.servers": kafka.address, "group.id": "churnguard-usage"})

    def committed() -> int:
        (found,) = told.committed([TopicPartition(topic, 0)], timeout=10)
        return int(found.offset)

    with closing(told), closing(source(topic).batches(f"{topic}/0", None)) as batches:
        while not ((batch := next(batches)) and batch.messages):
            pass
        assert committed() < 0, "it is not stored yet"

        def resumed() -> bool:
            next(batches)
            return committed() == 2

        wait_for(resumed)


def test_of_two_partitions_the_later_message_is_newer_whatever_its_offset() -> None:
    moment = int(datetime(2026, 11, 26, tzinfo=UTC).timestamp() * 1000)
    assert version_of(moment, 5_000_000) < version_of(moment + 1, 3)
    assert version_of(moment, 7) < version_of(moment, 8)
    assert 0 <= version_of(-1, 0) < version_of(2**62, 2**62) < 2**63


def test_a_message_is_newer_than_the_one_before_it_whatever_its_clock(
    kafka: KafkaServer, topic: str, source: Sources
) -> None:
    producer = kafka.producer()
    for moment in (1_790_000_000_000, 1_600_000_000_000, 1_790_000_000_000, 1_790_000_000_001):
        producer.produce(topic, b"x", timestamp=moment)
        producer.flush()
    done = read(source(topic, batch_size=1), f"{topic}/0", lambda done: len(done.messages) == 4)
    versions = [message.version for message in done.messages]
    assert versions == sorted(set(versions))
    again = read(source(topic), f"{topic}/0", lambda done: len(done.messages) == 2, done.batches[2].position)
    assert [message.version for message in again.messages] == versions[2:]
