"""A failed run becomes one log line that says why, and what never began is known to health."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import dagster as dg
import pytest

from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.monitoring.health import judge
from churnguard_pipelines.monitoring.vitals import read_vitals
from churnguard_pipelines.orchestration.alerts import failure_alert, note_never_begun
from churnguard_pipelines.orchestration.partitions import tags_of
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.ingest.ledger import get_sync
from churnguard_pipelines.store.postgres.database import Store
from tests.orchestration.conftest import Register
from tests.orchestration.runs import objects, run, sandbox_of_one_s_own


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_of_one_s_own(tmp_path_factory.mktemp("sandbox")) as served:
        yield served


def test_a_failed_run_is_one_line_with_the_cause(
    instance: dg.DagsterInstance, register: Register, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    register()
    sandbox.fault("status", "/v1/coupons", status=403)
    result = run(instance, "stripe_sync", "acme", asset_selection=objects("coupons", "prices"))
    (event,) = (each for each in result.all_events if each.event_type == dg.DagsterEventType.RUN_FAILURE)
    context = dg.build_run_status_sensor_context(
        sensor_name="failure_alert", dagster_event=event, dagster_instance=instance, dagster_run=result.dagster_run
    ).for_run_failure()
    with caplog.at_level(logging.ERROR, logger="churnguard.alerts"):
        failure_alert(context)

    (line,) = (each.getMessage() for each in caplog.records if each.name == "churnguard.alerts")
    told = f"run {result.run_id} of stripe_sync (acme) failed: acme: 1 of 2 objects failed. coupons: "
    assert line.startswith(told)
    assert "\n" not in line


def test_a_sync_whose_run_never_began_is_on_record_and_an_alert(
    instance: dg.DagsterInstance, register: Register, store: Store
) -> None:
    """Ten such runs once left everybody's health at 100."""
    register()
    job = definitions.resolve_job_def("stripe_sync")
    asked = instance.create_run_for_job(job, tags={"dagster/partition": "acme", **tags_of("acme")})
    instance.report_run_failed(asked, "its process could not be started.")
    failed = instance.get_run_by_id(asked.run_id)
    assert failed is not None
    for _ in range(2):
        note_never_begun(failed, "its process could not be started.")

    page = get_sync(store, asked.run_id)
    assert (page.status, page.trigger) == ("failed", "manual")
    assert page.error == "its run ended before the sync began: its process could not be started."
    [health] = [judge(vitals) for vitals in read_vitals(store)]
    assert [sign.kind for sign in health.alerts] == ["success_rate"]
