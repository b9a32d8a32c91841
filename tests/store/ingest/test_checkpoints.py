"""A lane's checkpoint moves by compare-and-set."""

from __future__ import annotations

import threading

import pytest

from churnguard_pipelines.errors import LaneTakenOver
from churnguard_pipelines.records import Checkpoint, Lane
from churnguard_pipelines.store.ingest import checkpoints
from churnguard_pipelines.store.postgres.database import Store

LANE = Lane("acme", "acme-stripe", "customers@2024-01")


def load(store: Store) -> Checkpoint | None:
    with store.organization("acme") as connection:
        return checkpoints.load(connection, LANE)


def advance(store: Store, expected: Checkpoint | None, page: int) -> Checkpoint:
    with store.organization("acme") as connection:
        return checkpoints.advance(connection, LANE, expected, {"page": page}, "acct_1")


def test_it_moves_step_by_step_and_is_read_back(store: Store) -> None:
    assert load(store) is None
    first = advance(store, None, 1)
    second = advance(store, first, 2)
    assert second == load(store) == Checkpoint({"page": 2}, "acct_1", 2)


def test_a_stale_expectation_is_refused_and_names_integration_and_lane(store: Store) -> None:
    first = advance(store, None, 1)
    advance(store, first, 2)
    for expected in (None, first, Checkpoint({"page": 9}, "acct_1", 2)):
        with pytest.raises(LaneTakenOver, match="customers@2024-01") as caught:
            advance(store, expected, 3)
        assert caught.value.integration_id == "acme-stripe"


def test_a_forgotten_lane_begins_anew_and_an_old_run_cannot_take_it(store: Store) -> None:
    old = advance(store, None, 1)
    with store.organization("acme") as connection:
        checkpoints.forget(connection, LANE)
    assert load(store) is None
    advance(store, None, 7)
    with pytest.raises(LaneTakenOver):
        advance(store, old, 2)


def test_of_many_at_once_one_wins(store: Store) -> None:
    start = advance(store, None, 0)
    won: list[int] = []

    def work(number: int) -> None:
        try:
            advance(store, start, number)
        except LaneTakenOver:
            return
        won.append(number)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert load(store) == Checkpoint({"page": won[0]}, "acct_1", 2)
