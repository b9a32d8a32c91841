"""The schema in the database is the one the code describes."""

from __future__ import annotations

import threading
from contextlib import closing

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.store.postgres import schema, setup
from churnguard_pipelines.store.postgres.columns import metadata
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator, on_database

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


def test_a_newer_schema_serves_this_version_too_and_is_left_alone(store: Store) -> None:
    """As while an upgrade is under way, and after it was rolled back."""
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("UPDATE control.alembic_version SET version_num = '9999'")
    setup.set_up(as_administrator(store.database_url), store.database_url)
    with closing(Store.open(store.settings)) as opened, opened.operator() as connection:
        assert schema.current_revision(connection) == "9999"


@pytest.mark.parametrize("revision", ["0001", None], ids=["older", "none"])
def test_an_older_schema_is_refused_with_the_command_that_migrates_it(store: Store, revision: str | None) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("DELETE FROM control.alembic_version")
        if revision:
            connection.execute("INSERT INTO control.alembic_version VALUES (%s)", [revision])
    with pytest.raises(DatabaseUnavailable, match=rf"is {revision or 'not made yet'}; .* needs \d{{4}}") as caught:
        Store.open(store.settings)
    assert "`churnguard migrate`" in str(caught.value.remedy)


def test_several_processes_may_migrate_one_database_at_once(server_url: str, database_url: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier("fresh")))
    owner_url, url = on_database(server_url, "fresh"), on_database(database_url, "fresh")
    errors: list[BaseException] = []

    def work() -> None:
        try:
            setup.set_up(owner_url, url)
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
