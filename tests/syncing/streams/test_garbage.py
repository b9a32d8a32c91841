"""Python searches for garbage seldom while records pass through, which is only well as long as they leave none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.streams.reading_again import read_again
from tests.syncing.streams.conftest import Configure
from tests.syncing.streams.logs import Log

DAY = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)


@pytest.fixture
def unsearched() -> Iterator[None]:
    """Nothing is searched for garbage meanwhile but by the test itself."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize("target", ["append", "upsert"])
def test_messages_leave_nothing_to_search_for(
    store: Store, configure: Configure, log: Log, unsearched: None, target: str
) -> None:
    configure(target=target, batch_size=100, field_mappings={"seats": "seats:bigint"})
    few = left_behind(store, log, 100)
    assert min(left_behind(store, log, 3000) for _ in range(3)) <= few, "a thread of another's may leave some, once"


def left_behind(store: Store, log: Log, count: int) -> int:
    """How many objects, once so many more messages were stored, of which each tenth is no JSON."""
    messages = [
        (b"{" if number % 10 == 9 else {"id": number, "seats": ["many"]}, str(number)) for number in range(count)
    ]
    log.extend(messages, produced_at=int(DAY[0].timestamp() * 1000))
    read = read_again(store, "orders", *DAY)
    assert read.read >= count
    assert read.rejected >= count // 10
    return gc.collect()
