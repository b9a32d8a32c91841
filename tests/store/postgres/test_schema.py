"""The schema in the database is the one the code describes."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.store.postgres import schema
from churnguard_pipelines.store.postgres.columns import metadata
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator, on_database, settings_for

OURS = {table.fullname for table in metadata.tables.values()}


def test_the_described_tables_are_the_migrated_ones(administrator_url: str) -> None:
    def ours(thing: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
        table = getattr(thing, "table", thing)
        return kind != "index" and getattr(table, "fullname", None) in OURS

    options = {"include_schemas": True, "include_object": ours, "compare_type": True, "version_table_schema": "control"}
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(administrator_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_opening_again_changes_nothing(store: Store) -> None:
    with store.operator() as connection:
        assert schema.current_revision(connection) == schema.expected_revision()
    Store.open(store.settings).close()


def test_a_schema_of_a_newer_version_is_left_alone(store: Store) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("UPDATE control.alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseUnavailable, match="9999"):
        Store.open(store.settings)


def test_several_processes_may_migrate_one_database_at_once(server_url: str, database_url: str, tmp_path: Path) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier("fresh")))
    settings = settings_for(tmp_path, on_database(database_url, "fresh"), owner_url=on_database(server_url, "fresh"))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            Store.open(settings).close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE fresh")
    assert errors == []
