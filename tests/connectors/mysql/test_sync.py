"""The connector under the engine: a first sync, one that follows, a full one and an incremental one."""

from __future__ import annotations

import sqlalchemy as sa
from pymysql.cursors import Cursor

from churnguard_pipelines.model import DataSyncMode, Organization
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.conftest import statuses
from tests.connectors.mysql.conftest import integration
from tests.sources.mariadb import MariaDBServer


def test_a_database_is_copied_and_followed(
    store: Store, organization: Organization, source_server: MariaDBServer, source: Cursor, database: str
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text, updated_at datetime(6))")
    source.execute("CREATE TABLE heap (a int)")
    source.execute("INSERT INTO users SELECT seq, concat('u', seq, '@\\t'), NOW(6) FROM seq_1_to_120000")
    source.execute("INSERT INTO heap VALUES (1), (1), (NULL)")
    add_integration(store, integration(source_server, database), actor="test")
    first = sync_integration(store, "acme-db", sync_id="one")
    assert statuses(first) == {"users": "succeeded", "heap": "succeeded"}  # the latter in full, each time
    assert (counted(store, "users"), counted(store, "heap")) == (120_000, 3)
    source.execute("DELETE FROM users WHERE id <= 20000")
    source.execute("UPDATE users SET email = 'new' WHERE id > 119990")
    source.execute("UPDATE users SET id = -id WHERE id = 50000")
    source.execute("ALTER TABLE users ADD COLUMN plan enum('free', 'paid')")
    source.execute("INSERT INTO users VALUES (7, 'seven', NULL, 'paid')")
    assert statuses(sync_integration(store, "acme-db", sync_id="two"))["users"] == "succeeded"
    assert counted(store, "users") == 100_001
    assert counted(store, "users", "id = 7 AND plan = 'paid'") == 1
    assert counted(store, "users", "id = -50000 OR email = 'new'") == 11
    sync_integration(store, "acme-db", sync_id="three", mode=DataSyncMode.FULL)
    assert counted(store, "users") == 100_001


def test_what_foreign_keys_cascade_is_found_once_a_day(
    store: Store, organization: Organization, source_server: MariaDBServer, source: Cursor, database: str
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY)")
    source.execute("CREATE TABLE logins (id int PRIMARY KEY, u int REFERENCES users (id) ON DELETE CASCADE)")
    source.execute("INSERT INTO users VALUES (1), (2)")
    source.execute("INSERT INTO logins VALUES (10, 1), (20, 2)")
    add_integration(store, integration(source_server, database), actor="test")
    sync_integration(store, "acme-db", sync_id="one")
    source.execute("DELETE FROM users WHERE id = 1")
    sync_integration(store, "acme-db", sync_id="two")
    assert (counted(store, "users"), counted(store, "logins")) == (1, 2)
    with store.organization("acme") as connection:
        connection.exec_driver_sql(
            'UPDATE ingest.checkpoints SET position = position || \'{"swept_at": "2026-01-01T00:00:00+00:00"}\' '
            "WHERE position ? 'swept_at'"
        )
    sync_integration(store, "acme-db", sync_id="three")
    assert (counted(store, "users"), counted(store, "logins")) == (1, 1)


def counted(store: Store, table: str, condition: str = "true") -> int:
    """Live rows."""
    with store.organization("acme") as connection:
        statement = f"SELECT count(*) FROM raw.mysql_acme_db_{table} WHERE deleted_at IS NULL AND ({condition})"
        return int(connection.execute(sa.text(statement)).scalar_one())
