"""Whoever got a statement of his own into one of our connections gets no program, no file and no other role by it.

Everything is tried as the very login that the services' processes get, so that leaving a role helps nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import date
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.records import TEXT, Column, Table
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.store.postgres.row_security import APP, OPERATOR, RAW, SERVICE, SERVICES_GROUPS
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.conftest import settings_for

THINGS = Table("test", "things", "id", (Column("a", TEXT),))

# Denied to the login itself and to every role that it may take.
NOBODYS = {
    "run a program": "COPY (SELECT 1) TO PROGRAM 'id > /tmp/churnguard-attack'",
    "run a program that answers": "CREATE TEMP TABLE t (a text); COPY t FROM PROGRAM 'id'",
    "read a file into a table": "CREATE TEMP TABLE t (a text); COPY t FROM '/etc/passwd'",
    "write a file": "COPY (SELECT 1) TO '/tmp/churnguard-attack'",
    "read a file": "SELECT pg_read_file('/etc/passwd')",
    "read a file of the cluster": "SELECT pg_read_binary_file('pg_hba.conf')",
    "list a folder": "SELECT pg_ls_dir('.')",
    "look at the server's log": "SELECT pg_ls_logdir()",
    "know of a file": "SELECT pg_stat_file('pg_hba.conf')",
    "read a file as a large object": "SELECT lo_import('/etc/passwd')",
    "keep a large object": "SELECT lo_from_bytea(0, 'kept for ever')",
    "write a file by a large object": "SELECT lo_export(1, '/tmp/churnguard-attack')",
    "install what the server holds for trusted": "CREATE EXTENSION hstore",
    "install what connects to others": "CREATE EXTENSION dblink",
    "install what reads files": "CREATE EXTENSION file_fdw",
    "make a language": "CREATE LANGUAGE plevil HANDLER plpgsql_call_handler",
    "load a library": "LOAD '/tmp/evil.so'",
    "name a library": "SET session_preload_libraries = 'evil'",
    "make a function in C": "CREATE FUNCTION raw.f() RETURNS int LANGUAGE c AS '/tmp/evil.so', 'f'",
    "change the server": "ALTER SYSTEM SET archive_command = 'id'",
    "change the database": "ALTER DATABASE attacked SET work_mem = 1000",
    "reload the server": "SELECT pg_reload_conf()",
    "read the server's rules": "SELECT * FROM pg_hba_file_rules()",
    "read its passwords": "SELECT rolpassword FROM pg_authid",
    "read its passwords by another view": "SELECT passwd FROM pg_shadow",
    "make a role": "CREATE ROLE evil SUPERUSER",
    "make a plain role": "CREATE ROLE evil",
    "become a superuser": "ALTER ROLE CURRENT_USER SUPERUSER",
    "have the login become one": "ALTER ROLE churnguard_service SUPERUSER",
    "bypass row security": "ALTER ROLE CURRENT_USER BYPASSRLS",
    "give a role away": "GRANT churnguard_owner TO churnguard_service",
    "get a role of the server": "GRANT pg_execute_server_program TO CURRENT_USER",
    "give readers more": "GRANT churnguard_operator TO churnguard_reader",
    "take the owner's role": "SET ROLE churnguard_owner",
    "take the superuser's": "SET ROLE postgres",
    "take a role of the server": "SET ROLE pg_read_server_files",
    "be somebody else": "SET SESSION AUTHORIZATION postgres",
    "be the owner": "SET SESSION AUTHORIZATION churnguard_owner",
    "make a database": "CREATE DATABASE evil",
    "drop a database": "DROP DATABASE dagster",
    "make a schema": "CREATE SCHEMA evil",
    "make an event trigger": "CREATE EVENT TRIGGER evil ON ddl_command_end EXECUTE FUNCTION pg_sleep()",
    "make a wrapper": "CREATE FOREIGN DATA WRAPPER evil",
    "subscribe to another server": "CREATE SUBSCRIPTION evil CONNECTION 'host=/tmp' PUBLICATION p",
    "publish all tables": "CREATE PUBLICATION evil FOR ALL TABLES",
    "keep the change log": "SELECT pg_create_physical_replication_slot('evil')",
    "read the change log": "SELECT pg_create_logical_replication_slot('evil', 'test_decoding')",
    "make a place for tables": "CREATE TABLESPACE evil LOCATION '/tmp'",
    "act as a replica": "SET session_replication_role = replica",
    "put a table into public": "CREATE TABLE public.evil (a int)",
    "put a function into public": "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "make a function that acts as its owner":
        "CREATE FUNCTION raw.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    "make one in plpgsql":
        "CREATE FUNCTION raw.f() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RETURN 1; END $$",
    "make one in control": "CREATE FUNCTION control.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "make one beside the views": "CREATE FUNCTION views.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "replace what views call":
        "CREATE OR REPLACE FUNCTION views.to_jsonb(value jsonb) RETURNS jsonb LANGUAGE sql RETURN value",
    "drop the schema of the views": "DROP SCHEMA views CASCADE",
    "make a temporary one": "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "run code": "DO $$ BEGIN PERFORM 1; END $$",
    "replace a function of ours":
        "CREATE OR REPLACE FUNCTION ingest.drop_inbox_day(day date) RETURNS void LANGUAGE sql AS ''",
    "drop a table of control": "DROP TABLE control.integrations CASCADE",
    "change a table of control": "ALTER TABLE control.integrations ADD COLUMN evil text",
    "empty the audit log": "TRUNCATE control.audit_log",
    "rewrite the audit log": "UPDATE control.audit_log SET actor = 'nobody'",
    "turn row security off": "ALTER TABLE control.integrations DISABLE ROW LEVEL SECURITY",
    "turn it off for the inbox": "ALTER TABLE ingest.webhook_inbox NO FORCE ROW LEVEL SECURITY",
    "drop a policy": "DROP POLICY own_rows ON control.integrations",
    "make a policy": "CREATE POLICY evil ON ingest.checkpoints USING (true)",
    "own a table": "ALTER TABLE control.integrations OWNER TO CURRENT_USER",
    "watch a table": "CREATE TRIGGER evil AFTER INSERT ON control.integrations EXECUTE FUNCTION pg_sleep()",
    "pretend an older schema": "UPDATE control.alembic_version SET version_num = '0001'",
    "read a partition beside its parent": "SELECT * FROM ingest.webhook_inbox_other",
    "drop the schema of the tables": "DROP SCHEMA raw CASCADE",
    "end the server's processes": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    "pretend another version of pg_catalog": "CREATE TABLE pg_catalog.evil (a int)",
}  # fmt: skip


@pytest.fixture(scope="module")
def services_url(_server: EmbeddedPostgres, _template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a service's process gets, on a database that no attack here changes."""
    with psycopg.connect(_server.url(), autocommit=True) as administrator:
        administrator.execute(sql.SQL("CREATE DATABASE attacked TEMPLATE {}").format(sql.Identifier(_template)))
        with closing(
            Store.open(settings_for(tmp_path_factory.mktemp("home"), _server.url(SERVICE, "attacked")))
        ) as store:
            Warehouse(store).ensure(THINGS)
            url = dagster_environment(store)["CHURNGUARD_DATABASE_URL"]
        yield url
        administrator.execute("DROP DATABASE attacked WITH (FORCE)")


