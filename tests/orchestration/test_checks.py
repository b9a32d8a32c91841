"""Asset checks: each speaks for every integration of the provider and names those that are not well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import set_status
from churnguard_pipelines.store.control.tables import integrations
from churnguard_pipelines.store.ingest.tables import syncs
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing import parity
from tests.conftest import as_administrator
from tests.orchestration.conftest import Register
from tests.orchestration.runs import ANCHOR, config, objects, pass_time, run, sandbox_of_one_s_own


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_of_one_s_own(tmp_path_factory.mktemp("sandbox")) as served:
        yield served


class Checks:
    """The two check jobs, run now."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def health(self, name: str) -> dict[str, dg.AssetCheckEvaluation]:
        """Object -> what the check of this name says of it."""
        return self._run("stripe_health_checks", name)

    def parity(self) -> dict[str, dg.AssetCheckEvaluation]:
        return self._run("stripe_parity_checks", "rows_match_provider")

    def _run(self, job: str, name: str) -> dict[str, dg.AssetCheckEvaluation]:
        result = definitions.resolve_job_def(job).execute_in_process(instance=self._instance)
        found = result.get_asset_check_evaluations()
        return {each.asset_key.path[-1]: each for each in found if each.check_name == name}


@pytest.fixture
def checks(instance: dg.DagsterInstance, register: Register) -> Checks:
    register()
    return Checks(instance)


@pytest.fixture
def synced(instance: dg.DagsterInstance, store: Store, checks: Checks) -> None:
    """At the simulated business's present, where its clock stands still."""
    assert run(instance, "stripe_sync", "acme").success
    with store.operator() as connection:
        connection.execute(sa.update(syncs).values(started_at=ANCHOR))


def test_a_provider_without_an_integration_has_no_runs_of_checks(instance: dg.DagsterInstance, checks: Checks) -> None:
    repository = definitions.get_repository_def()

    def asked(name: str) -> tuple[int, str | None]:
        context = dg.build_schedule_context(instance=instance, repository_def=repository)
        tick = repository.get_schedule_def(name).evaluate_tick(context)
        return len(tick.run_requests or []), tick.skip_message

    assert asked("stripe_health_checks_schedule") == (1, None)
    assert asked("mongodb_health_checks_schedule") == (0, "There is no integration of MongoDB.")
    assert asked("hubspot_parity_checks_schedule") == (0, "There is no integration of HubSpot.")


# --- fresh


def test_fresh_means_synced_within_twice_the_frequency(
    checks: Checks, instance: dg.DagsterInstance, store: Store
) -> None:
    run(instance, "stripe_sync", "acme", asset_selection=objects("customers"))
    assert checks.health("fresh")["customers"].passed
    _earlier(store, timedelta(minutes=119))
    assert checks.health("fresh")["customers"].passed
    _earlier(store, timedelta(minutes=2))
    found = checks.health("fresh")["customers"]
    assert not found.passed
    minutes = re.fullmatch(r"acme: last synced (\d+) minutes ago", str(found.description))
    assert minutes is not None
    assert int(minutes[1]) in (121, 122, 123), "and what the checks took meanwhile"


def test_what_a_person_paused_is_left_alone(checks: Checks, store: Store, sandbox: Sandbox) -> None:
    set_status(store, "acme", IntegrationStatus.PAUSED)
    found = checks.health("fresh")["customers"], checks.parity()["customers"]
    assert all(each.passed for each in found)
    assert {each.metadata["integrations"].value for each in found} == {0}
    assert sandbox.requests == 0


def test_an_unreadable_secret_is_a_finding_and_not_the_end_of_the_check(checks: Checks, store: Store) -> None:
    with store.operator() as connection:
        connection.execute(sa.update(integrations).values(credentials_sealed="sealed under a key that is lost"))
    found = checks.health("fresh")["customers"]
    assert not found.passed
    assert str(found.description).startswith("acme: ")


# --- schema_drift


