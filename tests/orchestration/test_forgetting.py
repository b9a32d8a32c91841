"""What is old is forgotten, but never the last word on an asset or an object."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.orchestration.retention import forget_syncs
from churnguard_pipelines.records import Lane, Rejected
from churnguard_pipelines.store.ingest import rejected
from churnguard_pipelines.store.ingest.ledger import find_sync, finish_sync, last_success, set_object, start_sync
from churnguard_pipelines.store.ingest.tables import rejected_records, syncs
from churnguard_pipelines.store.postgres.database import Store
from tests.orchestration.conftest import Register
from tests.orchestration.runs import objects, run


def test_old_runs_go_with_their_events_but_for_the_newest_success_of_each_partition(
    instance: dg.DagsterInstance, register: Register
) -> None:
    register()
    made = [run(instance, "stripe_sync", "acme", asset_selection=objects("coupons")) for _ in range(3)]
    _delete(instance, days=30)
    assert all(instance.has_run(each.run_id) for each in made), "they are young"

    _delete(instance, days=0)
    assert [instance.has_run(each.run_id) for each in made] == [False, False, True]
    assert instance.all_logs(made[0].run_id) == []
    assert instance.get_materialized_partitions(objects("coupons")[0]) == {"acme"}


@pytest.mark.parametrize("latest", ["succeeded", "failed"])
def test_the_ledger_keeps_the_latest_sync_and_the_latest_success_of_each_object(
    store: Store, integration: IntegrationConfiguration, latest: str
) -> None:
    for age, status in ((60, "succeeded"), (50, "succeeded"), (40, latest)):
        _sync(store, integration, f"{age} days ago", timedelta(days=age), status)
    before = last_success(store, integration.integration_id, "coupons")
    forget_syncs(store, days=30)

    kept = {name for name in ("60 days ago", "50 days ago", "40 days ago") if find_sync(store, name)}
    assert kept == ({"40 days ago"} if latest == "succeeded" else {"50 days ago", "40 days ago"})
    assert last_success(store, integration.integration_id, "coupons") == before


def test_rejected_records_that_were_resolved_go_and_those_that_wait_stay(
    instance: dg.DagsterInstance, store: Store, integration: IntegrationConfiguration
) -> None:
    lane = Lane(integration.organization_id, integration.integration_id, "coupons")
    with store.organization(lane.organization_id) as connection:
        rejected.add(connection, lane, "coupons", [Rejected(key, "wrong", {"id": key}) for key in ("a", "b")], None)
    (waits, resolved) = rejected.list_rejected(store, integration.integration_id)
    with store.organization(lane.organization_id) as connection:
        rejected.mark_resolved(connection, [resolved])
    _delete(instance, days=30)
    assert _kept(store) == {waits.id, resolved.id}, "it was resolved just now"
    _delete(instance, days=0)
    assert _kept(store) == {waits.id}


def _kept(store: Store) -> set[int]:
    with store.operator() as connection:
        return set(connection.scalars(sa.select(rejected_records.c.id)))


def _delete(instance: dg.DagsterInstance, *, days: int) -> None:
    wanted = {"ops": {"delete_old_runs": {"config": {"days": days}}}}
    assert definitions.resolve_job_def("retention").execute_in_process(instance=instance, run_config=wanted).success


def _sync(store: Store, integration: IntegrationConfiguration, name: str, age: timedelta, status: str) -> None:
    start_sync(store, name, integration, "incremental", ["coupons"])
    set_object(store, name, "coupons", status=status)  # type: ignore[arg-type]
    finish_sync(store, name, status)  # type: ignore[arg-type]
    with store.operator() as connection:
        ago = {"started_at": syncs.c.started_at - age, "finished_at": syncs.c.finished_at - age}
        connection.execute(sa.update(syncs).where(syncs.c.sync_id == name).values(ago))
