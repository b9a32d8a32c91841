"""What events should have brought and only a sync did: counted right, and in nobody's way."""

from __future__ import annotations

from typing import Any

import pytest

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.engine.pump import Pump
from churnguard_pipelines.model import DataFilter, Organization
from churnguard_pipelines.records import Batch, Record
from churnguard_pipelines.store.ingest import arrivals
from churnguard_pipelines.store.ingest.arrivals import Arrivals
from churnguard_pipelines.store.postgres.database import Store
from tests.blocked import wait_until_blocked
from tests.engine.test_pump import SOURCE, THINGS, Desk, iter_batches, thing

PATH = "changes"


@pytest.fixture
def desk(store: Store, organization: Organization) -> Desk:
    return Desk(store)


def sync(desk: Desk, *batches: Batch, filters: list[DataFilter] | None = None) -> None:
    pump = Pump(desk.warehouse, Mapper(THINGS, filters=filters or []), desk.sync_id, watched={PATH: 0})
    pump.run(desk.lane, SOURCE, None, iter_batches(batches))


def missed(desk: Desk) -> int:
    of_each = arrivals.of(desk.store, desk.lane.integration_id).get("things", {})
    return of_each.get(PATH, Arrivals(0, 0)).missed


def test_an_event_and_a_sync_that_bring_one_record_at_once_wait_for_each_other_in_no_circle(desk: Desk) -> None:
    read = Mapper(THINGS).rows([thing(1)])
    with desk.warehouse.transaction("acme") as told:
        told.upsert(THINGS, desk.lane.integration_id, read.rows)
        arrivals.note_brought(told.connection, desk.lane, PATH, {"things": 1})
    with desk.warehouse.transaction("acme") as told:
        told.upsert(THINGS, desk.lane.integration_id, read.rows)
        syncing = in_thread("sync", lambda: sync(desk, Batch({"batch": 1}, [thing(1), thing(2)], incremental=True)))
        wait_until_blocked(desk.store)
        arrivals.note_brought(told.connection, desk.lane, PATH, {"things": 1})
    syncing.result(20)
    assert arrivals.of(desk.store, desk.lane.integration_id)["things"] == {PATH: Arrivals(brought=2, missed=1)}


def test_what_came_lately_counts_and_what_is_read_again_does_not(desk: Desk) -> None:
    sync(desk, Batch({"batch": 1}, [thing(1)]), Batch({"batch": 2}, [thing(2), thing(3)], incremental=True))
    assert missed(desk) == 2


@pytest.mark.parametrize(
    "record",
    [
        [],
        None,
        "text",
        {"name": "without a key"},
        {"id": "thing-9", "amount": "much"},
        {"id": "thing-9", "amount": 100},
    ],
    ids=["list", "null", "text", "no key", "does not fit", "filtered"],
)
def test_what_is_not_stored_is_not_missed(desk: Desk, record: Any) -> None:
    small = DataFilter(field="amount", operator="lt", value=50)
    sync(desk, Batch({"batch": 1}, [Record(record, 1), thing(2)], incremental=True), filters=[small])
    assert missed(desk) == 1
