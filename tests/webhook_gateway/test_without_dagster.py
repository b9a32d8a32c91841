"""The gateway needs only PostgreSQL: it accepts while Dagster is down; what it took arrives when Dagster is back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator
from tests.dagster_processes import Dagster
from tests.waiting import wait_for
from tests.webhook_gateway.intake.conftest import Gateway, endpoint, make_gateway, stripe_event

__all__ = ["endpoint", "make_gateway"]
EVENTS = 300


@pytest.fixture
def dagster(store: Store) -> Iterator[Dagster]:
    made = Dagster(store)
    yield made
    made.stop()
    # Dagster's database is the server's, which the next tests share: they are not to see that a daemon was there.
    address = store.dagster_database_url.replace("postgresql+psycopg2://", "postgresql://")
    with psycopg.connect(address) as connection:
        connection.execute("DELETE FROM daemon_heartbeats")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_was_taken_while_dagster_was_down_arrives_when_it_is_back(
    store: Store, make_gateway: Callable[..., Gateway], dagster: Dagster
) -> None:
    gateway = make_gateway()
    for number in range(EVENTS):
        body = stripe_event(f"evt_{number}", created=1_700_000_000 + number, name=str(number))
        assert gateway.post(body.replace(b'"cus_1"', f'"cus_{number}"'.encode())).status_code == 200
    dagster.start()

    def rows() -> int:
        with psycopg.connect(as_administrator(store.database_url)) as connection:
            try:
                found = connection.execute("SELECT count(*) FROM raw.stripe_customers").fetchone()
            except psycopg.errors.UndefinedTable:
                return 0
        return int(found[0]) if found else 0

    wait_for(lambda: rows() == EVENTS, 120)
