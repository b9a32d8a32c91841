"""A stream of a topic, followed by a session as in production: until it is drained, or fails and is told what to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from churnguard_pipelines.model import Organization, StreamConfiguration
from churnguard_pipelines.store.control.streams import StreamState
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.streams.sdk import Seek
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.kind import KafkaStreams
from churnguard_pipelines.syncing.streams.status import StreamStatus, status_of
from tests.sources.kafka import KafkaServer
from tests.streams.kafka.conftest import stream
from tests.waiting import wait_for

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.usefixtures("organization")]


@contextmanager
def following(store: Store) -> Iterator[None]:
    session = Session(store, "session", KafkaStreams(store), linger=600)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        yield
    finally:
        session.stop()
        thread.join()


def documents(store: Store) -> dict[str, str | None]:
    statement = sa.text("SELECT record_key, extra->>'n' AS n FROM raw.kafka_records WHERE deleted_at IS NULL")
    with store.organization("acme") as connection:
        return {row.record_key: row.n for row in connection.execute(statement)}


@pytest.fixture
def records(kafka: KafkaServer, store: Store, organization: Organization, topic: str) -> StreamConfiguration:
    added = stream(topic, servers=kafka.address, target="upsert")
    managing.create(store, added, actor="test")
    return added


def test_a_topic_becomes_a_table_and_a_quiet_one_asks_for_no_session(
    kafka: KafkaServer, store: Store, records: StreamConfiguration, topic: str
) -> None:
    producer = kafka.producer(transactional_id=f"follows-{topic}")
    producer.init_transactions()
    for value, commits in ((b'{"n": 1}', True), (b'{"n": 2}', False)):
        producer.begin_transaction()
        for key in (b"a", b"b"):
            producer.produce(topic, value, key)
        producer.flush()
        producer.commit_transaction() if commits else producer.abort_transaction()
    kafka.produce(topic, [None], key=b"b")
    kind = KafkaStreams(store)
    wait_for(lambda: [lane.name for lane in kind.waiting()] == [f"{topic}/0"])
    with following(store):
        wait_for(lambda: documents(store) == {"a": "1"})
        wait_for(lambda: not kind.waiting())


def test_topics_and_partitions_that_come_later_are_followed(
    kafka: KafkaServer, store: Store, organization: Organization, topic: str
) -> None:
    """A key that moved to a new partition is deleted there."""
    known, later = kafka.create(f"{topic}.eu"), f"{topic}.us"
    managing.create(store, stream(f"{topic}.*", servers=kafka.address, target="upsert"), actor="test")
    kafka.produce(known, [b'{"n": 1}'], key=b"a")
    with following(store):
        wait_for(lambda: documents(store) == {"a": "1"})
        kafka.admin.create_partitions([NewPartitions(known, 2)])[known].result(30)
        kafka.create(later)
        kafka.produce(later, [b'{"n": 2}'], key=b"b")
        wait_for(lambda: documents(store) == {"a": "1", "b": "2"})
        kafka.produce(known, [None], key=b"a", partition=1)
        wait_for(lambda: documents(store) == {"b": "2"})


def test_what_was_deleted_unread_fails_the_stream_until_somebody_decides(
    kafka: KafkaServer, store: Store, records: StreamConfiguration, topic: str
) -> None:
    kafka.produce(topic, [b'{"n": 1}'], key=b"a")
    with following(store):
        wait_for(lambda: documents(store) == {"a": "1"})
    kafka.produce(topic, [b'{"n": 2}'] * 3, key=b"a")
    for future in kafka.admin.delete_records([TopicPartition(topic, 0, 3)]).values():
        future.result(30)

    def state() -> StreamStatus:
        return status_of(store, "usage")

    with following(store):
        wait_for(lambda: state().state.state is StreamState.FAILED)
        assert "up to 2 messages were deleted before they were read" in str(state().state.reason)
        assert "churnguard streams seek usage --to earliest" in str(state().state.remedy)
        assert documents(store) == {"a": "1"}
        kafka.produce(topic, [b'{"n": 4}'], key=b"b")
        managing.seek(store, "usage", Seek("earliest"), actor="test")
        wait_for(lambda: documents(store) == {"a": "2", "b": "4"})
        assert state().state.state is StreamState.ACTIVE