@pytest.fixture
def login(services_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(services_url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("role", ["none", *SERVICES_GROUPS])
@pytest.mark.parametrize("aim", NOBODYS)
def test_denied_to_the_login_and_to_each_of_its_roles(login: psycopg.Connection[Any], aim: str, role: str) -> None:
    login.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    with pytest.raises(errors.InsufficientPrivilege):
        login.execute(NOBODYS[aim])


# Denied to a role, although another one of the services may.
OTHERS = [
    ("none", "SELECT * FROM control.integrations"),
    ("none", "SELECT * FROM raw.test_things"),
    ("none", "CREATE TABLE raw.evil (a int)"),
    (APP, "INSERT INTO control.organizations VALUES ('evil', 'Evil', 'usd')"),
    (APP, "UPDATE control.integrations SET credentials_sealed = ''"),
    (APP, "DELETE FROM control.api_keys"),
    (APP, "SELECT * FROM control.logins"),
    (APP, "INSERT INTO control.readers (login, organization_id) VALUES ('ada', 'acme')"),
    (APP, "SELECT ingest.drop_inbox_day('2026-01-01')"),
    (APP, "CREATE TABLE raw.evil (a int)"),
    (APP, "ALTER TABLE raw.test_things DISABLE ROW LEVEL SECURITY"),
    (OPERATOR, "DELETE FROM raw.test_things"),
    (OPERATOR, "DROP TABLE raw.test_things"),
    (OPERATOR, "DROP TABLE ingest.webhook_inbox"),
    (RAW, "SELECT * FROM control.integrations"),
    (RAW, "SELECT * FROM ingest.checkpoints"),
    (RAW, "SELECT * FROM analytics.customer_mrr"),
    (RAW, "SELECT control.organizations_of_reader()"),
    (APP, "CREATE VIEW views.evil AS SELECT 1"),
    (OPERATOR, "CREATE VIEW views.evil AS SELECT 1"),
    (RAW, "CREATE VIEW views.evil AS SELECT * FROM control.integrations; SELECT * FROM views.evil"),
    (RAW, "CREATE VIEW raw.evil AS SELECT * FROM control.integrations; SELECT * FROM raw.evil"),
]


@pytest.mark.parametrize(("role", "statement"), OTHERS)
def test_denied_to_the_role(login: psycopg.Connection[Any], role: str, statement: str) -> None:
    login.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    with pytest.raises(errors.InsufficientPrivilege):
        login.execute(statement)


def test_the_login_has_no_right_of_its_own(login: psycopg.Connection[Any]) -> None:
    attributes = login.execute(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication FROM pg_roles "
        "WHERE rolname = session_user"
    ).fetchone()
    assert attributes == (False,) * 5
    member_of = login.execute("SELECT rolname FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER')").fetchall()
    assert {name for (name,) in member_of} == {"churnguard_service", *SERVICES_GROUPS}
    owned = login.execute(
        "SELECT DISTINCT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE pg_has_role(session_user, relowner, 'MEMBER') AND nspname NOT LIKE 'pg_%'"
    ).fetchall()
    assert {name for (name,) in owned} <= {"raw", "views"}


def test_what_the_services_do_needs_no_more(store: Store) -> None:
    inbox.keep_partitions(store, date(2026, 1, 1))
    inbox.keep_partitions(store, date(2026, 1, 1))
    assert inbox.forget(store, date(2026, 6, 1)) == 4
    Warehouse(store).ensure(THINGS)
    Warehouse(store).ensure(Table("test", "things", "id", (Column("a", TEXT), Column("b", TEXT))))


def test_what_views_call_is_ours_and_acts_as_whoever_reads(administrator_url: str) -> None:
    with psycopg.connect(administrator_url) as connection:
        found = connection.execute(
            "SELECT DISTINCT pg_get_userbyid(proowner), prosecdef, provolatile = 'v', lanname "
            "FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace "
            "JOIN pg_language ON pg_language.oid = prolang WHERE nspname = 'views'"
        ).fetchall()
    assert found == [("churnguard_owner", False, False, "sql")]


def test_functions_that_act_as_their_owner_take_nothing_that_becomes_a_name(administrator_url: str) -> None:
    """And nobody may call one whom it was not made for."""
    with psycopg.connect(administrator_url) as connection:
        found = connection.execute(
            "SELECT proname, pg_get_function_arguments(pg_proc.oid), pg_get_userbyid(proowner), proconfig, "
            "       ARRAY(SELECT pg_get_userbyid(grantee)::text FROM aclexplode(proacl) ORDER BY 1) "
            "FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace "
            "WHERE nspname IN ('control', 'ingest', 'raw', 'analytics', 'public') ORDER BY 1"
        ).fetchall()
    guarded = "churnguard_owner", ["search_path=pg_catalog, pg_temp"]
    assert [tuple(row) for row in found] == [
        ("drop_inbox_day", "day date", *guarded, ["churnguard_operator", "churnguard_owner"]),
        ("make_inbox_day", "day date", *guarded, ["churnguard_operator", "churnguard_owner"]),
        ("organizations_of_reader", "", *guarded, ["churnguard_owner", "churnguard_tenant_reader"]),
    ]
