"""A tenant whose work holds locks for long, or that takes them on purpose, so that the others stand still."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors
from psycopg.sql import SQL, Identifier

import churnguard_pipelines
import webhook_gateway
from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.mirror_types import MirrorType
from churnguard_pipelines.mirrors import Mirror, MirrorColumn, SourceColumn, SourceTable
from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.records import TEXT, Column, Table
from churnguard_pipelines.store.control.integrations import (
    add_integration,
    get_integration,
    locked_credentials,
    remove_integration,
    set_status,
)
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint
from churnguard_pipelines.store.ingest import catalogue, inbox
from churnguard_pipelines.store.postgres import locks
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.row_security import READER
from churnguard_pipelines.store.raw import mirror_tables
from churnguard_pipelines.store.raw.mirror_writer import MirrorWriter
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.conftest import as_administrator, configuration
from webhook_gateway.intake.committer import CannotStore, Committer

AT_ONCE = 4.0
"""Seconds; what has to wait for a lock would wait for as long as the test lets it."""


def mirror(table: str, kind: str) -> Mirror:
    columns = (MirrorColumn("id", MirrorType.parse("integer"), "id"), MirrorColumn("n", MirrorType.parse(kind), "n"))
    return Mirror(table, "users", columns, ("id",))


@pytest.fixture
def theirs(store: Store, integration: IntegrationConfiguration) -> IntegrationConfiguration:
    """Another organization's integration beside acme's."""
    add_organization(store, Organization(organization_id="globex", name="Globex"), actor="test")
    added = configuration("globex-stripe", organization_id="globex")
    add_integration(store, added, actor="test")
    return added


@pytest.fixture
def widening(store: Store) -> Iterator[None]:
    """Meanwhile a mirror of acme's is being widened, which takes as long as the table is large."""
    with store.owner() as owner:
        mirror_tables.ensure(owner, mirror("acme_users", "integer"))
    with store.owner() as owner:
        assert mirror_tables.ensure(owner, mirror("acme_users", "bigint"))
        yield


def deliver(store: Store, event_id: str) -> int:
    """As the gateway stores a delivery; returns how many of its events were new. Raises ``CannotStore``."""

    async def stored() -> int:
        committer = Committer(store.database_url)
        working = asyncio.create_task(committer.work())
        try:
            row = ("globex", "stripe", "globex-stripe", "we_1", event_id, "invoice.paid", "in_1", "{}")
            async with asyncio.timeout(AT_ONCE):
                return await committer.store([row])
        finally:
            working.cancel()

    return asyncio.run(stored())


@pytest.mark.usefixtures("widening")
def test_deliveries_are_stored_while_a_mirror_is_widened(store: Store, theirs: IntegrationConfiguration) -> None:
    assert deliver(store, "evt_1") == 1


@pytest.mark.usefixtures("widening")
def test_another_s_mirror_is_made_widened_and_dropped_meanwhile(store: Store) -> None:
    with impatient(store) as owner:
        assert mirror_tables.ensure(owner, mirror("globex_users", "integer")) == []
        assert mirror_tables.ensure(owner, mirror("globex_users", "numeric"))
        mirror_tables.drop(owner, "globex_users")


def test_rows_of_another_are_purged_meanwhile(store: Store, theirs: IntegrationConfiguration) -> None:
    acme = configuration("acme-db", provider_name="postgresql", integration_type="database")
    add_integration(store, acme, actor="test")
    table = SourceTable("users", (SourceColumn("id", MirrorType.parse("integer"), "int"),), ("id",))
    name = catalogue.remember(store, acme, [(table, "users")])["users"]
    with store.owner() as owner:
        mirror_tables.ensure(owner, mirror(name, "integer"))
    with store.owner() as owner:
        assert mirror_tables.ensure(owner, mirror(name, "bigint"))
        within(lambda: remove_integration(store, "globex-stripe", actor="test", purge=True))


