"""The demo's streams: all that the simulated products publish arrives, and what happens meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from churnguard_pipelines.cli.demo.usage import UsageStreams, usage_stream
from churnguard_pipelines.model import Organization, StreamType
from churnguard_pipelines.sandbox.serve import serve
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.streams import StreamState
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.streams.kind import KINDS
from churnguard_pipelines.syncing.streams.status import list_streams
from churnguard_pipelines.syncing.streams.target import table_of
from tests.waiting import wait_for

NAMES = ("acme", "globex")


@pytest.fixture
def streams(store: Store) -> Iterator[UsageStreams]:
    for name in NAMES:
        add_organization(store, Organization(organization_id=name, name=name), actor="test")
    made = UsageStreams(store, NAMES)
    made.start()
    yield made
    made.stop()


def test_every_event_is_stored_once_and_its_fields_are_columns(
    store: Store, streams: UsageStreams, tmp_path: Path
) -> None:
    with serve(tmp_path / "world", seed=7, scale=0.02, usage_stream=streams.url) as sandbox:
        for _ in range(2):
            streams.register("test")
        for _ in range(2):
            streams.drain(sandbox.url)
            assert all(each.agrees for each in streams.compared(sandbox.url))
    with store.organization("acme") as connection:
        columns = "event, customer_id, user_email, plan, seats, occurred_at"
        row = connection.exec_driver_sql(f"SELECT {columns} FROM views.acme_usage_events LIMIT 1").one()
    assert None not in row
    assert isinstance(row.seats, int)


def test_an_event_that_is_missing_is_seen(store: Store, streams: UsageStreams, tmp_path: Path) -> None:
    with serve(tmp_path / "world", seed=7, scale=0.02, usage_stream=streams.url) as sandbox:
        streams.register("test")
        streams.drain(sandbox.url)
        with store.organization("acme") as connection:
            connection.exec_driver_sql(
                "DELETE FROM raw.redis_events WHERE message_id = (SELECT min(message_id) FROM raw.redis_events)"
            )
        assert [each.agrees for each in streams.compared(sandbox.url)].count(False) == 1


def test_what_people_do_now_arrives_while_a_session_is_warm(
    store: Store, streams: UsageStreams, tmp_path: Path
) -> None:
    assert streams.url is not None
    stream = usage_stream("acme", streams.url)
    with serve(tmp_path / "world", seed=7, scale=0.02, live=True, usage_stream=streams.url) as sandbox:
        streams.register("test")
        session = Session(store, "warm", KINDS[StreamType.REDIS](store), linger=600)
        thread = threading.Thread(target=session.run)
        thread.start()
        try:
            streams.drain(sandbox.url)
            stored = Warehouse(store).count(table_of(stream).name, "acme", stream.stream_id)
            wait_for(lambda: Warehouse(store).count(table_of(stream).name, "acme", stream.stream_id) > stored + 2)
        finally:
            session.stop()
            thread.join()


def test_what_was_read_stays_read_when_the_broker_gets_another_port(
    store: Store, streams: UsageStreams, tmp_path: Path
) -> None:
    with serve(tmp_path / "world", seed=7, scale=0.02, usage_stream=streams.url) as sandbox:
        streams.register("test")
        streams.drain(sandbox.url)
    before = streams.url
    streams.stop()
    (store.settings.home / "broker" / "access.json").unlink()
    streams.start()
    assert streams.url != before
    with serve(tmp_path / "world", usage_stream=streams.url) as sandbox:
        streams.register("test")
        streams.drain(sandbox.url)
        assert all(each.agrees for each in streams.compared(sandbox.url))
    assert {each.state.state for each in list_streams(store)} == {StreamState.ACTIVE}
