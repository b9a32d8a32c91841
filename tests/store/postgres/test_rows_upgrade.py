"""A database of the version before, whose syncs had counted rows that only their own reports said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from churnguard_pipelines.monitoring.vitals import read_vitals
from churnguard_pipelines.store.postgres import setup
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from tests.conftest import settings_for
from tests.store.postgres.former import former_database

BEFORE = """
INSERT INTO control.organizations (organization_id, name, reporting_currency) VALUES ('acme', 'Acme', 'usd');
INSERT INTO control.integrations (integration_id, organization_id, provider, config, credentials_sealed, status) VALUES
    ('a-database', 'acme', 'postgresql', '{"integration_type": "database"}', '', 'active'),
    ('an-api', 'acme', 'stripe', '{"integration_type": "payment"}', '', 'active'),
    ('new', 'acme', 'stripe', '{"integration_type": "payment"}', '', 'active');
INSERT INTO ingest.objects (organization_id, integration_id, object, view_name) VALUES
    ('acme', 'an-api', 'customers', 'an_api_customers'), ('acme', 'an-api', 'invoices', 'an_api_invoices');
INSERT INTO ingest.source_tables (organization_id, integration_id, object, raw_table, definition) VALUES
    ('acme', 'a-database', 'users', 'postgresql_a_database_users', '{}');
INSERT INTO ingest.syncs (sync_id, organization_id, integration_id, mode, trigger, status, started_at) VALUES
    ('one', 'acme', 'an-api', 'full', 'manual', 'succeeded', '2026-01-01T00:00Z'),
    ('two', 'acme', 'an-api', 'incremental', 'manual', 'succeeded', '2026-01-02T00:00Z'),
    ('three', 'acme', 'a-database', 'full', 'manual', 'succeeded', '2026-01-01T00:00Z');
INSERT INTO ingest.sync_objects (organization_id, sync_id, object, status, rows) VALUES
    ('acme', 'one', 'customers', 'succeeded', 10), ('acme', 'two', 'customers', 'succeeded', 12),
    ('acme', 'one', 'invoices', 'succeeded', 30), ('acme', 'two', 'invoices', 'succeeded', NULL),
    ('acme', 'three', 'users', 'succeeded', 7);
"""


@pytest.fixture
def upgraded(_server: EmbeddedPostgres, server_url: str, tmp_path: Path) -> Iterator[Store]:
    with former_database(_server, server_url, "former_rows", "0025") as (owner_url, url):
        with psycopg.connect(owner_url) as former:
            former.execute(BEFORE)
        setup.set_up(owner_url, url)
        with closing(Store.open(settings_for(tmp_path, url))) as store:
            yield store


def test_rows_that_syncs_counted_before_are_known_at_once(upgraded: Store) -> None:
    rows = {each.integration_id: each.rows for each in read_vitals(upgraded)}
    assert rows == {"an-api": 12 + 30, "a-database": 7, "new": None}