def test_the_same_mirror_is_made_and_widened_once(store: Store) -> None:
    def made(kind: str) -> int:
        with store.owner() as owner:
            return len(mirror_tables.ensure(owner, mirror("acme_users", kind)))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(made, ["integer"] * 8)) == [0] * 8
        assert sorted(pool.map(made, ["bigint"] * 8)) == [0] * 7 + [1]


def test_a_token_endpoint_that_never_answers_holds_up_its_own_integration_only(
    store: Store, theirs: IntegrationConfiguration
) -> None:
    """While a token is renewed its integration's row is locked, over the question to the provider."""
    with locked_credentials(store, "acme-stripe"):
        within(lambda: get_integration(store, "acme-stripe"))
        within(lambda: set_status(store, "globex-stripe", theirs.status, actor="test"))
        within(lambda: add_endpoint(store, organization_id="acme", provider="stripe", secret="s", actor="test"))
        within(lambda: remove_integration(store, "globex-stripe", actor="test", purge=True))
        assert deliver(store, "evt_1") == 1


# --- on purpose


def test_the_role_of_an_organization_cannot_take_what_all_share(store: Store, theirs: IntegrationConfiguration) -> None:
    numbers = [locks.MIGRATION + offset for offset in range(16)]  # those that were in use once
    with store.organization("acme") as hostile:
        for number in numbers:
            hostile.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))
        for own in locks.Own:
            hostile.execute(sa.select(sa.func.pg_advisory_xact_lock(own.value, own.value)))
        for statement in (
            "SELECT FROM control.locks FOR UPDATE",
            "SELECT FROM control.locks",
            "LOCK TABLE control.locks IN ACCESS SHARE MODE",
            "SELECT FROM ingest.inbox_slots FOR SHARE",
            "SELECT FROM ingest.inbox_slots",
            "LOCK TABLE ingest.inbox_slots IN ACCESS SHARE MODE",
            "LOCK TABLE control.alembic_version IN ACCESS SHARE MODE",
            "LOCK TABLE ingest.webhook_inbox IN ROW EXCLUSIVE MODE",
            "LOCK TABLE ingest.webhook_seen IN ROW EXCLUSIVE MODE",
        ):
            with pytest.raises(sa.exc.ProgrammingError) as refused, hostile.begin_nested():
                hostile.exec_driver_sql(statement)
            assert isinstance(refused.value.orig, errors.InsufficientPrivilege), statement
        within(lambda: inbox.keep_partitions(store))
        assert deliver(store, "evt_1") == 1
        within(lambda: inbox.replay(store, theirs, actor="test"))
        within(lambda: migrating(as_administrator(store.database_url)))


