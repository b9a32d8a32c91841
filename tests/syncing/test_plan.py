"""What a sync would take is said before it runs, and how far that was off afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from churnguard_pipelines.engine.quota import Limits
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, Organization
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest.ledger import Deviation
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.plan import ObjectPlan, Plan, plan_sync
from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.conftest import Register
from tests.connectors.counting import Counting
from tests.connectors.toy import Account, accounts

CREATED = "2026-01-01T00:00:00Z"


@pytest.fixture
def crm(store: Store, organization: Organization, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """With 250 contacts and one deal, of which a page has 100."""
    with accounts(store, monkeypatch, Counting) as opened:
        account = opened()
        account.holds("contacts", *({"id": f"c{number}", "created": CREATED} for number in range(250)))
        account.holds("deals", {"id": "d1", "created": CREATED})
        yield account


def planned(account: Account, mode: DataSyncMode | None = None, *objects: str) -> Plan:
    integration = get_integration(account.store, account.integration_id)
    return plan_sync(account.store, integration, mode, list(objects) or None)


def of(plan: Plan, name: str) -> ObjectPlan:
    return next(each for each in plan.objects if each.object == name)


def test_a_first_sync_is_planned_by_the_provider_s_counts_and_says_how_far_that_was_off(crm: Account) -> None:
    plan = planned(crm)
    assert of(plan, "contacts") == ObjectPlan("contacts", True, 250, 3, "provider")
    assert of(plan, "deals") == ObjectPlan("deals", True, 1, 1, "provider")
    assert (plan.rows, plan.calls, plan.unknown) == (251, 4, [])
    assert plan.minutes is not None
    assert plan.minutes * 60 >= 4 / 1000, "at the pace that its quota allows"

    crm.holds("deals", {"id": "d1", "created": CREATED}, {"id": "d2", "created": CREATED})  # and one more meanwhile
    report = crm.sync()
    found = report.deviation
    assert isinstance(found, Deviation)
    assert (found.planned_rows, found.rows, found.planned_calls) == (251, 252, 4)
    assert found.calls == sum(each.calls for each in report.objects.values())
    assert crm.sync().deviation is None, "a plan is for one sync"


def test_a_sync_in_another_mode_leaves_the_plan_to_the_one_that_was_planned(crm: Account) -> None:
    planned(crm, DataSyncMode.FULL)
    assert crm.sync().deviation is None
    report = sync_integration(crm.store, crm.integration_id, sync_id="as-planned", mode=DataSyncMode.FULL)
    assert report.deviation is not None


def test_changes_are_planned_by_the_latest_sync_and_unknown_before_it(crm: Account) -> None:
    crm.sync()
    plan = planned(crm)
    assert (plan.unknown, plan.rows, plan.calls, plan.minutes) == (["contacts", "deals"], None, None, None)
    crm.holds("contacts", *({"id": f"c{number}", "created": CREATED} for number in range(7)))
    crm.sync()
    found = of(planned(crm), "contacts")
    assert (found.whole, found.rows, found.basis) == (False, 7, "latest sync")
    assert found.calls is not None


def test_what_is_refused_for_one_object_is_its_own_problem(crm: Account) -> None:
    crm.answers("/deals", 403, {"error": "no"})
    plan = planned(crm)
    assert of(plan, "deals").basis == "unknown"
    assert "403" in str(of(plan, "deals").problem)
    assert of(plan, "contacts").rows == 250


def test_the_share_of_the_provider_s_quota_is_said(crm: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "limits", lambda _: Limits(remaining=60, limit=100, window=86_400))
    plan = planned(crm)
    assert (plan.quota_share, plan.quota_left, plan.quota_window) == (0.04, 60, 86_400)


def test_only_what_is_chosen_is_planned(crm: Account) -> None:
    assert [each.object for each in planned(crm, None, "deals").objects] == ["deals"]


def test_a_provider_that_counts_nothing_is_planned_by_what_came_before(
    store: Store, register: Register, world: Sandbox
) -> None:
    """Stripe. Before the first sync nothing is known, and that is said."""
    integration: IntegrationConfiguration = register(world)
    chosen = ["customers", "charges"]
    plan = plan_sync(store, integration, None, chosen)
    assert (plan.rows, plan.calls, sorted(plan.unknown)) == (None, None, sorted(chosen))

    first = sync_integration(store, integration.integration_id, sync_id="first", objects=chosen)
    plan = plan_sync(store, integration, DataSyncMode.FULL, chosen)
    assert {(each.object, each.rows, each.basis) for each in plan.objects} == {
        (name, first.objects[name].counts.read, "latest sync") for name in chosen
    }
    report = sync_integration(store, integration.integration_id, sync_id="full", objects=chosen, mode=DataSyncMode.FULL)
    found = report.deviation
    assert found is not None
    assert found.rows == found.planned_rows
