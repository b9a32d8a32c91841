"""A database on the command line: registered from a file, discovered, synced, reset, removed without a trace."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.cli.test_cli import Shell, shell  # noqa: F401 - a fixture
from tests.connectors.postgresql.conftest import source, source_server  # noqa: F401 - fixtures
from tests.sources.postgresql import PASSWORD, PostgreSQLServer

FILE = """
organization_id: acme
organization: {{name: Acme Inc., reporting_currency: usd}}
integration_id: acme-db
provider_name: postgresql
credentials:
  credential_type: basic_auth
  username: owner
  password: "${{PRODUCT_DB_PASSWORD}}"
  custom_fields: {{host: 127.0.0.1, port: "{port}", database: {database}}}
sync_config: {{sync_mode: real_time, exclude: ["*_archive"]}}
entity_mappings: {{users: customers}}
"""


def test_a_database_from_file_to_removal(
    shell: Shell,  # noqa: F811
    source: psycopg.Connection[Any],  # noqa: F811
    source_server: PostgreSQLServer,  # noqa: F811
) -> None:
    source.execute(
        "CREATE TABLE users (id int PRIMARY KEY, balance numeric(10,2)); CREATE TABLE users_archive (id int)"
    )
    source.execute("INSERT INTO users SELECT n, n FROM generate_series(1, 30) n; ANALYZE users")
    text = FILE.format(port=source_server.port, database=source.info.dbname)
    (shell.folder / "product.yaml").write_text(text)
    refused = shell.fails("integrations", "add", "product.yaml", PRODUCT_DB_PASSWORD="wrong")
    assert "PostgreSQL refuses the credentials" in refused
    added = shell.succeeds("integrations", "add", "product.yaml", PRODUCT_DB_PASSWORD=PASSWORD)
    assert "Connected to PostgreSQL" in added
    assert "acme-db is registered" in added

    assert "archive" not in shell.succeeds("integrations", "test", "acme-db"), "it is excluded, and lacks a key"
    tables = shell.succeeds("integrations", "discover", "acme-db")
    assert "users 30 id 2 ✓" in tables
    assert "users_archive – none 2 not chosen" in tables, "PostgreSQL has not counted it yet"
    assert "balance numeric(10,2) numeric(10,2)" in shell.succeeds("integrations", "discover", "acme-db", "users")
    assert "there is no table 'nothing'" in shell.fails("integrations", "discover", "acme-db", "nothing")

    assert "users succeeded 30 30 0 0" in shell.succeeds("sync", "acme-db")
    assert "users will be read anew" in shell.succeeds("integrations", "reset", "acme-db", "--yes")
    assert "users succeeded 30 30 0 0" in shell.succeeds("sync", "acme-db")
    assert "no table that may be read is called others" in shell.fails("sync", "acme-db", "--objects", "others")

    source.execute("DROP TABLE users")
    assert "none that may be read is wanted" in shell.fails("integrations", "test", "acme-db")
    assert source.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (1,)
    assert "acme-db is removed" in shell.succeeds("integrations", "remove", "acme-db", "--yes", "--purge")
    assert source.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
