"""A failed run becomes one log line that says why."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import dagster as dg
import pytest

from churnguard_pipelines.orchestration.alerts import failure_alert
from churnguard_pipelines.sandbox.serve import Sandbox
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