@pytest.mark.usefixtures("synced")
def test_values_that_do_not_fit_their_column_are_named(
    checks: Checks, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    before = checks.health("schema_drift")["coupons"]
    assert before.passed
    assert int(str(before.metadata["undeclared_fields"].value)) > 0

    sandbox.fault("bad_record", "/v1/coupons", field="percent_off", value="a quarter")
    chosen: dict[str, Any] = {"run_config": config(mode="full"), "asset_selection": objects("coupons")}
    assert run(instance, "stripe_sync", "acme", **chosen).success, "what does not fit is rejected; the rest is stored"
    found = checks.health("schema_drift")["coupons"]
    assert (found.passed, found.description) == (False, "acme: values do not fit the columns percent_off")


# --- rows_match_provider


@pytest.mark.usefixtures("synced")
def test_rows_that_are_missing_here_and_rows_that_are_gone_there_are_counted_and_mended(
    checks: Checks, instance: dg.DagsterInstance, store: Store
) -> None:
    same = checks.parity()
    assert all(each.passed for each in same.values())
    assert {each.metadata["not_compared"].value for each in same.values()} == {0}

    with psycopg.connect(as_administrator(store.database_url)) as connection:
        newest = "SELECT id FROM raw.stripe_charges WHERE created < '2026-09-17 10:00' ORDER BY created DESC LIMIT 2"
        connection.execute(f"DELETE FROM raw.stripe_charges WHERE id IN ({newest})")
        connection.execute(
            "UPDATE raw.stripe_invoices SET id = 'in_nowhere' WHERE id = (SELECT id FROM raw.stripe_invoices "
            "WHERE created < '2026-09-17 10:00' ORDER BY created DESC LIMIT 1)"
        )
    pass_time(store, timedelta(hours=2))
    found = checks.parity()
    assert found["charges"].description == "acme: 2 missing here, 0 gone there; 2 mended"
    told = instance.get_latest_materialization_event(dg.AssetKey(["stripe", "charges"]))
    assert told is not None
    assert told.asset_materialization is not None
    assert told.asset_materialization.description == "Mended by a check", "so that what follows from it is made anew"
    assert told.asset_materialization.metadata["rows_written"].value == 2
    assert found["charges"].passed, "nothing is left to be done"
    assert found["invoices"].description == "acme: 1 missing here, 1 gone there; 2 mended"
    assert found["invoices"].metadata["missing_here"].value == found["invoices"].metadata["gone_there"].value == 1


@pytest.mark.usefixtures("synced")
def test_rows_that_differ_and_cannot_be_mended_are_a_finding(checks: Checks, store: Store) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute(
            "UPDATE raw.stripe_charges SET deleted_at = now(), delete_kind = 'hard', source_version = 10 ^ 15 WHERE id "
            "= (SELECT id FROM raw.stripe_charges WHERE created < '2026-09-17 10:00' ORDER BY created DESC LIMIT 1)"
        )
    found = checks.parity()["charges"]
    assert (found.passed, found.description) == (False, "acme: 1 missing here, 0 gone there; 0 mended")


@pytest.mark.usefixtures("synced")
def test_a_comparison_asks_a_bounded_number_of_questions(
    checks: Checks, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy account is compared by ever shorter spans, the newest first, and what is left is said."""
    monkeypatch.setattr(parity, "LIMIT", 0)
    monkeypatch.setattr(parity, "MOST_QUESTIONS", 4)
    calls = sandbox.requests
    found = checks.parity()
    assert found["charges"].passed
    assert int(str(found["charges"].metadata["spans_left"].value)) > 0
    assert sandbox.requests - calls <= len(found) * (parity.MOST_QUESTIONS + 1), "and who the account is"


@pytest.mark.usefixtures("synced")
def test_what_filters_leave_out_is_not_missing(checks: Checks, register: Register) -> None:
    register(data_filters=[{"field": "status", "value": "paid", "objects": ["invoices"]}])
    found = checks.parity()
    assert all(each.passed for each in found.values())
    assert {name for name, each in found.items() if each.metadata["not_compared"].value} == {"invoices"}


@pytest.mark.usefixtures("synced")
def test_a_provider_that_refuses_is_a_finding(checks: Checks, sandbox: Sandbox) -> None:
    sandbox.fault("status", "/v1/charges", status=403)
    found = checks.parity()
    assert not found["charges"].passed
    assert "403" in str(found["charges"].description)
    assert found["refunds"].passed


def _earlier(store: Store, time: timedelta) -> None:
    with store.operator() as connection:
        connection.execute(sa.update(syncs).values(started_at=syncs.c.started_at - time))
