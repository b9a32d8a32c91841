"""How a stream begins: whole, from where it was to begin, and with nothing of an earlier stream of its id."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import sqlalchemy as sa

from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.errors import LaneTakenOver
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest import checkpoints
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.streams.formats.json import JsonDecoder
from churnguard_pipelines.streams.sdk import Seek
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.kind import CustomStreams
from churnguard_pipelines.syncing.streams.lane import StreamLane
from churnguard_pipelines.syncing.streams.status import list_streams
from tests.syncing.streams.conftest import Configure, Rows, active
from tests.syncing.streams.logs import Log, LogSource
from tests.waiting import wait_for


def begun(store: Store) -> dict[str, int]:
    with store.operator() as connection:
        found = checkpoints.of_integration(connection, "acme", "orders")
    return {name: checkpoint.position["line"] for name, checkpoint in found.items()}


def lane_of(store: Store, stream: StreamConfiguration, partition: str = "orders/0") -> StreamLane:
    source = LogSource(stream, guard_of(stream), Event())
    lane = Lane(stream.organization_id, stream.stream_id, partition)
    return StreamLane(store, Warehouse(store), active(store, stream), lane, source, JsonDecoder())


@pytest.mark.parametrize("start", ["earliest", "latest"])
@pytest.mark.parametrize("again", [False, True], ids=["gone", "there again"])
def test_a_lane_that_begins_while_its_stream_is_removed_leaves_nothing_behind(
    configure: Configure, log: Log, rows: Rows, store: Store, start: str, again: bool
) -> None:
    lane = lane_of(store, configure(start=start, checks=False))
    log.append({"n": 1})
    managing.remove(store, "orders", actor="test")
    if again:
        configure()
    with pytest.raises(LaneTakenOver):
        list(lane.pump(Event()))
    assert (begun(store), rows()) == ({}, [])


def test_a_stream_of_the_same_id_is_followed_as_it_is_configured_now(
    configure: Configure, log: Log, store: Store
) -> None:
    log.append({"n": 1}, topic="others/0")
    configure()
    kind = CustomStreams(store)
    kind.waiting()
    managing.remove(store, "orders", actor="test")
    configure(topics=["others/0"])
    wait_for(lambda: [lane.name for lane in kind.waiting()] == ["others/0"])


def test_all_partitions_of_a_stream_begin_at_the_same_end(
    configure: Configure, log: Log, rows: Rows, store: Store
) -> None:
    """Whoever is first begins all of it; the others are not taken for partitions that came later."""
    for topic in ("orders/0", "orders/1"):
        log.append({"n": "before"}, topic=topic)
    stream = configure(start="latest", topics=["orders/0", "orders/1"], checks=False)
    assert next(lane_of(store, stream, "orders/0").pump(Event())) is None
    assert begun(store) == {"orders/0": 1, "orders/1": 1}
    log.append({"n": "after"}, topic="orders/1")
    assert next(lane_of(store, stream, "orders/1").pump(Event())) is not None
    assert [row["extra"]["n"] for row in rows()] == ["after"]


def test_a_stream_is_there_with_its_beginning_or_not_at_all(
    configure: Configure, log: Log, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*told: object) -> None:
        raise sa.exc.OperationalError("", None, Exception("the connection was lost"))

    log.append({"n": "before"})
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "advance", lost)
        with pytest.raises(sa.exc.OperationalError):
            configure(start="latest")
    assert list_streams(store) == []
    configure(start="latest")
    assert begun(store) == {"orders/0": 1}


def test_who_seeks_while_a_lane_begins_has_the_last_word(configure: Configure, log: Log, store: Store) -> None:
    stream = configure()
    log.append({"n": 1})
    with ThreadPoolExecutor() as threads:
        with store.organization("acme") as connection:
            STREAMS.hold(connection, "acme", "orders", active(store, stream).revision)
            checkpoints.advance(connection, Lane("acme", "orders", "orders/0"), None, {"line": 1}, "log")
            seeking = threads.submit(managing.seek, store, "orders", Seek("earliest"), actor="ann")
            wait_for(lambda: seeking.done() or somebody_waits(store))
        assert seeking.result() == {"orders/0": {"line": 0}}
    assert begun(store) == {"orders/0": 0}


def somebody_waits(store: Store) -> bool:
    here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    with store.operator() as connection:
        waits = sa.text(f"SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND (database IS NULL OR {here}))")
        return bool(connection.scalar(waits))