def test_replaying_all_that_one_has_leaves_the_inbox_to_others_in_between(
    store: Store, theirs: IntegrationConfiguration
) -> None:
    """An organization's key says how much it replays: a million events were one transaction under everybody's lock."""
    with store.operator() as connection:
        for size, events in ((10, 1200), (inbox.PIECE_BYTES // 2, 5)):
            connection.exec_driver_sql(
                "INSERT INTO ingest.webhook_inbox (organization_id, provider, integration_id, endpoint_id, event_id, "
                "event_type, entity, payload, received_on) SELECT %s, 'stripe', %s, 'we', 'evt_' || %s || '_' || n, "
                "'customer.updated', '', repeat('x', %s), (clock_timestamp() AT TIME ZONE 'UTC')::date "
                "FROM generate_series(1, %s) AS n",
                (theirs.organization_id, theirs.integration_id, size, size, events),
            )
    assert inbox.replay(store, theirs, actor="test") == 1205
    with store.operator() as connection:
        pieces = connection.exec_driver_sql(
            "SELECT count(*), sum(octet_length(payload)) FROM ingest.webhook_inbox GROUP BY xmin::text "
            "ORDER BY min(sequence)"
        ).all()[1:]
    assert sum(events for events, _ in pieces) == 1205
    assert all(events <= inbox.PIECE_EVENTS and size <= inbox.PIECE_BYTES for events, size in pieces)


def migrating(url: str) -> None:
    owner = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with owner.begin() as connection:
        locks.take_for_migration(connection)
    owner.dispose()


def test_without_slots_nothing_is_taken(store: Store, theirs: IntegrationConfiguration) -> None:
    """A delivery that would be lost without a word is refused, and comes again."""
    with psycopg.connect(as_administrator(store.database_url)) as owner:
        owner.execute("DELETE FROM ingest.inbox_slots")
    with pytest.raises(CannotStore):
        deliver(store, "evt_1")


@pytest.fixture
def open_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """(table) -> an analyst has looked into it, and left the transaction open."""
    monkeypatch.setattr(locks, "_TABLE_SECONDS", 1)
    with psycopg.connect(as_administrator(store.database_url)) as analyst:
        analyst.execute(f"SET ROLE {READER}")

        def look_into(table: str) -> None:
            analyst.execute(SQL("SELECT FROM {}").format(Identifier("raw", table)))

        yield look_into


def test_a_reader_of_a_table_does_not_hold_up_its_change_and_all_behind_it_for_ever(
    store: Store, open_ended: Callable[[str], None]
) -> None:
    things, others = (Table("test", name, "id", (Column("a", TEXT),)) for name in ("things", "others"))
    Warehouse(store).ensure(things)
    open_ended(things.name)
    wider = Table("test", "things", "id", (Column("a", TEXT), Column("b", TEXT)))

    def widened() -> None:
        with pytest.raises(DatabaseUnavailable, match="in use"):
            Warehouse(store).ensure(wider)

    within(widened)
    within(lambda: Warehouse(store).ensure(others))


def test_nor_the_purge_of_its_rows(store: Store, open_ended: Callable[[str], None]) -> None:
    add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
    acme = configuration("acme-db", provider_name="postgresql", integration_type="database")
    add_integration(store, acme, actor="test")
    tables = [
        SourceTable(name, (SourceColumn("id", MirrorType.parse("integer"), "int"),), ("id",)) for name in ("a", "b")
    ]
    names = catalogue.remember(store, acme, [(table, table.object) for table in tables]).values()
    for name in names:
        with store.owner() as owner:
            mirror_tables.ensure(owner, mirror(name, "integer"))
        with store.organization("acme") as connection:
            MirrorWriter(connection, mirror(name, "integer"), "acme", "acme-db").upsert([(1, (1, 1))])
        open_ended(name)
    within(lambda: remove_integration(store, "acme-db", actor="test", purge=True))
    with store.operator() as connection:
        for name in names:
            assert connection.exec_driver_sql(f"SELECT count(*) FROM raw.{name}").scalar() == 0


# --- the kind


def test_every_lock_is_another_one_and_is_there(store: Store) -> None:
    assert len({lock.value for lock in locks.Shared}) == len(locks.Shared.__members__)
    assert len({lock.value for lock in locks.Own}) == len(locks.Own.__members__)
    with store.operator() as connection:
        there = set(connection.scalars(sa.text("SELECT name FROM control.locks")))
    assert there == {lock.value for lock in locks.Shared}


def test_nobody_else_writes_a_lock_s_number() -> None:
    for package in (churnguard_pipelines, webhook_gateway):
        root = Path(package.__path__[0])
        for path in root.rglob("*.py"):
            if path == Path(locks.__file__):
                continue
            words = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            attributes = {
                node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
            }
            texts = [text for text in words if isinstance(text, str)] + list(attributes)
            assert not [text for text in texts if "advisory" in text and "lock" in text], path


@contextmanager
def impatient(store: Store) -> Iterator[sa.Connection]:
    with store.owner() as owner:
        owner.exec_driver_sql(f"SET LOCAL statement_timeout = {int(AT_ONCE * 1000)}")
        yield owner


def within(deed: Callable[[], object]) -> None:
    """It ends without waiting for a lock that the test holds."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            deed()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(AT_ONCE)
    assert not thread.is_alive(), "it waits"
    assert failed == []
