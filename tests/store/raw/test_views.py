"""Views: who sees which rows through them, what becomes of any value there is, and who reads while one is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import errors
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.engine import values
from churnguard_pipelines.engine.values import TypeMismatch
from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import TEXT, Column, ColumnType, Table
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.readers import add_reader
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.row_security import READER, TENANT_READER
from churnguard_pipelines.store.raw import views
from churnguard_pipelines.store.raw.views import View, ViewColumn
from churnguard_pipelines.store.raw.warehouse import Warehouse

THINGS = Table("test", "things", "id", (Column("a", TEXT),))
FUNCTIONS = {
    ColumnType.BIGINT: "bigint", ColumnType.NUMERIC: "numeric", ColumnType.DOUBLE: "double",
    ColumnType.BOOLEAN: "boolean", ColumnType.TIMESTAMP: "timestamptz", ColumnType.DATE: "date",
    ColumnType.JSON: "jsonb",
}  # fmt: skip

moments = st.from_regex(
    r"(0000|0001|2023|2024|9999|[0-9]{4})-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9]([.,][0-9]{1,9})?)?"
    r"(Z|[+-][01][0-9](:?[0-5][0-9])?)?)?",
    fullmatch=True,
)
numbers = st.one_of(
    st.integers(), st.integers(-(2**63) - 2, 2**63 + 1), st.floats(allow_nan=False, allow_infinity=False),
    st.from_regex(r"[+-]?[0-9]{0,25}(\.[0-9]{0,5})?([eE][+-]?[0-9]{1,5})?", fullmatch=True),
)  # fmt: skip
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, moments, texts, st.sampled_from(["true", "FALSE", "t", ""])),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=3,
)


@pytest.fixture
def reader(store: Store) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(store.database_url, autocommit=True) as connection:
        connection.execute("SET ROLE churnguard_app")
        yield connection


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=anything)
@example(value="2023-02-29")
@example(value="9999-12-31T23:59:59-01:00")
@example(value="1e9999")
@example(value="9" * 4000 + "e9999")
@example(value="0." + "1" * 4098 + "e-9999")
@example(value=1e-310)
@example(value=1.797e308)
@example(value=10**400)
@example(value=253402300800)
def test_a_value_that_fits_its_type_is_shown_and_no_value_is_an_error(
    reader: psycopg.Connection[Any], value: Any
) -> None:
    for kind, function in FUNCTIONS.items():
        statement = SQL("SELECT {}(%s::jsonb)::text IS NOT NULL").format(Identifier("views", f"to_{function}"))
        (row,) = reader.execute(statement, [json.dumps(value)])
        try:
            values.viewed(kind, value)
        except (TypeMismatch, AttributeError, TypeError):
            continue
        if value is not None and value != "":
            assert row == (True,), (kind, value)


ORGANIZATIONS = ("acme", "globex")


@pytest.fixture
def made(store: Store) -> Store:
    """A row of each organization, and a view of each one's."""
    Warehouse(store).ensure(THINGS)
    for name in ORGANIZATIONS:
        add_organization(store, Organization(organization_id=name, name=name), actor="test")
        with Warehouse(store).transaction(name) as transaction:
            transaction.upsert(THINGS, "i", [("1", 1, name, None)])
        put(store, of(name))
    return store


def of(organization_id: str, *columns: ViewColumn) -> View:
    shown = columns or (ViewColumn("owner", "organization_id"), ViewColumn("a", "a"))
    return View(f"{organization_id}_things", THINGS.name, organization_id, "i", shown)


def put(store: Store, view: View) -> None:
    with store.operator() as connection:
        views.put(connection, view)


def test_row_security_holds_through_a_view(made: Store) -> None:
    for name in ORGANIZATIONS:
        with made.organization(name) as connection:
            seen = [
                connection.exec_driver_sql(f"SELECT owner FROM views.{other}_things").scalars().all()
                for other in ORGANIZATIONS
            ]
        assert seen == [[name] if other == name else [] for other in ORGANIZATIONS]


@pytest.mark.parametrize(
    ("role", "seen"), [(READER, [["acme"], ["globex"]]), (TENANT_READER, [[], ["globex"]])], ids=["all", "one"]
)
def test_people_read_what_they_may_of_the_table(
    made: Store, administrator_url: str, role: str, seen: list[list[str]]
) -> None:
    with psycopg.connect(administrator_url, autocommit=True) as administrator:
        administrator.execute("CREATE ROLE vera LOGIN PASSWORD 'canary'")
        try:
            administrator.execute(SQL("GRANT {} TO vera").format(Identifier(role)))
            add_reader(made, "vera", "globex", actor="test")
            with psycopg.connect(administrator_url, user="vera", password="canary", autocommit=True) as vera:
                for organization, expected in zip(ORGANIZATIONS, seen, strict=True):
                    found = vera.execute(
                        SQL("SELECT owner FROM {}").format(Identifier("views", f"{organization}_things"))
                    ).fetchall()
                    assert [owner for (owner,) in found] == expected
                for denied in ("CREATE VIEW views.evil AS SELECT 1", "DROP VIEW views.acme_things"):
                    with pytest.raises(errors.InsufficientPrivilege):
                        vera.execute(denied)
        finally:
            administrator.execute("DROP OWNED BY vera; DROP ROLE vera")


def test_who_reads_while_a_view_changes_sees_the_former_or_the_new_one(made: Store) -> None:
    """Columns are dropped, retyped and come back, while another connection reads without a pause."""
    ended, problems, reads = Event(), [], 0

    def read() -> None:
        nonlocal reads
        try:
            while not ended.is_set():
                with made.organization("acme") as connection:
                    assert connection.exec_driver_sql("SELECT owner FROM views.acme_things").scalars().all() == ["acme"]
                reads += 1
        except BaseException as error:
            problems.append(error)

    thread = Thread(target=read)
    thread.start()
    owner = ViewColumn("owner", "organization_id")
    for kind in list(ColumnType) * 4:
        put(made, of("acme", owner, ViewColumn("a", "extra", ("a",), kind)))
        put(made, of("acme", ViewColumn("b", "a"), owner))
    ended.set()
    thread.join()
    assert problems == []
    assert reads
