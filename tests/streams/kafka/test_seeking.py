"""Wherever one reads on, and whatever producers' clocks say: of each key the latest message that was read holds."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest import checkpoints
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.streams.formats.json import JsonDecoder
from churnguard_pipelines.streams.sdk import Seek
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.lane import StreamLane
from tests.soak import SOAK
from tests.sources.kafka import KafkaServer
from tests.streams.kafka.conftest import stream
from tests.syncing.streams.conftest import active

pytestmark = pytest.mark.xdist_group("kafka")

T0 = 1_790_000_000_000
_numbers = itertools.count(1)

moments = st.sampled_from([0, 1, 2, 60_000, -60_000, 3_600_000]).map(lambda after: T0 + after) | st.just(T0 * 1000)
"""As clocks have them that are late, early, and count microseconds."""
messages = st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 9), moments), min_size=1, max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), messages),
        st.tuples(st.just("commit"), messages),
        st.tuples(st.just("read"), st.none()),
        st.tuples(st.just("seek"), st.sampled_from(["earliest", "latest"]) | moments),
    ),
    min_size=3,
    max_size=10,
)


class Partition:
    """A topic of one, its stream, and what its records should be."""

    def __init__(self, kafka: KafkaServer, store: Store) -> None:
        self._kafka, self._store = kafka, store
        self._name = f"sought-{next(_numbers)}"
        self._topic = kafka.create(self._name)
        self._stream = stream(self._topic, servers=kafka.address, stream_id=self._name, target="upsert", batch_size=3)
        managing.create(store, self._stream, actor="test")
        self._written: list[tuple[int, str, int | None]] = []
        self._latest: dict[str, tuple[int, int | None]] = {}

    def do(self, step: str, what: Any) -> None:
        match step:
            case "write" | "commit":
                self._write(what, in_transaction=step == "commit")
            case "read":
                self.read()
            case "seek":
                to = what if isinstance(what, str) else datetime.fromtimestamp(min(what, T0 * 2) / 1000, UTC)
                managing.seek(self._store, self._name, Seek(to), actor="test")

    def read(self) -> None:
        """All that is there."""
        begins, end = self._offset(), self._end()
        if begins == end:
            return
        with managing.opened_source(self._stream) as source:
            lane = StreamLane(
                self._store, Warehouse(self._store), active(self._store, self._stream),
                Lane("acme", self._name, f"{self._topic}/0"), source, JsonDecoder(),
            )  # fmt: skip
            for _ in lane.pump(Event()):
                if self._offset() == end:
                    break
        for offset, key, value in self._written:
            if offset >= max(begins, self._latest.get(key, (0, None))[0]):
                self._latest[key] = offset, value

    def holds(self) -> None:
        expected = {key: value for key, (_, value) in self._latest.items() if value is not None}
        statement = sa.text(
            "SELECT record_key, (extra->>'n')::int AS n FROM raw.kafka_records"
            " WHERE integration_id = :stream AND deleted_at IS NULL"
        )
        with self._store.organization("acme") as connection:
            found = {row.record_key: row.n for row in connection.execute(statement, {"stream": self._name})}
        assert found == expected

    def _write(self, what: Any, *, in_transaction: bool) -> None:
        """``in_transaction``: behind one that was aborted, which leaves offsets that have no message."""
        if not in_transaction:
            self._flush(self._kafka.producer(), what, self._written)
            return
        producer = self._kafka.producer(transactional_id=self._name)
        producer.init_transactions()
        producer.begin_transaction()
        self._flush(producer, [("a", 200, T0)], [])
        producer.abort_transaction()
        producer.begin_transaction()
        self._flush(producer, what, self._written)
        producer.commit_transaction()

    def _flush(self, producer: Any, what: Any, into: list[tuple[int, str, int | None]]) -> None:
        for key, value, moment in what:

            def delivered(error: Any, message: KafkaMessage, key: str = key, value: int | None = value) -> None:
                assert error is None, error
                into.append((message.offset() or 0, key, value))

            body = None if value is None else b'{"n": %d}' % value
            producer.produce(self._topic, body, key.encode(), timestamp=moment, on_delivery=delivered)
        assert producer.flush(60) == 0

    def _offset(self) -> int:
        with self._store.operator() as connection:
            found = checkpoints.of_integration(connection, "acme", self._name)
        return int(found[f"{self._topic}/0"].position["offset"]) if found else 0

    def _end(self) -> int:
        partition = TopicPartition(self._topic, 0)
        (told,) = self._kafka.admin.list_offsets({partition: OffsetSpec.latest()}).values()
        return int(told.result(30).offset)


@settings(
    max_examples=200 if SOAK else 10,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink one takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps)
@example(
    # What is behind a late clock has the same version from wherever it is read, whatever offsets have no message.
    steps=[
        ("write", [("a", 1, T0 * 1000)]),
        ("commit", [("b", 2, T0)]),
        ("seek", "latest"),
        ("write", [("a", 3, T0)]),
        ("read", None),
        ("seek", "earliest"),
    ]
)
def test_a_record_is_what_its_latest_message_says(
    kafka: KafkaServer, store: Store, organization: Organization, steps: list[tuple[str, Any]]
) -> None:
    partition = Partition(kafka, store)
    for step, what in [*steps, ("read", None), ("write", [("a", 100, T0), ("b", 101, T0)]), ("read", None)]:
        partition.do(step, what)
        if step == "read":
            partition.holds()
