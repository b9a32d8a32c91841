"""Where reading on would skip or repeat in silence it stops, with the numbers and the choice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from confluent_kafka import TopicPartition

from churnguard_pipelines.errors import SourceChanged
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.kafka import Kafka
from churnguard_pipelines.streams.sdk import MessageBatch, Seek
from tests.sources.kafka import KafkaServer
from tests.streams.kafka.conftest import Sources
from tests.streams.kafka.reading import read

pytestmark = pytest.mark.xdist_group("kafka")


def stored(source: Kafka, topic: str, messages: int) -> Position:
    position = read(source, f"{topic}/0", lambda done: len(done.messages) == messages).position
    assert position is not None
    return position


def stops(source: Kafka, topic: str, position: Position, what: str) -> str:
    """Whoever reads on, and whoever only looks, hears the same."""
    with pytest.raises(SourceChanged, match=what) as raised:
        read(source, f"{topic}/0", lambda done: done.messages, position)
    assert "churnguard streams seek usage --to earliest" in str(raised.value)
    return str(raised.value)


def exhaust(batches: Iterator[MessageBatch | None], into: list[bytes | None] | None = None) -> None:
    for batch in batches:
        if batch is not None and into is not None:
            into += [message.value for message in batch.messages]


def remove(kafka: KafkaServer, topic: str, before: int) -> None:
    """As the topic's retention would."""
    for future in kafka.admin.delete_records([TopicPartition(topic, 0, before)]).values():
        future.result(30)


def test_messages_that_were_deleted_unread(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"x"] * 3)
    position = stored(source(topic), topic, 3)
    kafka.produce(topic, [b"x"] * 7)
    remove(kafka, topic, 8)
    told = stops(source(topic), topic, position, "up to 5 messages were deleted before they were read")
    assert "holds offsets 8 to 10, and is read to 3" in told


def test_messages_that_are_deleted_while_the_lane_is_at_work(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [bytes(500_000)] * 40)  # more than is read ahead
    with closing(source(topic, batch_size=1).batches(f"{topic}/0", None)) as batches:
        while not ((batch := next(batches)) and batch.messages):
            pass
        remove(kafka, topic, 39)
        with pytest.raises(SourceChanged, match="holds offsets 39 to 40"):
            exhaust(batches)


def test_what_was_deleted_after_it_was_read_is_no_matter(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"x"] * 3)
    position = stored(source(topic), topic, 3)
    remove(kafka, topic, 3)
    kafka.produce(topic, [b"new"])
    assert read(source(topic), f"{topic}/0", lambda done: done.messages, position).values == [b"new"]


def again(kafka: KafkaServer, topic: str, messages: int) -> None:
    kafka.delete(topic)
    kafka.create(topic)
    kafka.produce(topic, [b"other"] * messages)


@pytest.mark.parametrize("messages", [1, 9], ids=["shorter", "longer"])
def test_a_topic_that_was_made_anew(kafka: KafkaServer, topic: str, source: Sources, messages: int) -> None:
    kafka.produce(topic, [b"x"] * 5)
    position = stored(source(topic), topic, 5)
    again(kafka, topic, messages)
    stops(source(topic), topic, position, "was deleted and made anew .*: offset 5 of partition 0 belongs to the old")
    with pytest.raises(SourceChanged, match="made anew"):
        source(topic).watermarks({f"{topic}/0": position})


def test_a_topic_that_is_made_anew_while_the_lane_is_at_work(kafka: KafkaServer, topic: str, source: Sources) -> None:
    """librdkafka reads on in the new one, from the old one's offset on, without a word."""
    kafka.produce(topic, [b"x"] * 5)
    with closing(source(topic).batches(f"{topic}/0", None)) as batches:
        while not ((batch := next(batches)) and batch.position["offset"] == 5):
            pass
        again(kafka, topic, 20)
        more: list[bytes | None] = []
        with pytest.raises(SourceChanged, match="made anew"):
            exhaust(batches, more)
        assert more == [], "it read on in another topic"


def test_a_topic_that_is_gone(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"x"])
    position = stored(source(topic), topic, 1)
    kafka.delete(topic)
    stops(source(topic), topic, position, f"{topic}, read to offset 1, is not there any more")
    with pytest.raises(SourceChanged, match="is not there any more"):
        source(topic).watermarks({f"{topic}/0": position})


def test_a_partition_that_is_gone(kafka: KafkaServer, topic: str, source: Sources) -> None:
    position = source(topic).sought(Seek("earliest"))[f"{topic}/0"]
    missing = {f"{topic}/1": position}
    with pytest.raises(SourceChanged, match=f"partition 1 of {topic}, read to offset 0, is gone: it has 1"):
        source(topic).watermarks(missing)


def test_kafka_lost_messages_that_were_read(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"x"] * 2)
    position = dict(stored(source(topic), topic, 2)) | {"offset": 6}
    stops(source(topic), topic, position, "holds offsets 0 to 2, and was read to 6 already: Kafka lost its latest 4")
    with pytest.raises(SourceChanged, match="Kafka lost its latest 4"):
        source(topic).watermarks({f"{topic}/0": position})


def test_a_new_choice_goes_on(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"x"] * 5)
    stored(source(topic), topic, 5)
    again(kafka, topic, 2)
    position = source(topic).sought(Seek("earliest"))[f"{topic}/0"]
    assert read(source(topic), f"{topic}/0", lambda done: len(done.messages) == 2, position).values == [b"other"] * 2
