"""A database of the former version, whose field mappings had made columns in tables that organizations share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.stripe import Stripe
from churnguard_pipelines.store.postgres import schema, setup
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.store.postgres.row_security import SERVICE
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.typed_views import bring_up_to_date, shown
from tests.conftest import configuration, on_database, settings_for

FORMER = """
CREATE TABLE raw.stripe_customers (
    organization_id text NOT NULL, integration_id text NOT NULL, id text NOT NULL,
    email text, name text, balance bigint, created timestamptz, metadata jsonb,
    region text, deep text, tier text, balance_minor bigint, orphan text, told text,
    extra jsonb, source_version bigint NOT NULL, deleted_at timestamptz, delete_kind text,
    synced_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (organization_id, integration_id, id)
);
INSERT INTO control.organizations (organization_id, name, reporting_currency)
VALUES ('acme', 'Acme', 'usd'), ('globex', 'Globex', 'usd');
INSERT INTO raw.stripe_customers
       (organization_id, integration_id, id, email, balance, created, metadata, region, deep, tier, balance_minor,
        orphan, told, extra, source_version)
VALUES
    ('acme', 'mapped', '1', 'mapped@acme.io', NULL, '2026-01-02', '{"tier": "gold"}', 'emea', 'down', 'gold', 5, NULL,
     NULL, '{"email": "own@acme.io", "sources": {"other": 1}, "created": "untold"}', 1),
    ('acme', 'mapped', '2', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1),
    ('globex', 'plain', '1', 'g@globex.io', 7, NULL, NULL, NULL, NULL, NULL, NULL, 'kept', 'apart',
     '{"told": "own"}', 1);
ALTER TABLE raw.stripe_customers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON raw.stripe_customers TO churnguard_app
 USING (organization_id = current_setting('churnguard.organization_id', true));
GRANT SELECT ON raw.stripe_customers TO churnguard_app;
"""
MAPPINGS = {
    "customers": {
        "region": "region",
        "sources.place.deep": "deep",
        "metadata.tier": "tier",
        "balance": "balance_minor",
        "contact.mail": "email",
        "name": "name",
    }
}


@pytest.fixture
def former(_server: EmbeddedPostgres, server_url: str, _template: str, tmp_path: Path) -> Iterator[Store]:
    """The database after the update."""
    with psycopg.connect(server_url, autocommit=True) as administrator:
        administrator.execute("CREATE DATABASE former_mapped")
    owner_url = on_database(server_url, "former_mapped")
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(owner_url), poolclass=sa.NullPool
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA control")
        schema.upgrade(connection, "0009")
        connection.exec_driver_sql(FORMER)
        for name, organization, mappings in (("mapped", "acme", MAPPINGS), ("plain", "globex", {})):
            config = {"integration_type": "payment", "sync_config": {"field_mappings": mappings}}
            connection.exec_driver_sql(
                "INSERT INTO control.integrations (integration_id, organization_id, provider, config, "
                "credentials_sealed, status) VALUES (%s, %s, 'stripe', %s, '', 'active')",
                (name, organization, json.dumps(config)),
            )
    engine.dispose()
    url = _server.url(SERVICE, "former_mapped")
    setup.set_up(owner_url, url)
    with closing(Store.open(settings_for(tmp_path, url))) as store:
        yield store
    with psycopg.connect(server_url, autocommit=True) as administrator:
        administrator.execute("DROP DATABASE former_mapped WITH (FORCE)")


def rows(store: Store, organization_id: str) -> list[dict[str, Any]]:
    with store.organization(organization_id) as connection:
        statement = sa.text("SELECT * FROM raw.stripe_customers ORDER BY id")
        return [dict(row) for row in connection.execute(statement).mappings()]


def test_every_value_goes_back_to_where_the_provider_has_it(former: Store) -> None:
    first, second = rows(former, "acme")
    assert first["extra"] == {
        "region": "emea",
        "sources": {"other": 1, "place": {"deep": "down"}},
        "contact": {"mail": "mapped@acme.io"},
        "created": "untold",
    }
    assert (first["email"], first["balance"], first["metadata"]) == ("own@acme.io", 5, {"tier": "gold"})
    assert (second["extra"], second["email"]) == (None, None)


def test_values_of_mappings_that_are_no_more_are_kept_under_their_columns_name(former: Store) -> None:
    (row,) = rows(former, "globex")
    assert row["extra"] == {"orphan": "kept", "told": "own", "told_mapped": "apart"}
    assert (row["email"], row["balance"]) == ("g@globex.io", 7)


def test_the_table_has_what_is_declared(former: Store) -> None:
    table = Stripe.table("customers")
    Warehouse(former).ensure(table)
    declared = {column.name for column in table.columns} | {"id", "extra", "source_version", "synced_at"}
    declared |= {"organization_id", "integration_id", "deleted_at", "delete_kind"}
    assert rows(former, "globex")[0].keys() == declared


def test_the_view_shows_what_the_mapped_columns_had(former: Store) -> None:
    integration = configuration("mapped", sync_config={"field_mappings": MAPPINGS})
    table = Stripe.table("customers")
    Warehouse(former).ensure(table)
    bring_up_to_date(former, integration, table, None, (), shown(integration, table, ()).columns)
    with former.organization("acme") as connection:
        statement = sa.text("SELECT region, deep, tier, balance_minor, email FROM views.mapped_customers ORDER BY id")
        first, second = connection.execute(statement).all()
    assert tuple(first) == ("emea", "down", "gold", 5, "mapped@acme.io")
    assert set(second) == {None}
