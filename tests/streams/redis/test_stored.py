"""What becomes of entries in the warehouse."""

from __future__ import annotations

import itertools
import json
from threading import Event
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.streams.formats import decoder_of
from churnguard_pipelines.streams.redis import Redis
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.lane import StreamLane
from tests.sources.redis import RedisServer
from tests.streams.redis.conftest import parts
from tests.syncing.streams.conftest import active


def test_entries_with_a_defect_are_rejected_and_the_rest_is_stored(
    server: RedisServer, client: redis.Redis, topic: str, store: Store, organization: Organization
) -> None:
    for fields in ({"event": '{"n": 1}'}, {"evnet": '{"n": 2}'}, {"event": "x" * 30_000}, {"event": '{"n": 4}'}):
        client.xadd(topic, fields)  # type: ignore[arg-type]  # as texts
    client.xtrim(topic, maxlen=4, approximate=False)
    stream, _, cancelled = parts(server, topic, {"value_field": "event"}, largest_message=20_000)
    managing.create(store, stream, actor="test")
    lane = Lane("acme", stream.stream_id, topic)
    source = Redis(stream, guard_of(stream), cancelled)
    pumped = StreamLane(
        store, Warehouse(store), active(store, stream), lane, source, decoder_of(stream, guard_of(stream))
    )
    for stored in pumped.pump(Event()):
        if stored is None:
            break
    with store.organization("acme") as connection:
        rows = connection.execute(sa.text("SELECT (extra->>'n')::int FROM raw.redis_events ORDER BY source_version"))
        assert [row[0] for row in rows] == [1, 4]
    reasons = sorted(each.reason for each in list_rejected(store, stream.stream_id))
    assert "largest_message" in reasons[0]
    assert reasons[1] == "the entry has no field “event”"
    assert client.xpending(topic, "churnguard-acme-events")["pending"] == 0


Fields = list[tuple[bytes, bytes]]
texts = st.one_of(
    st.sampled_from(
        [b"", b"v", b"k", b"value", b"\0", b"\xff", b'"1"', b"{}", b'{"n": 1}', "é\N{PILE OF POO}".encode()]
    ),
    st.text(max_size=5).map(str.encode),
    st.binary(max_size=5),
)
entries = st.lists(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), min_size=1, max_size=8)
_numbers = itertools.count()


def text(data: bytes) -> str:
    """What PostgreSQL can hold. Raises ``ValueError``."""
    decoded = data.decode()
    if "\0" in decoded:
        raise ValueError
    return decoded


def whole(fields: Fields) -> Any:
    """The document of an entry that is one. Raises ``ValueError``."""
    if len(fields) == 1 and fields[0][0] in (b"value", b"data", b"payload"):
        found = json.loads(text(fields[0][1]))
        return found if isinstance(found, dict) else {"value": found}
    several: dict[str, list[str]] = {}
    for name, value in fields:
        several.setdefault(text(name), []).append(text(value))
    return {name: values[0] if len(values) == 1 else values for name, values in several.items()}


def row_of(fields: Fields) -> tuple[Any, str | None, Any]:
    """Document, key and headers, where a field is the message and another one its key. Raises ``ValueError``."""
    value = next((value for name, value in fields if name == b"v"), None)
    if value is None:
        raise ValueError
    key = next((value for name, value in fields if name == b"k"), None)
    headers = {
        text(name.decode(errors="replace").encode()): text(value.decode(errors="replace").encode())
        for name, value in fields
        if name != b"v"
    }
    return {"value": text(value)}, None if key is None else key_of(key), headers or None


def key_of(key: bytes) -> str:
    try:
        return text(key)
    except ValueError:
        return f"\\x{key.hex()}"


@pytest.mark.parametrize("connection", [{}, {"value_field": "v", "key_field": "k"}], ids=["documents", "a field"])
def test_whatever_an_entry_is_made_of_it_is_a_row_or_rejected(
    server: RedisServer, client: redis.Redis, store: Store, organization: Organization, connection: dict[str, Any]
) -> None:
    stream, guard, _ = parts(
        server, "", connection, topics=["any:*"], data_format="text" if connection else "json", most_rejected=1.0
    )
    managing.create(store, stream, actor="test", checks=False)
    decoder, found = decoder_of(stream, guard), active(store, stream)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(entries)
    def check(produced: list[Fields]) -> None:
        topic = f"any:{next(_numbers)}"
        rows: dict[str, Any] = {}
        rejected: set[str] = set()
        for fields in produced:
            flat = [part for pair in fields for part in pair]
            entry = str(client.execute_command("XADD", topic, "*", *flat), "ascii")
            try:
                rows[entry] = row_of(fields) if connection else (whole(fields), None, None)
            except ValueError:
                rejected.add(f"{topic}/0/{entry}")
        source = Redis(stream, guard, Event())
        lane = StreamLane(store, Warehouse(store), found, Lane("acme", stream.stream_id, topic), source, decoder)
        for stored in lane.pump(Event()):
            if stored is None:
                break
        with store.organization("acme") as database:
            statement = sa.text(
                "SELECT message_offset, extra, message_key, message_headers FROM raw.redis_events "
                "WHERE message_topic = :topic"
            )
            assert {row[0]: tuple(row[1:]) for row in database.execute(statement, {"topic": topic})} == rows
        kept = list_rejected(store, stream.stream_id, limit=100_000)
        assert sorted(str(each.key) for each in kept if f"{topic}/" in str(each.key)) == sorted(rejected)
        client.delete(topic)

    check()
