"""A business that lives while somebody watches goes on as it did before."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from churnguard_pipelines.sandbox.business.instants import DAY
from churnguard_pipelines.sandbox.serve import serve
from churnguard_pipelines.sandbox.world import World
from tests.waiting import wait_for


def test_a_day_brings_as_much_as_a_day_of_its_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, seed=7, scale=0.3, alive=True)
    world.crm("acme")
    business, began = world.businesses["acme"], time.time()
    month = [each for each in business.events if each.created > began - 30 * DAY]
    before = len(business.events)

    monkeypatch.setattr(time, "time", lambda: began + DAY)
    world.live_on()

    assert len(month) / 30 / 3 < len(business.events) - before < len(month) / 30 * 3
    world.close()
    done = (tmp_path / "journal.jsonl").read_bytes().count(b'"crm_tick"')
    assert done == len(business.events) - before, "the CRM keeps step"


def test_it_lives_on_while_it_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(tmp_path, seed=7, scale=0.05, live=True) as sandbox:

        def invoices() -> int:
            return int(httpx.get(f"{sandbox.url}/_books/acme/counts").json()["invoices"])

        before, began = invoices(), time.time()
        monkeypatch.setattr(time, "time", lambda: began + 7 * DAY)
        wait_for(lambda: invoices() > before)
