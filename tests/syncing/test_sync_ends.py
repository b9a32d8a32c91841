"""How a sync begins again after it was refused, cut off, or ended by an error that nobody foresaw."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.records import Lane, Window
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest import checkpoints, ledger
from churnguard_pipelines.store.ingest.breakers import BreakerRow, load_breaker, locked_breaker
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.conftest import ANCHOR, Register, live, sync

TODAY = datetime.fromtimestamp(ANCHOR, UTC).replace(hour=0, minute=0)


def test_when_the_circuit_s_pause_is_over_the_next_sync_closes_it(
    store: Store, world: Sandbox, register: Register
) -> None:
    register(world)
    now = datetime.now(UTC)
    with locked_breaker(store, "acme", "acme-stripe") as breaker:
        breaker.row = BreakerRow("open", 5, "down", None, now - timedelta(minutes=5), now - timedelta(minutes=1))
    assert sync(store, "products").status == "succeeded"
    assert load_breaker(store, "acme", "acme-stripe").state == "closed"


class OurMistake(Exception):
    pass


def test_an_error_nobody_foresaw_is_raised_and_the_ledger_says_that_the_sync_failed(
    store: Store, world: Sandbox, register: Register
) -> None:
    register(world)

    def mistaken(name: str, seconds: float) -> None:
        raise OurMistake(name)

    with pytest.raises(OurMistake, match="products"):
        sync_integration(
            store, "acme-stripe", sync_id="mistaken", objects=["products", "prices"], on_object=mistaken
        )  # fmt: skip
    report = ledger.get_sync(store, "mistaken")
    assert report.status == "partial", "the products are here"
    assert report.error == "it ended unexpectedly (OurMistake). The log has the details."
    assert get_integration(store, "acme-stripe").status == IntegrationStatus.ERROR


@pytest.mark.parametrize("done", [0, 1], ids=["half read", "read and not yet forgotten"])
def test_a_history_read_that_was_cut_off_is_not_mistaken_for_another(
    store: Store, world: Sandbox, register: Register, done: int
) -> None:
    """Two windows begin on one day. What the short one left behind says nothing about the long one."""
    account = world.account("acme")
    register(world)
    begin = TODAY - timedelta(days=300)
    short, long = Window(begin, begin + timedelta(days=1)), Window(begin, TODAY)
    left_open = [] if done else [[int(short.start.timestamp()), int(short.end.timestamp()), None, None]]
    for window in (short, long) if done else (short,):
        name = f"invoices@{window.start.isoformat()}/{window.end.isoformat()}"
        with store.organization("acme") as connection:
            checkpoints.advance(connection, Lane("acme", "acme-stripe", name), None, {"open": left_open}, account.id)
    sync(store, "invoices", window=long)
    span = range(int(long.start.timestamp()), int(long.end.timestamp()))
    assert set(live(store, "invoices")) == {
        each["id"] for each in account.objects("invoices") if each["created"] in span
    }
