"""The simulated Salesforce, HubSpot and Mailchimp are compared with us by the same checks as Stripe is, and mended."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from churnguard_pipelines.cli.demo.crms import crm_integrations
from churnguard_pipelines.connectors import api_connector
from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.parity import Comparison, compare_counts, compare_keys
from churnguard_pipelines.syncing.plan import plan_sync
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import as_administrator

CHOSEN = {
    "salesforce": ["Account", "Contact", "Opportunity"],
    "hubspot": ["companies", "contacts", "deals"],
    "mailchimp": ["lists", "members", "campaigns"],
}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with serve(tmp_path_factory.mktemp("sandbox"), scale=0.05) as served:
        yield served


@pytest.fixture(params=CHOSEN)
def crm(request: pytest.FixtureRequest, store: Store, sandbox: Sandbox) -> IntegrationConfiguration:
    made = next(each for each in crm_integrations(sandbox.url) if each.provider_name == request.param)
    made.sync_config.objects = CHOSEN[request.param]
    add_organization(store, Organization(organization_id=made.organization_id, name="CRM"), actor="test")
    add_integration(store, made, actor="test")
    return made


def test_what_was_lost_is_found_by_the_provider_s_count_and_read_again(
    store: Store, crm: IntegrationConfiguration
) -> None:
    name = crm.integration_id
    planned = plan_sync(store, crm)
    assert {each.basis for each in planned.objects} == {"provider"}
    report = sync_integration(store, name, sync_id="first")
    assert report.status == "succeeded", report
    found = report.deviation
    assert found is not None
    assert found.planned_rows == found.rows

    kind = api_connector(crm.provider_name)
    for item in (each for each in kind.objects if each.name in CHOSEN[crm.provider_name]):
        assert compare_counts(store, crm, item) == Comparison(), item.name
        raw = kind.table_of(item).name
        with psycopg.connect(as_administrator(store.database_url)) as connection:
            lost = connection.execute(
                f"DELETE FROM raw.{raw} WHERE {item.key} IN "
                f"(SELECT {item.key} FROM raw.{raw} WHERE deleted_at IS NULL ORDER BY {item.created_column} LIMIT 3)"
            ).rowcount
        compared = compare_counts(store, crm, item)
        assert (compared.missing, compared.mended, compared.left) == (lost, lost, 0), item.name
        assert compare_keys(store, crm, item) == Comparison(), item.name
