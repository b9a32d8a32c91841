"""A source whose names and types are written as SQL, so that our statements about its tables do what it wants."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.sql import SQL, Identifier, Placeholder

from churnguard_pipelines.connectors.mysql.types import UNKNOWN, kind_of
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import UNCHANGED, SourceColumn, SourceTable
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw import mirror_tables
from churnguard_pipelines.store.raw.mirror_writer import MirrorWriter
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.mirroring import mirror_of
from tests.conftest import as_administrator, configuration
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import sync
from tests.connectors.postgresql.conftest import Register, register, source, source_server

__all__ = ["register", "source", "source_server"]

NAMES = (
    "%(organization_id)s",
    "%(integration_id)s",
    "%(version)s",
    "%(kind)s",
    "%s",
    "%%",
    "100%",
    "{raw}",
    "{own}",
    "{}",
    "}",
    "{0.__class__}",
    'a"; DROP SCHEMA control CASCADE; --',
    "it's",
    "\\",
    ":organization_id",
    "\\:b",
    "$1",
    "/*",
    "--",
    "\n",
    "staged",
    "stored",
    "excluded",
    "x" * 63,
)
TABLE = "%(version)s {raw} \"'"
OBJECT = '"%(version)s {raw} ""\'"'  # what a name with a quote is called, as in SQL
KEY = Identifier(NAMES[0])


@pytest.mark.parametrize("mode", ["full", "real_time"])
def test_a_name_is_just_a_name(store: Store, register: Register, source: psycopg.Connection[Any], mode: str) -> None:
    columns = SQL(", ").join(SQL("{} text").format(Identifier(name)) for name in NAMES)
    source.execute(SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(Identifier(TABLE), columns, KEY))
    register(sync_mode=mode)
    first, second = ([f"{row} {place}" for place, _ in enumerate(NAMES)] for row in (1, 2))
    put(source, first)
    report = sync(store)
    assert statuses(report) == {OBJECT: "succeeded"}, report.objects[OBJECT].error
    assert in_the_warehouse(store) == [first]

    put(source, second)
    of_first = SQL(" WHERE {} = '1 0'").format(KEY)
    source.execute(SQL("UPDATE {} SET {} = '%(kind)s'").format(Identifier(TABLE), Identifier("%(version)s")) + of_first)
    source.execute(SQL("DELETE FROM {} WHERE {} = '2 0'").format(Identifier(TABLE), KEY))
    report = sync(store)
    assert statuses(report) == {OBJECT: "succeeded"}, report.objects[OBJECT].error
    assert in_the_warehouse(store) == [[*first[:2], "%(kind)s", *first[3:]]]


def put(source: psycopg.Connection[Any], row: list[str]) -> None:
    values = SQL(", ").join([Placeholder()] * len(row))
    listed = SQL(", ").join(Identifier(name.replace("%", "%%")) for name in NAMES)
    into = Identifier(TABLE.replace("%", "%%"))
    source.execute(SQL("INSERT INTO {} ({}) VALUES ({})").format(into, listed, values), row)


def in_the_warehouse(store: Store) -> list[list[str]]:
    (entry,) = catalogue.entries(store, "acme-db").values()
    listed = SQL(", ").join(map(Identifier, NAMES))
    statement = SQL("SELECT {} FROM {} WHERE deleted_at IS NULL").format(listed, Identifier("raw", entry.raw_table))
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        return [list(row) for row in connection.execute(statement)]


def test_every_statement_about_a_mirror_takes_any_name(store: Store, organization: Organization) -> None:
    """Also those of another database's change log: keys that change, columns it leaves out, truncations, parts of
    documents; and names that only other databases can have."""
    names = (
        *NAMES,
        "",
        "a\0b",
        "ctid",
        "tableoid",
        "xmin",
        "%(organization_id)s" + "x" * 60,
        "%(organization_id)s" + "x" * 61,
    )
    table = SourceTable(
        TABLE, tuple(SourceColumn(name, MirrorType(Base.JSONB if name == "{}" else Base.TEXT), "") for name in names),
        (names[2], names[0]),
    )  # fmt: skip
    integration = configuration(
        "acme-db", provider_name="mysql", integration_type="database",
        sync_config={"field_mappings": {TABLE: {"{}.%(version)s.'": "deep"}}},
    )  # fmt: skip
    add_integration(store, integration, actor="test")
    mirror = mirror_of(integration, table, catalogue.raw_name("mysql", "acme-db", TABLE))
    assert len({column.name for column in mirror.columns}) == len(names) + 1
    with store.owner() as owner:
        mirror_tables.ensure(owner, mirror)
    document = json.dumps({"%(version)s": {"'": "found"}})
    row = [document if name == "{}" else "a" for name in names]
    with Warehouse(store).transaction("acme") as transaction:
        writer = MirrorWriter(transaction.connection, mirror, "acme", "acme-db")
        assert writer.upsert([(1, tuple(row))]) == 1
        partly = tuple(
            UNCHANGED if name not in (names[0], names[2], "{}") else row[place] for place, name in enumerate(names)
        )
        assert writer.update([(2, partly)]) == (1, [])
        assert transaction.connection.scalar(sa.text(f"SELECT deep FROM raw.{mirror.table}")) == "found"
        assert writer.delete_older(3, "inferred", inclusive=False) == 1
        assert writer.upsert([(3, tuple(row))]) == 1
        assert writer.delete([(4, ("a", "a"))]) == 1
        assert writer.delete_missing([], 9, binary=False) == 0
        assert writer.delete_older(9, "hard", inclusive=True) == 0
        assert writer.forget_versions() == 1


SQL_FOR_A_TYPE = (
    "text); DROP TABLE control.integrations; --",
    "text DEFAULT pg_sleep(1000)",
    "numeric(1,2)) INHERITS (control.integrations",
    "evil.text",
    "int4",
)


@pytest.mark.parametrize("text", SQL_FOR_A_TYPE)
def test_a_type_that_was_written_into_the_catalogue_is_refused(
    store: Store, organization: Organization, text: str
) -> None:
    integration = configuration("acme-db", provider_name="mysql", integration_type="database")
    add_integration(store, integration, actor="test")
    table = SourceTable("users", (SourceColumn("id", MirrorType(Base.TEXT), "varchar"),), ("id",))
    catalogue.remember(store, integration, [(table, "users")])
    path = "{columns,0,type}"
    with store.operator() as connection:
        changed = "UPDATE ingest.source_tables SET definition = jsonb_set(definition, %s, %s)"
        connection.exec_driver_sql(changed, (path, json.dumps(text)))
    with pytest.raises(InvalidConfiguration, match="what is noted of the table 'users' cannot be used"):
        catalogue.entries(store, "acme-db")


@pytest.mark.parametrize(
    "column_type",
    ["decimal(10,2)); DROP TABLE x; --", "decimal(999999,0)", "decimal(١,٢)", "decimal(0,0)", "decimal(65,-1)"],
)
def test_a_mysql_that_invents_digits_gets_what_we_know_or_text(column_type: str) -> None:
    kind = kind_of("decimal", column_type, json_checked=False) or UNKNOWN
    assert str(kind.type) in ("text", "numeric(10,2)")


# --- a PostgreSQL source that answers for its catalogue


def test_a_format_type_of_its_own_gets_nowhere(
    store: Store, register: Register, source: psycopg.Connection[Any]
) -> None:
    evil = "text); CREATE TABLE public.pwned (i int); --"
    source.execute("CREATE SCHEMA evil")
    source.execute(
        SQL("CREATE FUNCTION evil.format_type(oid, integer) RETURNS text LANGUAGE sql AS {}").format(f"SELECT '{evil}'")
    )
    source.execute("CREATE TABLE users (id int PRIMARY KEY, plan text)")
    source.execute("INSERT INTO users VALUES (1, 'pro')")
    source.execute(
        SQL("ALTER DATABASE {} SET search_path = evil, pg_catalog, public").format(Identifier(source.info.dbname))
    )
    register()
    report = sync(store)
    assert statuses(report) == {"users": "succeeded"}, report.objects["users"].error
    with store.owner() as connection:
        assert connection.scalar(sa.text("SELECT to_regclass('public.pwned')")) is None
        kinds = (
            "SELECT DISTINCT data_type FROM information_schema.columns WHERE table_name = 'postgresql_acme_db_users'"
        )
        assert "pwned" not in str(connection.scalars(sa.text(kinds)).all())
