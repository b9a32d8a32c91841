"""An upgrade changes the schema first and the processes one by one; a roll-back changes the processes only. So a
version's code works on its own schema, which is made of the former's with all that is in it, and on the next one's."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.model import IntegrationCredentials, Organization
from churnguard_pipelines.sandbox.serve import serve
from churnguard_pipelines.store.control.api_keys import authenticate, create_key
from churnguard_pipelines.store.control.integrations import add_integration, get_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint, list_endpoints
from churnguard_pipelines.store.postgres import schema, setup
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import as_administrator, configuration, settings_for
from tests.store.postgres.former import former_database

NEXT = "9999"
OWN_TABLES = """
SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE nspname IN ('control', 'ingest') AND relkind IN ('r', 'p') AND NOT relispartition
   AND relname <> 'alembic_version'
"""


def works(store: Store, folder: Path) -> None:
    """What a version does all day: configuration, keys, a sync with its checkpoints, rows and report."""
    add_organization(store, Organization(organization_id="globex", name="Globex"), actor="test")
    with serve(folder, scale=0.01) as sandbox:
        credentials = {"credential_type": "api_key", "api_key": "rk_sandbox_globex"}
        made = configuration(
            "globex", organization_id="globex", base_url=sandbox.url,
            credentials=IntegrationCredentials.model_validate(credentials),
        )  # fmt: skip
        add_integration(store, made, actor="test")
        assert sync_integration(store, "globex", sync_id=str(uuid.uuid4())).status == "succeeded"
    assert Warehouse(store).count("stripe_customers", "globex", "globex") > 0
    assert authenticate(store, create_key(store, "ada", actor="test")) is not None
    add_endpoint(store, organization_id="globex", provider="stripe", secret="whsec_x", actor="test")
    assert len(list_endpoints(store, "globex")) == 1


@pytest.fixture
def of_the_former_version(server_url: str, _server: EmbeddedPostgres) -> Iterator[tuple[str, str]]:
    """(owner's URL, services' URL) of a database whose newest migration is missing, with an integration in it."""
    newest = f"{int(schema.expected_revision()) - 1:04}"
    with former_database(_server, server_url, "former_version", newest) as urls:
        yield urls


def test_the_former_version_s_database_is_brought_up_to_date_with_all_that_is_in_it(
    of_the_former_version: tuple[str, str], tmp_path: Path
) -> None:
    owner_url, url = of_the_former_version
    with psycopg.connect(owner_url) as former:
        former.execute(
            "INSERT INTO control.organizations (organization_id, name, reporting_currency) "
            "VALUES ('acme', 'Acme', 'usd')"
        )
        former.execute(
            "INSERT INTO control.integrations (organization_id, integration_id, provider, config, credentials_sealed, "
            "status) VALUES ('acme', 'kept', 'stripe', '{\"integration_type\": \"payment\"}', '', 'active')"
        )
    setup.set_up(owner_url, url)
    with closing(Store.open(settings_for(tmp_path, url))) as store:
        with store.operator() as connection:
            kept = connection.exec_driver_sql("SELECT integration_id FROM control.integrations").scalars().all()
        assert kept == ["kept"]
        works(store, tmp_path)


def test_this_version_works_on_the_next_one_s_schema(store: Store, tmp_path: Path) -> None:
    """Which adds columns and tables, and takes nothing away: there is one more column in every table."""
    with psycopg.connect(as_administrator(store.database_url)) as administrator:
        tables = administrator.execute(OWN_TABLES).fetchall()
        assert tables
        for name in tables:
            administrator.execute(
                SQL("ALTER TABLE {} ADD COLUMN of_the_next_version text DEFAULT 'x'").format(Identifier(*name))
            )
        administrator.execute("UPDATE control.alembic_version SET version_num = %s", [NEXT])
    with closing(Store.open(store.settings)) as before_the_upgrade_reached_it:
        works(before_the_upgrade_reached_it, tmp_path)
        assert get_integration(before_the_upgrade_reached_it, "globex").status == "active"
