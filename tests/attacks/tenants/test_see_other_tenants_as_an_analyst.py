"""An analyst's own PostgreSQL login reads what it was granted, and nothing that it says of itself changes that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import TEXT, Column, Table
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.readers import add_reader, list_readers, remove_reader
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.row_security import READER, TENANT_READER
from churnguard_pipelines.store.raw.warehouse import Warehouse

THINGS = Table("test", "things", "id", (Column("a", TEXT),))
PASSWORD = "canary-of-an-analyst"
ORGANIZATIONS = ("acme", "globex", "initech")
Connect = Callable[[str], psycopg.Connection[Any]]

REFUSED = [
    "DELETE FROM raw.test_things",
    "INSERT INTO raw.test_things (organization_id, integration_id, id, source_version, synced_at) "
    "VALUES ('acme', 'i', 'x', 1, now())",
    "UPDATE raw.test_things SET a = ''",
    "TRUNCATE raw.test_things",
    "DELETE FROM analytics.mrr_movements",
    "SELECT * FROM control.integrations",
    "SELECT * FROM control.readers",
    "INSERT INTO control.readers (login, organization_id) VALUES ('ada', 'initech')",
    "SELECT * FROM ingest.checkpoints",
    "DELETE FROM ingest.checkpoints",
    "SELECT * FROM ingest.webhook_inbox",
    "SELECT ingest.drop_inbox_day('2026-01-01')",
    "CREATE TABLE raw.evil (a int)",
    "CREATE VIEW raw.evil AS SELECT 1",
    "CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE raw.test_things DISABLE ROW LEVEL SECURITY",
    "SET ROLE churnguard_app",
    "SET ROLE churnguard_operator",
    "SET ROLE churnguard_raw",
    "SET ROLE churnguard_owner",
    "SET SESSION AUTHORIZATION churnguard_service",
    "COPY raw.test_things TO PROGRAM 'cat'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_from_bytea(0, 'kept for ever')",
    "SELECT lo_create(0)",
    "SELECT lo_creat(-1)",
]


@pytest.fixture
def analyst(store: Store, administrator_url: str) -> Iterator[Connect]:
    """(role) -> a connection of the login ``ada``, which was granted it; each of three organizations has a row."""
    with psycopg.connect(administrator_url, autocommit=True) as administrator:
        administrator.execute(sql.SQL("CREATE ROLE ada LOGIN PASSWORD {}").format(PASSWORD))
        Warehouse(store).ensure(THINGS)
        for name in ORGANIZATIONS:
            add_organization(store, Organization(organization_id=name, name=name), actor="test")
            with Warehouse(store).transaction(name) as transaction:
                transaction.upsert(THINGS, "i", [("1", 1, name, None)])
        opened: list[psycopg.Connection[Any]] = []

        def connect(role: str) -> psycopg.Connection[Any]:
            administrator.execute(sql.SQL("GRANT {} TO ada").format(sql.Identifier(role)))
            opened.append(psycopg.connect(administrator_url, user="ada", password=PASSWORD, autocommit=True))
            return opened[-1]

        yield connect
        for connection in opened:
            connection.close()
        administrator.execute("DROP OWNED BY ada CASCADE; DROP ROLE ada")


def seen(connection: psycopg.Connection[Any]) -> list[str]:
    return [name for (name,) in connection.execute("SELECT organization_id FROM raw.test_things ORDER BY 1")]


def test_the_installations_analyst_reads_every_organization(analyst: Connect) -> None:
    connection = analyst(READER)
    assert seen(connection) == list(ORGANIZATIONS)
    connection.execute("SELECT * FROM analytics.mrr_movements")
    connection.execute("SELECT * FROM analytics.exchange_rates")


def test_a_tenants_analyst_reads_what_was_granted_while_it_is(store: Store, analyst: Connect) -> None:
    connection = analyst(TENANT_READER)
    assert seen(connection) == []
    for name in ("acme", "globex"):
        add_reader(store, "ada", name, actor="test")
    add_reader(store, "adam", "initech", actor="test")
    assert seen(connection) == ["acme", "globex"]
    assert list_readers(store) == [("ada", "acme"), ("ada", "globex"), ("adam", "initech")]
    remove_reader(store, "ada", "globex", actor="test")
    assert seen(connection) == ["acme"]


@pytest.mark.parametrize(
    "attempt",
    [
        "SET churnguard.organization_id = 'initech'",
        "SET row_security = off",
        "CREATE TEMP TABLE readers AS SELECT 'ada' AS login, 'initech' AS organization_id",
        "SET ROLE churnguard_tenant_reader",
        "SET session_replication_role = replica",
    ],
)
def test_a_setting_shows_nobody_elses_rows(store: Store, analyst: Connect, attempt: str) -> None:
    connection = analyst(TENANT_READER)
    add_reader(store, "ada", "acme", actor="test")
    try:
        connection.execute(attempt)
        assert seen(connection) in (["acme"], [])
    except errors.InsufficientPrivilege:
        pass  # the setting is refused, or with it every look


@pytest.mark.parametrize("role", [READER, TENANT_READER])
def test_readers_do_nothing_but_read(analyst: Connect, role: str) -> None:
    connection = analyst(role)
    for statement in REFUSED:
        with pytest.raises(errors.InsufficientPrivilege):  # noqa: PT012
            connection.execute(statement)
            pytest.fail(statement)
