"""What a run leaves behind: materializations, the ledger's report, one clear failure; what makes the next one run."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.stripe import Stripe
from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.orchestration.launch import run_mrr, run_sync
from churnguard_pipelines.orchestration.mrr import KEY as MRR
from churnguard_pipelines.orchestration.partitions import partition_keeper, tags_of
from churnguard_pipelines.orchestration.retention import KEEP_DAYS
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import remove_integration, set_status
from churnguard_pipelines.store.ingest.breakers import BreakerRow, locked_breaker
from churnguard_pipelines.store.ingest.ledger import SyncReport, get_sync, latest_sync
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.due import DueSyncs
from tests.orchestration.conftest import Register
from tests.orchestration.runs import due, long_syncs, pass_time

OBJECTS = [item.name for item in Stripe.objects]

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("dagster")]


def sync(store: Store, mode: str | None = None, objects: list[str] | None = None) -> tuple[bool, SyncReport]:
    """One run of ``stripe_sync`` in this process: whether it succeeded, and its page in the ledger."""
    sync_id = str(uuid.uuid4())
    succeeded = run_sync(sync_id, "acme", mode, objects)
    return succeeded, get_sync(store, sync_id)


def materialized(instance: dg.DagsterInstance, run_id: str) -> dict[str, Mapping[str, Any]]:
    """Object -> metadata of its materialization in a run, all for the partition ``acme``."""
    found: dict[str, Mapping[str, Any]] = {}
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.get_dagster_event()
        assert event.partition == "acme"
        assert event.asset_key is not None
        metadata = event.step_materialization_data.materialization.metadata
        found[event.asset_key.path[-1]] = {name: each.value for name, each in metadata.items()}
    return found


def failure(instance: dg.DagsterInstance, run_id: str) -> str:
    """The message of the one step that failed."""
    (entry,) = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    data = entry.get_dagster_event().step_failure_data
    assert data.user_failure_data is not None, "not a Failure with a message of its own"
    return data.user_failure_data.description or ""


def test_a_sync_materializes_every_object_and_says_what_it_did(
    store: Store, instance: dg.DagsterInstance, register: Register, sandbox: Sandbox
) -> None:
    register()
    succeeded, report = sync(store)

    assert succeeded
    assert (report.status, report.trigger) == ("succeeded", "manual")
    run = instance.get_run_by_id(report.sync_id)
    assert run is not None
    assert run.tags["churnguard/integration"] == "acme"
    assert run.tags["churnguard/organization"] == "acme"
    steps = {each.step_key for each in instance.get_run_step_stats(report.sync_id)}
    assert steps == {"stripe_objects"}, "the checks, which speak for every integration, have schedules of their own"
    found = materialized(instance, report.sync_id)
    assert sorted(found) == sorted(OBJECTS)
    customers = found["customers"]
    assert customers["rows_read"] == customers["rows_written"] == sandbox.account("acme").counts()["customers"]
    assert customers["rows_rejected"] == customers["rows_deleted"] == 0
    assert customers["api_calls"] >= 1
    assert customers["checkpoint_before"] == "none"
    assert customers["checkpoint_after"]
    assert "| `id` |" in customers["preview"]
    assert "@" not in customers["preview"], "a person's address is shown"


def test_an_object_that_may_not_be_read_fails_alone_and_says_why(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    register(key="rk_sandbox_acme_no_payouts")
    succeeded, report = sync(store)

    assert not succeeded
    assert report.status == "partial"
    failed = {name for name, item in report.objects.items() if item.status == "failed"}
    assert "payouts" in failed
    assert set(materialized(instance, report.sync_id)) == set(OBJECTS) - failed
    message = failure(instance, report.sync_id)
    assert message.startswith("acme: ")
    assert "payouts: the credentials may not do this at Stripe (403 on GET /v1/payouts" in message
    assert "'rak_payout_read' permission" in message
    assert "Grant it at the provider, or leave the object out" in message
    assert "Traceback" not in message


def test_only_the_chosen_objects_are_read(store: Store, instance: dg.DagsterInstance, register: Register) -> None:
    register()
    succeeded, report = sync(store, "full", ["customers", "coupons"])

    assert succeeded
    assert report.mode == "full"
    assert set(report.objects) == {"customers", "coupons"} == set(materialized(instance, report.sync_id))


def test_the_integrations_own_mode_and_objects_hold_where_a_run_names_none(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    register(sync_mode="full", objects=["coupons"])
    succeeded, report = sync(store)

    assert succeeded
    assert report.mode == "full"
    assert set(report.objects) == {"coupons"} == set(materialized(instance, report.sync_id))


def test_a_first_sync_is_asked_for_once_as_a_run_of_its_own(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    register()
    assert long_syncs(instance) == [], "it is no partition yet"
    partition_keeper(dg.build_sensor_context(instance))
    (first,), (again,) = long_syncs(instance), long_syncs(instance)

    assert (first.job_name, first.partition_key) == ("stripe_sync", "acme")
    assert first.run_key == again.run_key, "until it has begun, a sync is asked for under the same key"
    assert first.tags["churnguard/integration"] == first.tags["churnguard/organization"] == "acme"
    assert first.tags["churnguard/trigger"] == "schedule"
    assert due(instance) == ([], "Due, each in a run of its own: acme.")

    asked = instance.create_run_for_job(definitions.resolve_job_def("stripe_sync"), tags=dict(first.tags))
    pass_time(store, timedelta(hours=1))
    assert long_syncs(instance) == [], "it waits in the queue"
    instance.report_run_failed(asked, "its process could not be started.")
    (later,) = long_syncs(instance)
    assert later.run_key != first.run_key, "Dagster runs no key twice; the same one would strand the integration"


def test_after_a_sync_nothing_is_due_until_its_frequency_has_passed(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    register(objects=["coupons"])
    sync(store)
    partition_keeper(dg.build_sensor_context(instance))
    assert due(instance) == due(instance, minutes=59) == ([], "Nothing is due.")
    (session,), _ = due(instance, minutes=61)
    assert session.partition_key is None
    assert session.tags["churnguard/longest_due"] == "acme"
    pass_time(store, timedelta(hours=1))
    assert long_syncs(instance) == []


def test_a_paused_integration_is_not_due(store: Store, instance: dg.DagsterInstance, register: Register) -> None:
    register()
    partition_keeper(dg.build_sensor_context(instance))
    set_status(store, "acme", IntegrationStatus.PAUSED, actor="test")
    assert due(instance) == ([], "Nothing is due.")
    assert long_syncs(instance) == []


def test_a_session_syncs_what_is_due_and_tells_of_rows_once_an_hour_and_of_changes_of_state(
    store: Store, instance: dg.DagsterInstance, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DueSyncs, "linger", 0.5)
    register(objects=["customers", "coupons"])
    sync(store)

    def session() -> dict[str, Mapping[str, Any]]:
        """What the next one shows of ``acme``, which is due."""
        pass_time(store, timedelta(hours=1))
        result = definitions.resolve_job_def("stripe_sync_session").execute_in_process(instance=instance)
        assert result.success
        page = latest_sync(store, "acme")
        assert page is not None
        assert page.trigger == "schedule"
        return materialized(instance, result.run_id)

    assert session() == {}, "nothing is new"
    with store.organization("acme") as connection:
        connection.exec_driver_sql("DELETE FROM raw.stripe_coupons; DELETE FROM ingest.checkpoints")
    brought = session()
    assert brought["coupons"]["rows_written"] > 0
    assert session() == {}
    with store.operator() as connection:  # as a sync that failed, or a webhook, leaves it
        connection.exec_driver_sql(
            "UPDATE ingest.materializations SET status = 'failed', written = 7 WHERE object = 'customers'"
        )
    assert session()["customers"]["rows_written"] == 7
    assert session() == {}


def test_an_open_circuit_is_the_reason_why_nothing_is_due(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    register()
    with locked_breaker(store, "acme", "acme") as breaker:
        breaker.row = BreakerRow(state="open", failures=5, reason="Stripe does not answer", remedy="Wait.")
    requests, reason = due(instance)

    assert requests == []
    assert long_syncs(instance) == []
    assert reason is not None
    assert "acme" in reason
    assert "Stripe does not answer" in reason


def test_partitions_follow_the_registered_integrations(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    register()
    added = partition_keeper(dg.build_sensor_context(instance))
    assert instance.get_dynamic_partitions("stripe") == ["acme"]
    unchanged = partition_keeper(dg.build_sensor_context(instance))
    remove_integration(store, "acme", actor="test")
    removed = partition_keeper(dg.build_sensor_context(instance))
    assert instance.get_dynamic_partitions("stripe") == []
    skipped = [each for each in (added, unchanged, removed) if isinstance(each, dg.SkipReason)]
    assert [each.skip_message for each in skipped] == [
        "stripe: added acme",
        "Every integration and every stream has its partition.",
        "stripe: removed acme",
    ]


def test_mrr_is_wanted_after_a_sync_and_shows_its_waterfall(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    register()
    before = dg.evaluate_automation_conditions(definitions, instance)
    sync(store)
    after = dg.evaluate_automation_conditions(definitions, instance, cursor=before.cursor)
    assert after.get_requested_partitions(MRR) == {"acme"}

    assert run_mrr(["acme"])
    event = instance.get_latest_materialization_event(MRR)
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.partition == "acme"
    metadata = {name: each.value for name, each in event.asset_materialization.metadata.items()}
    assert str(metadata["waterfall"]).startswith("![MRR movements](data:image/png;base64,iVBOR")
    assert metadata["currency"] == "USD"
    assert int(str(metadata["months"])) >= 24


def test_a_month_is_read_again_without_moving_the_checkpoint(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    register()
    sync(store)
    with store.organization("acme") as connection:
        lost, month = connection.execute(
            sa.text("SELECT count(*), min(date_trunc('month', created, 'UTC')) FROM raw.stripe_charges "
                    "GROUP BY date_trunc('month', created, 'UTC') ORDER BY 2 LIMIT 1 OFFSET 2")
        ).one()  # fmt: skip
        connection.execute(
            sa.text("DELETE FROM raw.stripe_charges WHERE date_trunc('month', created, 'UTC') = :month"),
            {"month": month},
        )
    everything = Warehouse(store).count("stripe_charges", "acme", "acme") + lost
    before = checkpoints(store)

    result = (
        definitions.resolve_job_def("stripe_history")
        .execute_in_process(instance=instance, partition_key=f"{month:%Y-%m-01}", tags=tags_of("acme"))
    )  # fmt: skip

    assert result.success
    assert Warehouse(store).count("stripe_charges", "acme", "acme") == everything
    assert checkpoints(store) == before
    assert materialized(instance, result.run_id)["charges"]["rows_read"] == lost
    assert get_sync(store, result.run_id).trigger == "history"


def test_a_history_names_its_integration_in_configuration_or_by_a_tag(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    """And has no key for each integration and month, of which there would be millions."""
    register(objects=["coupons"])
    job = definitions.resolve_job_def("stripe_history")
    assert isinstance(job.partitions_def, dg.MonthlyPartitionsDefinition)
    configured = {"ops": {"stripe_month": {"config": {"integration": "acme", "objects": ["coupons"]}}}}
    assert job.execute_in_process(instance=instance, partition_key="2026-01-01", run_config=configured).success
    page = latest_sync(store, "acme")
    assert page is not None
    assert (page.trigger, set(page.objects)) == ("history", {"coupons"})
    nobody_s = job.execute_in_process(instance=instance, partition_key="2026-01-01", raise_on_error=False)
    assert "no integration is named" in failure(instance, nobody_s.run_id)


def checkpoints(store: Store) -> list[tuple[Any, ...]]:
    with store.operator() as connection:
        return [tuple(row) for row in connection.execute(sa.text("SELECT * FROM ingest.checkpoints ORDER BY 1, 2, 3"))]


def checked(instance: dg.DagsterInstance, job: str) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    """(object, check) -> its evaluation, of a run of one of the jobs of checks."""
    result = definitions.resolve_job_def(job).execute_in_process(instance=instance)
    assert result.success
    return {(each.asset_key.path[-1], each.check_name): each for each in result.get_asset_check_evaluations()}


def test_checks_pass_on_what_has_just_been_synced(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    register()
    sync(store)
    health, parity = checked(instance, "stripe_health_checks"), checked(instance, "stripe_parity_checks")

    assert set(health) == {(name, check) for name in OBJECTS for check in ("fresh", "schema_drift")}
    assert set(parity) == {(name, "rows_match_provider") for name in OBJECTS}
    assert [(key, each.description) for key, each in (health | parity).items() if not each.passed] == []


def test_checks_name_the_integration_that_is_not_well(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    register()
    assert checked(instance, "stripe_health_checks")["customers", "fresh"].description == "acme: never synced"
    sync(store)
    with store.organization("acme") as connection:
        lost = connection.execute(
            sa.text("DELETE FROM raw.stripe_events WHERE created BETWEEN now() - interval '6 days' "
                    "AND now() - interval '2 hours'")
        ).rowcount  # fmt: skip
    assert lost
    late = checked(instance, "stripe_parity_checks")["events", "rows_match_provider"]
    assert late.passed
    assert late.description == f"acme: {lost} missing here, 0 gone there; {lost} mended"


def test_old_finished_runs_are_deleted_and_nothing_else(
    store: Store, instance: dg.DagsterInstance, register: Register
) -> None:
    job = definitions.resolve_job_def("retention")
    statuses = {
        "old": dg.DagsterRunStatus.SUCCESS,
        "old_running": dg.DagsterRunStatus.STARTED,
        "young": dg.DagsterRunStatus.SUCCESS,
    }
    runs = {name: instance.create_run_for_job(job, status=status).run_id for name, status in statuses.items()}
    address = store.dagster_database_url.replace("postgresql+psycopg2://", "postgresql://")
    with psycopg.connect(address) as connection:
        for name, days in (("old", KEEP_DAYS + 1), ("old_running", KEEP_DAYS + 1), ("young", KEEP_DAYS - 1)):
            connection.execute(
                "UPDATE runs SET create_timestamp = now() AT TIME ZONE 'UTC' - make_interval(days => %s) "
                "WHERE run_id = %s",
                [days, runs[name]],
            )
    assert job.execute_in_process(instance=instance).success
    assert {name for name, run_id in runs.items() if instance.has_run(run_id)} == {"old_running", "young"}


def test_an_unknown_integration_is_one_clear_error(store: Store, instance: dg.DagsterInstance) -> None:
    with pytest.raises(NotFound, match="nobody"):
        run_sync(str(uuid.uuid4()), "nobody", None, None)
    assert latest_sync(store, "nobody") is None
