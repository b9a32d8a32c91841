"""What a stream's sensor asks: which partitions there are, how far each is behind, and where one could read on."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from confluent_kafka.admin import NewPartitions

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.streams.kafka.names import matching
from churnguard_pipelines.streams.sdk import Seek, Watermark
from tests.sources.kafka import CLUSTER, KafkaServer
from tests.streams.kafka.conftest import Sources
from tests.streams.kafka.reading import read
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("kafka")
T0 = 1_790_000_000_000


def test_the_cluster_is_known_by_its_own_id(source: Sources, topic: str) -> None:
    assert source(topic).identity() == CLUSTER


def test_partitions_of_topics_by_name_and_pattern(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.create(f"{topic}.eu", 2)
    kafka.create(f"{topic}.us")
    reader = source(f"{topic}.*")
    assert reader.partitions() == [f"{topic}.eu/0", f"{topic}.eu/1", f"{topic}.us/0"]
    kafka.create(f"{topic}.asia")  # is found without a change of the configuration
    wait_for(lambda: f"{topic}.asia/0" in reader.partitions())
    kafka.admin.create_partitions([NewPartitions(f"{topic}.us", 2)])[f"{topic}.us"].result(30)
    wait_for(lambda: f"{topic}.us/1" in reader.partitions())


def test_a_pattern_is_never_slow_and_does_not_mean_kafkas_own_topics() -> None:
    topics = ["a.b", "a", "__consumer_offsets", "x.a.b.c"]
    assert matching(["*"], topics) == {"a.b", "a", "x.a.b.c"}
    assert matching(["a*"], topics) == {"a.b", "a"}
    assert matching(["*.b*"], topics) == {"a.b", "x.a.b.c"}
    assert matching(["a*a", "a.*.b"], topics) == set()
    assert matching(["__consumer_offsets"], topics) == {"__consumer_offsets"}
    assert matching(["*a" * 100 + "*b"], ["a" * 249]) == set()


def test_how_many_messages_wait_and_since_when(kafka: KafkaServer, topic: str, source: Sources) -> None:
    reader, partition = source(topic), f"{topic}/0"
    assert reader.watermarks({}) == {partition: Watermark("0", 0)}
    kafka.produce(topic, [b"0"], timestamp=T0)
    kafka.produce(topic, [b"1"], timestamp=T0 + 5000)
    wait_for(lambda: reader.watermarks({})[partition].behind == 2)
    assert reader.watermarks({})[partition].oldest == datetime.fromtimestamp(T0 / 1000, UTC)
    position = read(source(topic, batch_size=1), partition, lambda done: len(done.messages) == 1).position
    assert position is not None
    told = reader.watermarks({partition: position})[partition]
    assert told == Watermark("2", 1, datetime.fromtimestamp(T0 / 1000 + 5, UTC))


def test_since_when_messages_wait_behind_a_seek(kafka: KafkaServer, topic: str, source: Sources) -> None:
    """Not since the first that is in the topic, which was read or left out long ago."""
    reader, partition = source(topic), f"{topic}/0"
    for seconds in range(3):
        kafka.produce(topic, [b"x"], timestamp=T0 + seconds * 1000)
    latest, middle = (reader.sought(Seek(to))[partition] for to in ("latest", {partition: "1"}))
    kafka.produce(topic, [b"x"], timestamp=T0 + 9000)
    wait_for(lambda: reader.watermarks({partition: latest})[partition].behind == 1)
    assert reader.watermarks({partition: latest})[partition].oldest == datetime.fromtimestamp(T0 / 1000 + 9, UTC)
    assert reader.watermarks({partition: middle})[partition] == Watermark("4", 3, None)  # Kafka cannot be asked for it


def test_a_partition_that_begins_at_its_end_is_opened_to_fix_where_that_is(topic: str, source: Sources) -> None:
    assert source(topic, start="latest").watermarks({})[f"{topic}/0"].behind is None


def test_many_streams_of_one_cluster_share_their_connections(topic: str, source: Sources) -> None:
    source(topic).watermarks({})
    before = threading.active_count(), len(_threads())
    for number in range(30):
        source(topic, stream_id=f"usage-{number}").watermarks({})
    assert (threading.active_count(), len(_threads())) <= before


@pytest.mark.parametrize(
    ("to", "offset"),
    [
        ("earliest", 0),
        ("latest", 3),
        (datetime.fromtimestamp(T0 / 1000 + 1, UTC), 1),
        (datetime.fromtimestamp(T0 / 1000 + 100, UTC), 3),
    ],
    ids=["earliest", "latest", "moment", "a moment after the last message"],
)
def test_where_one_would_read_on(
    kafka: KafkaServer, topic: str, source: Sources, to: str | datetime, offset: int
) -> None:
    for seconds in range(3):
        kafka.produce(topic, [b"x"], timestamp=T0 + seconds * 1000)
    assert source(topic).sought(Seek(to))[f"{topic}/0"]["offset"] == offset


def test_offsets_that_are_there_may_be_chosen(kafka: KafkaServer, topic: str, source: Sources) -> None:
    kafka.produce(topic, [b"0", b"1", b"2"])
    reader, partition = source(topic), f"{topic}/0"
    position = reader.sought(Seek({partition: "2"}))[partition]
    assert read(reader, partition, lambda done: done.messages, position).values == [b"2"]
    for wrong in (
        {partition: "4"},
        {partition: "-1"},
        {partition: "x"},
        {partition: "0" * 20 + "9"},
        {f"{topic}/7": "0"},
    ):
        with pytest.raises(InvalidConfiguration, match=r"has no offset|there is no partition"):
            reader.sought(Seek(wrong))


def _threads() -> list[str]:
    from pathlib import Path

    return [each.name for each in Path("/proc/self/task").iterdir()]
