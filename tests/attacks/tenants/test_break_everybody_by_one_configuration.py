"""A tenant configures what cannot work, or what we stored cannot be read: its own problem, and no loop stops at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.model import IntegrationCredentials, Organization
from churnguard_pipelines.monitoring.monitor import take_picture
from churnguard_pipelines.monitoring.vitals import read_vitals
from churnguard_pipelines.orchestration import checks
from churnguard_pipelines.store.control.integrations import add_integration, survey_integrations
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import list_endpoints
from churnguard_pipelines.store.ingest.due import due_integrations
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.changes import followed_integrations
from tests.attacks.tenants.silence import Silent, database, followed, silence
from tests.conftest import configuration
from tests.orchestration.conftest import instance  # noqa: F401 - a fixture
from tests.webhook_gateway.api.conftest import Call, call, integration, key_of, settings  # noqa: F401 - fixtures
from webhook_gateway.intake.directory import Directory

pytestmark = pytest.mark.timeout(120)

Spoil = Callable[[Store], None]


def _stored(store: Store, statement: str) -> None:
    with store.operator() as connection:
        assert connection.exec_driver_sql(statement).rowcount


def unreadable_credentials(store: Store) -> None:
    _stored(store, "UPDATE control.integrations SET credentials_sealed = 'not sealed' WHERE integration_id ~ '^evil'")


def an_unknown_provider(store: Store) -> None:
    _stored(store, "UPDATE control.integrations SET provider = 'gone' WHERE integration_id ~ '^evil-stripe'")


def a_configuration_of_another_version(store: Store) -> None:
    broken = 'jsonb_set(config, \'{sync_config,data_filters}\', \'[{"field": 1, "op": "nonsense"}]\')'
    _stored(store, f"UPDATE control.integrations SET config = {broken} WHERE integration_id ~ '^evil'")


def a_configuration_that_is_empty(store: Store) -> None:
    _stored(store, "UPDATE control.integrations SET config = '{}' WHERE integration_id ~ '^evil'")


def moments_that_are_none(store: Store) -> None:
    """As any key of the organization can set them."""
    for number, moment in enumerate(("nonsense", "1e300", "nan")):
        credentials = {
            "credential_type": "oauth2", "access_token": "t", "custom_fields": {"token_expires_at": moment},
        }  # fmt: skip
        made = configuration(
            f"evil-{number}",
            organization_id="aaa-evil",
            credentials=IntegrationCredentials.model_validate(credentials),
        )
        add_integration(store, made, actor="test")


@pytest.fixture(
    params=[
        unreadable_credentials,
        an_unknown_provider,
        a_configuration_of_another_version,
        a_configuration_that_is_empty,
        moments_that_are_none,
    ],
    ids=lambda spoil: spoil.__name__,
)
def spoilt(request: pytest.FixtureRequest, store: Store, organization: Organization) -> str:
    """The good organization's key; the other one's integrations, which come first everywhere, are spoilt."""
    add_organization(store, Organization(organization_id="aaa-evil", name="Evil Corp."), actor="test")
    for made in (
        configuration("evil-stripe", organization_id="aaa-evil", base_url="http://127.0.0.1:9"),
        database("evil-db", "aaa-evil", 99_999, sync_mode="real_time"),
        configuration("acme-stripe", base_url="http://127.0.0.1:9", sync_config={"retry_attempts": 0}),
        database("acme-db", "acme", 1, sync_mode="real_time"),
    ):
        add_integration(store, made, actor="test")
        if made.provider_name == "postgresql":
            followed(store, made)
    request.param(store)
    return key_of(store, "acme")


@pytest.mark.usefixtures("spoilt")
def test_schedules_sessions_and_monitoring_go_on(store: Store) -> None:
    assert "acme-stripe" in {each.integration_id for each in due_integrations(store, "stripe", store.now())}
    assert "acme-db" in {each.integration_id for each in followed_integrations(store)}
    assert {"acme-stripe", "acme-db"} <= survey_integrations(store).keys()
    assert {"acme-stripe", "acme-db"} <= {each.integration_id for each in read_vitals(store)}
    assert {"acme-stripe", "acme-db"} <= {each.vitals.integration_id for each in take_picture(store).integrations}


def test_the_api_goes_on(spoilt: str, call: Call) -> None:  # noqa: F811
    """Of everybody else, and of an operator who looks at all."""
    for key in ({"key": spoilt}, {}):
        listed = call("GET", "/integrations", **key)
        assert {"acme-stripe", "acme-db"} <= {each["integration_id"] for each in listed.json()}
        shown = call("GET", "/dashboard/integrations", **key)
        assert {"acme-stripe", "acme-db"} <= {each["integration_id"] for each in shown.json()}
        tested = {each["integration_id"]: each for each in call("POST", "/system/test-connections", **key).json()}
        assert {"acme-stripe", "acme-db"} <= tested.keys()
        assert all(each["cause"] for each in tested.values())


@pytest.mark.usefixtures("spoilt")
def test_checks_go_on(instance: dg.DagsterInstance) -> None:  # noqa: F811
    for job in ("postgresql_health_checks", "stripe_health_checks"):
        result = definitions.resolve_job_def(job).execute_in_process(instance=instance)
        assert result.success
        for each in result.get_asset_check_evaluations():
            if each.check_name == "fresh":
                assert "acme-" in (each.description or ""), "never synced"


@pytest.mark.parametrize("frequency", [10**10, 10**12, 10**30])
def test_a_frequency_beyond_what_the_database_reckons_with(
    store: Store,
    call: Call,  # noqa: F811
    frequency: int,
) -> None:
    """It made the statement fail that looks for due integrations, everybody's, and the dashboards' too."""
    evil = key_of(store, "evil")
    refused = call("POST", "/integrations", evil, json=integration("evil", sync_config={"sync_frequency": frequency}))
    assert refused.status_code == 422
    made = call("POST", "/integrations", evil, json=integration("evil")).json()["integration_id"]
    changed = call("PATCH", f"/integrations/{made}", evil, json={"sync_config": {"sync_frequency": frequency}})
    assert changed.status_code == 422
    assert [each.integration_id for each in due_integrations(store, "stripe", store.now())] == [made]
    assert len(read_vitals(store)) == 1


def test_an_endpoint_that_cannot_be_read_silences_no_other(store: Store, call: Call) -> None:  # noqa: F811
    for name in ("aaa-evil", "good"):
        endpoint = {"organization_id": name, "provider": "custom"}
        assert call("POST", "/webhooks/endpoints", key_of(store, name), json=endpoint).status_code == 201
    _stored(store, "UPDATE control.webhook_endpoints SET secrets_sealed = 'no' WHERE organization_id = 'aaa-evil'")
    assert [each.organization_id for each in list_endpoints(store)] == ["good"]
    directory = Directory(store)
    directory.load()
    assert directory.find("custom", "good")
    assert call("GET", "/webhooks/endpoints").status_code == 200


def test_a_check_at_a_silent_provider_keeps_nobody_waiting(
    store: Store,
    organization: Organization,
    instance: dg.DagsterInstance,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "PATIENCE", 3.0)
    monkeypatch.setattr(checks, "LEAST_PATIENCE", 0.5)
    with silence() as silent:
        _registered_for_parity(store, silent)
        result = definitions.resolve_job_def("stripe_parity_checks").execute_in_process(instance=instance)
        told: list[Any] = [each.description or "" for each in result.get_asset_check_evaluations()]
    assert sum("evil-0: its provider did not answer in time" in each for each in told) >= 3
    assert not any("acme-stripe" in each for each in told), "never synced, so there was nothing to compare"


def _registered_for_parity(store: Store, silent: Silent) -> None:
    add_organization(store, Organization(organization_id="evil", name="Evil Corp."), actor="test")
    for number in range(10):
        made = configuration(f"evil-{number}", organization_id="evil", base_url=f"http://127.0.0.1:{silent.port}")
        add_integration(store, made, actor="test")
        synced = (
            "INSERT INTO ingest.syncs (sync_id, organization_id, integration_id, mode, trigger, status) "
            f"VALUES ('s{number}', 'evil', 'evil-{number}', 'full', 'manual', 'succeeded')"
        )
        _stored(store, synced)
        for item in ("customers", "invoices", "subscriptions"):
            _stored(
                store,
                "INSERT INTO ingest.sync_objects (organization_id, sync_id, object, status) "
                f"VALUES ('evil', 's{number}', '{item}', 'succeeded')",
            )
    add_integration(store, configuration("acme-stripe", base_url="http://127.0.0.1:9"), actor="test")
