"""What a sync's run says of each object while all goes well, and what it says when it does not."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from churnguard_pipelines.connectors import api_connector
from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.orchestration.running import STOPPED, RunningSync
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import remove_integration
from churnguard_pipelines.store.ingest.ledger import get_sync
from churnguard_pipelines.store.postgres.database import Store
from tests.orchestration.conftest import Register
from tests.orchestration.runs import config, failure_of, materializations, objects, run, sandbox_of_one_s_own

OBJECTS = {item.name for item in api_connector("stripe").objects}


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_of_one_s_own(tmp_path_factory.mktemp("sandbox")) as served:
        yield served


@pytest.fixture(autouse=True)
def _registered(register: Register, instance: dg.DagsterInstance) -> None:
    register()


def test_the_second_sync_tells_what_changed_and_how_far_it_lagged(
    instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    first = run(instance, "stripe_sync", "acme")
    sandbox.account("acme").insert_customer(name="Zoe Zimmermann", email="zoe@example.com")
    sandbox.account("acme").advance(120)
    second = run(instance, "stripe_sync", "acme")

    before = materializations(instance, first.run_id)["customers"].metadata
    after = materializations(instance, second.run_id)["customers"].metadata
    assert after["checkpoint_before"].value == before["checkpoint_after"].value
    assert after["checkpoint_after"].value != before["checkpoint_after"].value
    assert (after["rows_written"].value, after["rows_rejected"].value, after["rows_deleted"].value) == (1, 0, 0)
    assert float(str(after["duration_seconds"].value)) > 0
    assert float(str(after["lag_seconds"].value)) > 0
    assert "lag_seconds" not in before, "there was nothing to lag behind"
    assert "zoe" not in str(after).lower(), "a preview names nobody"
    assert "`object`: new field, `text`" in str(before["schema_drift"].value)
    assert "schema_drift" not in after, "what is known already is not told again"


def test_an_object_without_changes_keeps_its_data_version_and_shows_no_rows(
    instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    first, second = (materializations(instance, run(instance, "stripe_sync", "acme").run_id) for _ in range(2))
    assert _versions(second) == _versions(first)
    assert "preview" not in second["customers"].metadata

    sandbox.account("acme").insert_customer()
    sandbox.account("acme").advance(120)
    third = materializations(instance, run(instance, "stripe_sync", "acme").run_id)
    changed = {name for name, version in _versions(third).items() if version != _versions(second)[name]}
    assert "customers" in changed
    assert "coupons" not in changed


def test_objects_that_fail_do_not_keep_the_others_but_fail_the_run_with_cause_and_remedy(
    instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    sandbox.fault("status", "/v1/coupons", status=403)
    sandbox.fault("status", "/v1/payouts", status=403)
    result = run(instance, "stripe_sync", "acme")

    assert not result.success
    assert materializations(instance, result.run_id).keys() == OBJECTS - {"coupons", "payouts"}
    headline, *lines = failure_of(result).splitlines()
    assert headline == f"acme: 2 of {len(OBJECTS)} objects failed."
    assert [line.partition(":")[0] for line in lines] == ["coupons", "payouts"]
    assert all("403" in line or "permission" in line for line in lines)


def test_refused_credentials_are_told_and_the_next_run_does_not_even_call(
    instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    sandbox.fault("revoke")
    first = run(instance, "stripe_sync", "acme")
    calls = sandbox.requests
    second = run(instance, "stripe_sync", "acme")

    assert failure_of(first).startswith("acme: ")
    assert sandbox.requests == calls
    assert "skipped without a call" in failure_of(second)
    assert sandbox.account("acme").key not in failure_of(first) + failure_of(second)


def test_an_unknown_mode_is_refused(instance: dg.DagsterInstance) -> None:
    result = run(instance, "stripe_sync", "acme", run_config=config(mode="sideways"))
    assert failure_of(result).startswith("there is no sync mode 'sideways'; there are: full, incremental")


def test_a_sync_calls_for_what_it_reads_and_leaves_the_checks_to_their_own_schedule(
    instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    result = run(instance, "stripe_sync", "acme")
    assert [event.step_key for event in result.all_events if event.is_step_success] == ["stripe_objects"]


def test_a_run_that_is_terminated_leaves_a_finished_page_in_the_ledger(store: Store, sandbox: Sandbox) -> None:
    """Termination reaches the step as an exception where it waits; whoever looks must not see a sync that runs."""
    sandbox.fault("hang", "/v1/prices")
    finished = RunningSync(store, "terminated", "acme", None).succeeded_objects()
    next(finished)
    with pytest.raises(KeyboardInterrupt):
        finished.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    report = get_sync(store, "terminated")
    assert (report.status, report.error) == ("cancelled", STOPPED)


def test_a_partition_whose_integration_is_gone_is_named(instance: dg.DagsterInstance, store: Store) -> None:
    run(instance, "stripe_sync", "acme", asset_selection=objects("coupons"))
    remove_integration(store, "acme", actor="test")
    with pytest.raises(NotFound, match="there is no integration 'acme'"):
        run(instance, "stripe_sync", "acme")


def _versions(made: dict[str, dg.AssetMaterialization]) -> dict[str, str]:
    return {name: (each.tags or {})["dagster/data_version"] for name, each in made.items()}
