"""What becomes of entries in the warehouse."""

from __future__ import annotations

from threading import Event

import redis
import sqlalchemy as sa

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
