"""The churn fact computes itself after a sync that changed what it is made of, and waits for all of that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import dagster as dg
import pytest

from churnguard_pipelines.analytics.mrr import read_movements
from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.orchestration.mrr import KEY
from churnguard_pipelines.orchestration.partitions import reconcile
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from tests.orchestration.conftest import Register
from tests.orchestration.runs import materializations, run, sandbox_of_one_s_own

MORNING = datetime(2026, 11, 2, 8, tzinfo=UTC)


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_of_one_s_own(tmp_path_factory.mktemp("sandbox")) as served:
        yield served


class Automation:
    """The automation sensor's ticks, one after the other."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._cursor: dg.AutomationConditionCursor | None = None

    def requested(self, at: datetime = MORNING) -> set[str]:
        """Partitions whose facts this tick wants computed."""
        tick = dg.evaluate_automation_conditions(
            definitions,
            self._instance,
            asset_selection=dg.AssetSelection.assets(KEY),
            evaluation_time=at,
            cursor=self._cursor,
        )
        self._cursor = tick.cursor
        return {name for name in tick.get_requested_partitions(KEY) if name is not None}


@pytest.fixture
def automation(instance: dg.DagsterInstance, register: Register) -> Automation:
    register()
    reconcile(instance, "stripe")
    return Automation(instance)


def test_it_is_computed_after_the_first_sync_and_after_every_sync_that_changed_something(
    instance: dg.DagsterInstance, automation: Automation, sandbox: Sandbox
) -> None:
    assert automation.requested() == set(), "there is nothing to compute it from"

    run(instance, "stripe_sync", "acme")
    assert automation.requested() == {"acme"}
    assert automation.requested() == set()

    run(instance, "stripe_sync", "acme")
    assert automation.requested() == set(), "a sync that found nothing new changes no fact"

    sandbox.account("acme").advance(40 * 86_400)
    run(instance, "stripe_sync", "acme")
    assert automation.requested() == {"acme"}


def test_it_is_computed_where_the_first_sync_came_before_the_first_look(
    instance: dg.DagsterInstance, automation: Automation
) -> None:
    run(instance, "stripe_sync", "acme")
    assert automation.requested() == {"acme"}
    assert automation.requested() == set()


def test_it_is_computed_every_night_because_time_alone_can_change_it(
    instance: dg.DagsterInstance, automation: Automation
) -> None:
    automation.requested()
    run(instance, "stripe_sync", "acme")
    assert automation.requested() == {"acme"}
    assert automation.requested(MORNING.replace(hour=23)) == set()
    assert automation.requested(MORNING.replace(day=3, hour=1)) == {"acme"}


def test_it_waits_for_all_it_is_made_of(instance: dg.DagsterInstance, automation: Automation, sandbox: Sandbox) -> None:
    """MRR without its coupons would be wrong; the sync's own failure says what is missing."""
    automation.requested()
    sandbox.fault("status", "/v1/coupons", status=403)
    run(instance, "stripe_sync", "acme")
    assert automation.requested() == set()

    sandbox.clear_faults()
    run(instance, "stripe_sync", "acme")
    assert automation.requested() == {"acme"}


def test_one_month_can_be_computed_again(instance: dg.DagsterInstance, store: Store, automation: Automation) -> None:
    run(instance, "stripe_sync", "acme")
    computed = run(instance, "mrr", "acme")
    (made,) = materializations(instance, computed.run_id).values()
    assert len(str(made.metadata["waterfall"].value)) < 60_000, "Dagster keeps it with every materialization"
    right = read_movements(store, "acme")
    assert made.metadata["ending_mrr_usd"].value == right[-1].ending / 100
    with store.organization("acme") as connection:
        connection.exec_driver_sql("DELETE FROM analytics.mrr_movements WHERE month >= '2026-06-01'")
    assert run(instance, "mrr_history", "2026-07-01", "acme").success

    since_june = [row for row in read_movements(store, "acme") if row.month >= date(2026, 6, 1)]
    assert since_june == [row for row in right if row.month == date(2026, 7, 1)]
