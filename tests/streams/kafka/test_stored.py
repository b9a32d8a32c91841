"""What a producer has written is what the warehouse has, whatever it was; what cannot be stored is kept beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.model import Organization, StreamConfiguration
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.streams.formats.json import JsonDecoder
from churnguard_pipelines.streams.sdk import Message
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.lane import StreamLane
from churnguard_pipelines.syncing.streams.target import message_of
from tests.soak import SOAK
from tests.sources.kafka import KafkaServer
from tests.streams.kafka.conftest import stream
from tests.syncing.streams.conftest import active

pytestmark = pytest.mark.xdist_group("kafka")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = 253_402_300_799_999
"""Milliseconds to the end of the year 9999."""

texts = st.text('\t\n\r\\"\x1d\x1e\x1f\x7fNu0{}é\u2028🙂', max_size=6)
documents: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
bytes_ = texts.map(str.encode) | st.binary(max_size=6)


class Written(NamedTuple):
    """``value``: None of a tombstone; bytes of what is no JSON begin with 0xff, and have no ``document``."""

    value: bytes | None
    document: Any
    key: bytes | None
    headers: list[tuple[str, str | bytes | None]]
    moment: int

    @property
    def is_json(self) -> bool:
        return self.value is None or not self.value.startswith(b"\xff")


def _json(document: Any, ascii: bool, indent: str | None) -> tuple[bytes, Any]:
    return json.dumps(document, ensure_ascii=ascii, indent=indent).encode(), document


values: st.SearchStrategy[tuple[bytes | None, Any]] = st.one_of(
    st.builds(_json, documents, st.booleans(), st.sampled_from([None, "", "\t", "  "])),
    st.just((None, None)),
    bytes_.map(lambda value: (b"\xff" + value, None)),
)
messages = st.builds(
    lambda value, key, headers, moment: Written(value[0], value[1], key, headers, moment),
    values,
    st.none() | bytes_,
    st.lists(st.tuples(texts, st.none() | bytes_), max_size=3),
    st.integers(1, LAST) | st.integers(LAST, 2**63 - 1),
)


def text_of(data: str | bytes | None) -> str:
    """With what is no text, or none of PostgreSQL's, as ``\\xff``."""
    assert not isinstance(data, str)
    return (data or b"").decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def key_of(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        return "\\x" + data.hex() if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return "\\x" + data.hex()


@pytest.fixture
def events(kafka: KafkaServer, store: Store, organization: Organization, topic: str) -> StreamConfiguration:
    added = stream(topic, servers=kafka.address, most_rejected=1)
    managing.create(store, added, actor="test")
    return added


def drain(store: Store, events: StreamConfiguration, end: int) -> None:
    with managing.opened_source(events) as source:
        lane = Lane("acme", events.stream_id, f"{events.topics[0]}/0")
        reader = StreamLane(store, Warehouse(store), active(store, events), lane, source, JsonDecoder())
        left = end
        for stored in reader.pump(Event()):
            left -= stored.counts.read if stored is not None else 0
            if left == 0:
                return


def rows(store: Store) -> Mapping[int, Any]:
    columns = "message_offset, message_key, message_headers, produced_at, extra::text AS extra"
    with store.organization("acme") as connection:
        found = connection.execute(sa.text(f"SELECT {columns} FROM raw.kafka_events"))
        return {int(row.message_offset): row for row in found}


def rejected(store: Store, events: StreamConfiguration) -> Mapping[str, Message]:
    """By their names."""
    kept = {str(each.key): message_of(each.payload) for each in list_rejected(store, events.stream_id, limit=100_000)}
    return {name: message for name, message in kept.items() if message is not None}


@settings(
    max_examples=100 if SOAK else 10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(written=st.lists(messages, min_size=1, max_size=40))
def test_what_was_written_is_what_is_stored(
    kafka: KafkaServer, store: Store, events: StreamConfiguration, written: list[Written]
) -> None:
    first, producer = len(rows(store)) + len(rejected(store, events)), kafka.producer()
    for each in written:
        producer.produce(events.topics[0], each.value, each.key, timestamp=each.moment, headers=each.headers)
    assert producer.flush(60) == 0
    drain(store, events, len(written))
    stored = rows(store)
    kept = rejected(store, events)
    for offset, each in enumerate(written, start=first):
        if each.is_json:
            row = stored[offset]
            document = each.document if isinstance(each.document, dict) else {"value": each.document}
            assert json.loads(row.extra or "null") == (None if each.value is None else document)
            assert row.message_key == key_of(each.key)
            assert (row.message_headers or {}) == {name: text_of(value) for name, value in each.headers}
            in_years = each.moment <= LAST
            assert row.produced_at == (EPOCH + timedelta(milliseconds=each.moment) if in_years else None)
        else:
            message = kept[f"{events.topics[0]}/0/{offset}"]
            assert (message.value, message.key, message.produced_at) == (each.value, each.key, each.moment)
            assert message.headers == {name: text_of(value) for name, value in each.headers}
    assert len(stored) + len(kept) == first + len(written)
