"""One tenant never sees or touches another's rows: every table of every schema that has an organization_id is tried.

Tables are found in the catalog, so a table added later is held to the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
import pytest
from psycopg import errors
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import Mirror, MirrorColumn
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import TEXT, Column, Table
from churnguard_pipelines.store.control.integrations import remove_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw import mirror_tables
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.conftest import as_administrator

CATALOG = """
SELECT n.nspname, c.relname, c.relrowsecurity AND c.relforcerowsecurity, c.relispartition
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('control', 'ingest', 'raw', 'analytics') AND EXISTS (
       SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'organization_id' AND NOT a.attisdropped)
 ORDER BY 1, 2
"""
REQUIRED = """
SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a
 WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = '' AND a.attgenerated = ''
   AND a.attnotnull AND a.attname <> 'organization_id'
"""
SAMPLES = {"text": "x", "json": "{}", "jsonb": "{}", "bigint[]": "{}", "boolean": "true", "date": "2026-01-01"}
SAMPLES |= {"timestamp with time zone": "2026-01-01T00:00:00Z"}


@dataclass(frozen=True)
class Guarded:
    schema: str
    name: str
    enforced: bool
    partition: bool

    @property
    def identifier(self) -> Identifier:
        return Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@pytest.fixture
def tables(store: Store) -> list[Guarded]:
    Warehouse(store).ensure(Table("test", "things", "id", (Column("a", TEXT),), versioned=True))
    with store.owner() as owner:
        mirror_tables.ensure(
            owner, Mirror("mirrored", "users", (MirrorColumn("id", MirrorType(Base.INTEGER), "id"),), ("id",))
        )
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        found = [Guarded(*row) for row in connection.execute(CATALOG)]
    assert {str(table) for table in found} >= {
        "control.integrations",
        "ingest.checkpoints",
        "raw.mirrored",
        "raw.test_things_versions",
    }
    return found


def plant(connection: psycopg.Connection, table: Guarded, organization_id: str) -> None:
    """A row of this organization, with whatever else the table insists on."""
    values = {"organization_id": organization_id}
    for column, kind in connection.execute(REQUIRED, [table.identifier.as_string(connection)]):
        values[column] = SAMPLES.get(kind, "0")
        if (table.name, column) == ("breakers", "state"):
            values[column] = "open"
        elif (table.name, column) == ("streams", "state"):
            values[column] = "active"
        elif (table.name, column) == ("api_keys", "role"):
            values[column] = "viewer"
        elif column == "configured_by":
            values[column] = "operator"
        elif column in (
            "integration_id",
            "sync_id",
            "endpoint_id",
            "key_id",
            "stream_id",
            "rule_id",
            "raw_table",
            "view_name",
            "used_id",
        ):
            values[column] = f"of-{organization_id}"
    names, row = SQL(", ").join(map(Identifier, values)), list(values.values())
    places = SQL(", ").join([SQL("%s")] * len(row))
    connection.execute(SQL("INSERT INTO {} ({}) VALUES ({})").format(table.identifier, names, places), row)


def become(connection: psycopg.Connection, organization_id: str | None) -> None:
    connection.execute("SET LOCAL ROLE churnguard_app")
    if organization_id is not None:
        connection.execute("SELECT set_config('churnguard.organization_id', %s, true)", [organization_id])


def count(connection: psycopg.Connection, table: Guarded, organization_id: str) -> int:
    statement = SQL("SELECT count(*) FROM {} WHERE organization_id = %s").format(table.identifier)
    row = connection.execute(statement, [organization_id]).fetchone()
    assert row is not None
    return int(row[0])


def test_row_security_is_on_and_forced_everywhere(tables: list[Guarded]) -> None:
    assert [str(table) for table in tables if not table.enforced] == []


def test_what_has_no_organization_is_closed_to_the_application(store: Store, tables: list[Guarded]) -> None:
    """Else a table could slip past these tests by not saying whose its rows are, or a view past the row security."""
    open_to_all = """
        SELECT nspname || '.' || relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
         WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
           AND (relkind IN ('r', 'p', 'm', 'f') AND NOT EXISTS (
                SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'organization_id')
                OR relkind = 'v' AND NOT coalesce(reloptions @> '{security_invoker=true}', false))
           AND has_table_privilege('churnguard_app', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES')
         ORDER BY 1
    """
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        assert connection.execute(open_to_all).fetchall() == [("analytics.exchange_rates",)]


@pytest.fixture
def planted(store: Store, tables: list[Guarded]) -> list[Guarded]:
    """A row of each of two organizations in every table; what is in a partition is its parent's."""
    tables = [table for table in tables if not table.partition]
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("SET session_replication_role = replica")  # foreign keys would need an order of the tables
        for table in tables:
            for organization_id in ("mine", "theirs"):
                plant(connection, table, organization_id)
    return tables


def test_reads_see_one_organization_and_none_without_a_context(store: Store, planted: list[Guarded]) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        for table in planted:
            for context, mine, theirs in (("mine", 1, 0), ("theirs", 0, 1), ("", 0, 0), (None, 0, 0)):
                with connection.transaction():
                    become(connection, context)
                    seen = count(connection, table, "mine"), count(connection, table, "theirs")
                    assert seen == (mine, theirs), f"{table} as {context!r}"


def test_writes_reach_one_organization(store: Store, planted: list[Guarded]) -> None:
    attempts = (
        SQL("UPDATE {} SET organization_id = organization_id WHERE organization_id = 'theirs'"),
        SQL("DELETE FROM {} WHERE organization_id = 'theirs'"),
        SQL("UPDATE {} SET organization_id = 'mine'"),  # with its own row, that is no theft
        SQL("DELETE FROM {}"),
    )
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        for table in planted:
            for context in ("mine", None):
                for attempt in attempts:
                    with connection.transaction(force_rollback=True):
                        try:
                            with connection.transaction():
                                become(connection, context)
                                connection.execute(attempt.format(table.identifier))
                        except errors.InsufficientPrivilege:
                            pass  # not even on its own rows
                        connection.execute("RESET ROLE")
                        assert count(connection, table, "theirs") == 1, f"{table}: {attempt.as_string(None)}"


@pytest.mark.parametrize("context", ["mine", None])
def test_rows_cannot_be_slipped_to_another_organization(
    store: Store, tables: list[Guarded], context: str | None
) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        for table in tables:
            with pytest.raises(errors.InsufficientPrivilege), connection.transaction():  # noqa: PT012
                become(connection, context)
                plant(connection, table, "theirs")


def test_own_rows_cannot_be_given_away(store: Store, planted: list[Guarded]) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        for table in planted:
            with pytest.raises(errors.InsufficientPrivilege), connection.transaction():  # noqa: PT012
                become(connection, "mine")
                connection.execute(SQL("UPDATE {} SET organization_id = 'third'").format(table.identifier))


def test_the_operator_reads_everything_and_writes_no_customer_data(store: Store, planted: list[Guarded]) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        for table in planted:
            with connection.transaction():
                connection.execute("SET LOCAL ROLE churnguard_operator")
                assert count(connection, table, "mine") == count(connection, table, "theirs") == 1, table
            if table.schema in ("raw", "analytics"):
                with pytest.raises(errors.InsufficientPrivilege), connection.transaction():  # noqa: PT012
                    connection.execute("SET LOCAL ROLE churnguard_operator")
                    connection.execute(SQL("DELETE FROM {}").format(table.identifier))


@pytest.mark.parametrize("role", ["churnguard_app", "churnguard_operator"])
@pytest.mark.parametrize("deed", ["UPDATE control.audit_log SET actor = 'nobody'", "DELETE FROM control.audit_log"])
def test_nobody_rewrites_the_audit_log(store: Store, role: str, deed: str) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute(SQL("SET LOCAL ROLE {}").format(Identifier(role)))
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(deed)


def test_the_roles_own_nothing_and_cannot_bypass(store: Store) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        roles = connection.execute(
            "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolcanlogin, "
            "EXISTS (SELECT FROM pg_class WHERE relowner = pg_roles.oid) "
            "FROM pg_roles WHERE rolname IN ('churnguard_app', 'churnguard_operator')"
        ).fetchall()
    assert roles == [(False, False), (False, False)]


def test_a_context_does_not_outlive_its_transaction(store: Store, integration: IntegrationConfiguration) -> None:
    count_all = "SELECT count(*) FROM control.integrations"
    with store.organization("acme") as connection:
        assert connection.exec_driver_sql(count_all).scalar() == 1
    with store.organization("globex") as connection:
        assert connection.exec_driver_sql(count_all).scalar() == 0
    with pytest.raises(NotFound):
        remove_integration(store, "not-there", actor="test")
