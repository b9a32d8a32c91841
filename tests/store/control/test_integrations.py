"""Organizations and integrations, and what is left when one is removed."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import InvalidConfiguration, NotFound
from churnguard_pipelines.model import (
    CredentialType,
    DataFilter,
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationStatus,
    Organization,
    SyncConfiguration,
)
from churnguard_pipelines.records import TEXT, Column, Drift, Lane, Rejected, Table
from churnguard_pipelines.store.control.integrations import (
    add_integration,
    change_integration,
    find_integration,
    get_integration,
    list_integration_ids,
    list_integrations,
    locked_credentials,
    remove_integration,
    replace_integration,
    set_status,
)
from churnguard_pipelines.store.control.organizations import add_organization, get_organization, list_organizations
from churnguard_pipelines.store.ingest.drift import record_drift
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.blocked import wait_until_blocked
from tests.conftest import configuration
from tests.waiting import wait_for

THINGS = Table("stripe", "things", "id", (Column("a", TEXT),), versioned=True)


def audit(store: Store) -> list[tuple[Any, ...]]:
    with store.operator() as connection:
        rows = connection.execute(
            sa.text("SELECT actor, action, subject, organization_id FROM control.audit_log ORDER BY id")
        )
        return [tuple(row) for row in rows]


def _somebody_waits(store: Store) -> bool:
    with store.operator() as connection:
        waiting = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE NOT granted)"
        return bool(connection.exec_driver_sql(waiting).scalar_one())


def test_an_organization_is_added_once_and_then_left_alone(store: Store) -> None:
    acme = Organization(organization_id="acme", name="Acme", reporting_currency="eur")
    assert add_organization(store, acme, actor="me")
    assert not add_organization(store, Organization(organization_id="acme", name="acme"), actor="me")
    assert get_organization(store, "acme") == acme
    assert list_organizations(store) == [acme]
    assert audit(store) == [("me", "organization.add", "acme", "acme")]
    with pytest.raises(NotFound, match="globex"):
        get_organization(store, "globex")


def test_a_configuration_comes_back_as_it_was(store: Store, organization: Organization) -> None:
    added = configuration(
        base_url="https://api.example.com/v1",
        tags=["a"],
        sync_config=SyncConfiguration(
            field_mappings={"customers": {"metadata.plan": "plan"}},
            data_filters=[DataFilter(field="a", value=[1, None])],
        ),
        credentials=IntegrationCredentials(
            credential_type=CredentialType.OAUTH2,
            access_token=SecretStr("a"),
            custom_fields={"token_url": SecretStr("https://example.com/ü")},
        ),
    )
    add_integration(store, added, actor="me")
    found = get_integration(store, added.integration_id)
    assert found.created_by == "me"
    assert found.created_at is not None
    assert found.created_at.tzinfo is not None
    assert found.created_at.astimezone(UTC) == found.created_at
    assert found.model_copy(update={"created_at": None, "created_by": None}) == added


@pytest.mark.parametrize(
    ("set_by_somebody", "most"), [({}, math.inf), ({"requests_per_minute": 60}, 60)], ids=["not", "set"]
)
def test_a_pace_that_nobody_set_is_the_provider_s_also_after_other_settings_change(
    store: Store, integration: IntegrationConfiguration, set_by_somebody: dict[str, int], most: float
) -> None:
    replace_integration(
        store, integration.model_copy(update={"sync_config": SyncConfiguration(**set_by_somebody)}), actor="test"
    )

    def slower(known: IntegrationConfiguration) -> IntegrationConfiguration:
        return known.model_copy(update={"sync_config": known.sync_config.model_copy(update={"sync_frequency": 7200})})

    change_integration(store, integration.integration_id, slower, actor="test")
    found = get_integration(store, integration.integration_id).sync_config
    assert (found.most_per_minute, found.requests_per_minute, found.sync_frequency) == (most, 60, 7200)


def test_an_id_is_taken_only_once(store: Store, integration: IntegrationConfiguration) -> None:
    with pytest.raises(InvalidConfiguration, match="exists already") as caught:
        add_integration(store, integration, actor="me")
    assert caught.value.integration_id == "acme-stripe"


def test_an_integration_needs_its_organization(store: Store) -> None:
    with pytest.raises(InvalidConfiguration, match="no organization 'acme'"):
        add_integration(store, configuration(), actor="me")


def test_replacing_changes_what_may_change(store: Store, integration: IntegrationConfiguration) -> None:
    replace_integration(store, configuration(integration_name="Renamed"), actor="me")
    assert get_integration(store, "acme-stripe").integration_name == "Renamed"
    replace_integration(store, configuration("new-one"), actor="me")
    assert [item.integration_id for item in list_integrations(store)] == ["acme-stripe", "new-one"]
    with pytest.raises(InvalidConfiguration, match="provider_name is stripe"):
        replace_integration(store, configuration(provider_name="hubspot"), actor="me")
    assert [entry[1] for entry in audit(store)[-2:]] == ["integration.replace", "integration.add"]


def test_a_token_that_is_refreshed_while_a_name_changes_is_kept(
    store: Store, integration: IntegrationConfiguration
) -> None:
    with ThreadPoolExecutor(1) as pool, locked_credentials(store, "acme-stripe") as held:

        def renamed(known: IntegrationConfiguration) -> IntegrationConfiguration:
            return known.model_copy(update={"integration_name": "Renamed"})

        renaming = pool.submit(change_integration, store, "acme-stripe", renamed, "me")
        wait_for(lambda: _somebody_waits(store))
        held.save(IntegrationCredentials(credential_type=CredentialType.API_KEY, api_key=SecretStr("rk_refreshed")))
    renaming.result()
    stored = get_integration(store, "acme-stripe")
    assert stored.integration_name == "Renamed"
    assert stored.credentials.api_key == SecretStr("rk_refreshed")


def test_lists_are_narrowed(store: Store, integration: IntegrationConfiguration) -> None:
    add_organization(store, Organization(organization_id="globex", name="Globex"))
    add_integration(store, configuration("g", organization_id="globex", provider_name="hubspot"), actor="me")
    assert [item.integration_id for item in list_integrations(store, "globex")] == ["g"]
    assert [item.integration_id for item in list_integrations(store, provider="stripe")] == ["acme-stripe"]
    assert list_integration_ids(store, "stripe") == ["acme-stripe"]
    assert find_integration(store, "nothing") is None


def test_a_status_is_kept_with_its_reason_and_audited_once(store: Store, integration: IntegrationConfiguration) -> None:
    for _ in range(2):
        set_status(store, "acme-stripe", IntegrationStatus.PAUSED, "holidays", actor="me")
    assert get_integration(store, "acme-stripe").status is IntegrationStatus.PAUSED
    assert [entry[:3] for entry in audit(store)].count(("me", "integration.status", "acme-stripe")) == 1
    with pytest.raises(NotFound, match="nothing"):
        set_status(store, "nothing", IntegrationStatus.ACTIVE)


def test_credentials_change_under_a_lock(store: Store, integration: IntegrationConfiguration) -> None:
    def bearer(token: str) -> IntegrationCredentials:
        return IntegrationCredentials(credential_type=CredentialType.OAUTH2, access_token=SecretStr(token))

    with locked_credentials(store, "acme-stripe") as held:
        held.save(bearer("0"))

    def increment() -> None:
        with locked_credentials(store, "acme-stripe") as held:
            assert held.credentials.access_token is not None
            held.save(bearer(str(int(held.credentials.access_token.get_secret_value()) + 1)))

    threads = [threading.Thread(target=increment) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert get_integration(store, "acme-stripe").credentials == bearer("8")
    with pytest.raises(NotFound), locked_credentials(store, "nothing"):
        pass


@pytest.mark.parametrize(("purge", "rows_left"), [(False, 1), (True, 0)])
def test_removing_takes_everything_but_the_rows_unless_asked(
    store: Store, integration: IntegrationConfiguration, purge: bool, rows_left: int
) -> None:
    warehouse, lane = Warehouse(store), Lane("acme", "acme-stripe", "things")
    warehouse.ensure(THINGS)
    with warehouse.transaction("acme") as transaction:
        transaction.upsert(THINGS, "acme-stripe", [("k", 1, "x", None)])
        transaction.upsert(THINGS, "another", [("k", 1, "x", None)])
        transaction.advance(lane, None, {}, "acct")
        transaction.reject(lane, "things", [Rejected("k", "bad", {})], None)
    remove_integration(store, "acme-stripe", "me", purge=purge)
    assert find_integration(store, "acme-stripe") is None
    assert warehouse.count("stripe_things", "acme", "acme-stripe") == rows_left
    assert warehouse.count("stripe_things_versions", "acme", "acme-stripe") == rows_left
    assert warehouse.count("stripe_things", "acme", "another") == 1
    with store.operator() as connection:
        for table in ("ingest.checkpoints", "ingest.rejected_records"):
            assert connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) == 0
    assert audit(store)[-1] == ("me", "integration.remove", "acme-stripe", "acme")
    with pytest.raises(NotFound):
        remove_integration(store, "acme-stripe", "me")


def test_one_whose_lane_stores_just_now_is_removed_after_it(
    store: Store, integration: IntegrationConfiguration
) -> None:
    """Both take what is rejected before the checkpoint: neither waits for the other in a circle."""
    lane, warehouse = Lane("acme", integration.integration_id, "things"), Warehouse(store)
    with warehouse.transaction("acme") as transaction:
        transaction.reject(lane, "things", [Rejected("a", "it does not fit", {})], None)
        record_drift(transaction.connection, lane, "things", [Drift("a", "unknown_field", "")])
        standing = transaction.advance(lane, None, {"page": 1}, "acct_1")
    with warehouse.transaction("acme") as transaction:
        transaction.reject(lane, "things", [Rejected("a", "it still does not fit", {})], None)
        record_drift(transaction.connection, lane, "things", [Drift("a", "unknown_field", "")])
        removing = in_thread("remove", lambda: remove_integration(store, integration.integration_id, "test"))
        wait_until_blocked(store)
        transaction.advance(lane, standing, {"page": 2}, "acct_1")
    removing.result(20)
    with store.operator() as connection:
        for table in ("checkpoints", "rejected_records", "schema_drift"):
            assert connection.scalar(sa.text(f"SELECT count(*) FROM ingest.{table}")) == 0
