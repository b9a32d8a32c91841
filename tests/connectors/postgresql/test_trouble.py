"""What goes wrong with a customer's database: one clear message, nothing half done, the other tables go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from churnguard_pipelines.connectors.postgresql.replication import ReplicationStream
from churnguard_pipelines.connectors.postgresql.slot import slot_name
from churnguard_pipelines.errors import AuthenticationFailed, InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.change_lane import ChangeLane
from churnguard_pipelines.syncing.removal import remove_integration
from churnguard_pipelines.syncing.source import discover, opened_database, reset_database
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.postgresql.conftest import Register, in_source
from tests.sources.postgresql import PostgreSQLServer

Source = psycopg.Connection[Any]
SLOT = slot_name("acme-db")


def person(source: Source, name: str, *rights: str) -> str:
    """Another user of the source's server, with these rights."""
    source.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(name)))
    source.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(name), Literal("pw")))
    for right in rights:
        source.execute(right)
    return name


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"password": "wrong"}, AuthenticationFailed, "PostgreSQL refuses the credentials"),
        ({"fields": {"database": "nowhere"}}, InvalidConfiguration, 'database "nowhere" does not exist'),
        ({"fields": {"port": "1"}}, ProviderUnavailable, "cannot be reached.*Correct the host and port"),
        ({"fields": {"host": ""}}, InvalidConfiguration, "credentials.custom_fields.host is missing"),
        ({"fields": {"tls": "maybe"}}, InvalidConfiguration, "tls cannot be 'maybe'"),
    ],
)
def test_a_wrong_address_or_password_is_said(
    store: Store, register: Register, wrong: dict[str, Any], error: type[Exception], said: str
) -> None:
    register(**wrong)
    with pytest.raises(error, match=said) as caught:
        check_connection(store, "acme-db")
    assert "canary" not in str(caught.value)


def test_what_a_user_may_not_read_or_do_is_said_with_its_statement(
    store: Store, register: Register, source: Source, users: None
) -> None:
    source.execute(
        "CREATE TABLE hidden (id int PRIMARY KEY); CREATE TABLE keyless (a int); GRANT SELECT ON keyless TO PUBLIC"
    )
    register(user=person(source, "reader", "GRANT SELECT ON users TO reader"), password="pw", sync_mode="real_time")
    told = {
        item.object: (item.readable, item.problem, item.remedy) for item in check_connection(store, "acme-db").objects
    }
    assert told["users"] == (True, None, None)
    readable, problem, _ = told["keyless"]
    assert readable
    assert "every sync reads it in full" in str(problem)
    assert 'ALTER TABLE "public"."keyless" ADD PRIMARY KEY' in str(problem)
    assert 'GRANT SELECT ON "public"."hidden" TO "reader"' in str(told["hidden"][2])
    assert 'ALTER ROLE "reader" REPLICATION' in str(told["change data capture"][2])
    assert "GRANT CREATE ON DATABASE" in str(told["change data capture"][2])
    source.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_a_keyless_table_is_read_in_full_time_and_again(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE log (line text); INSERT INTO log SELECT 'same' FROM generate_series(1, 50)")
    register()
    sync(store)
    assert len(mirrored(store, "log", "line")) == 50
    source.execute("DELETE FROM log WHERE ctid IN (SELECT ctid FROM log LIMIT 20); INSERT INTO log VALUES ('new')")
    source.execute("VACUUM FULL log")
    sync(store)
    assert mirrored(store, "log", "line") == in_source(source, "log", "line")


def test_columns_named_as_ours_are_called_otherwise(store: Store, register: Register, source: Source) -> None:
    source.execute("CREATE TABLE teams (organization_id int PRIMARY KEY, deleted_at date, source_deleted_at int)")
    source.execute("INSERT INTO teams VALUES (7, '2026-01-01', 3)")
    register()
    sync(store)
    columns = ("source_organization_id", "source_deleted_at", "source_source_deleted_at")
    assert mirrored(store, "teams", *columns) == [("7", "2026-01-01", "3")]


def test_tables_and_fields_are_chosen_and_named(store: Store, register: Register, source: Source, users: None) -> None:
    source.execute("CREATE TABLE users_archive (id int PRIMARY KEY); CREATE TABLE plans (id int PRIMARY KEY)")
    source.execute('ALTER TABLE users ADD profile jsonb DEFAULT \'{"address": {"city": "Ulm"}}\'')
    mappings = {"users": {"email": "mail", "profile.address.city": "city"}}
    made = register(
        objects=["users*"], exclude=["*_archive"], field_mappings=mappings, entity_mappings={"users": "customers"}
    )
    assert [(each.table.object, each.wanted) for each in discover(store, made)] == [
        ("plans", False), ("users", True), ("users_archive", False),
    ]  # fmt: skip
    assert statuses(sync(store)) == {"users": "succeeded"}
    assert mirrored(store, "customers", "id", "mail", "city")[0] == ("1", "u1", "Ulm")
    with pytest.raises(InvalidConfiguration, match="no table that may be read is called nothing"):
        sync(store, "nothing")


@pytest.mark.parametrize("mode", ["incremental", "full", "real_time"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("ALTER email TYPE int USING 1", "column email was text and is integer now"),
        ("ALTER email TYPE text[] USING ARRAY[email, NULL]", "column email was text and is text[] now"),
        ("ALTER email TYPE bytea USING email::bytea", "column email was text and is bytea now"),
        ("ALTER id TYPE uuid USING md5(id::text)::uuid", "column id was integer and is uuid now"),
        ("DROP CONSTRAINT users_pkey, ADD PRIMARY KEY (email)", "its key was (id) and is (email) now"),
        ("DROP CONSTRAINT users_pkey, ADD PRIMARY KEY (email, id)", "its key was (id) and is (email, id) now"),
    ],
)
def test_an_incompatible_change_is_read_anew_without_being_asked_and_says_so(
    store: Store, register: Register, source: Source, users: None, mode: str, change: str, told: str
) -> None:
    source.execute("CREATE TABLE plans (id int PRIMARY KEY, price numeric)")
    register(sync_mode=mode)
    sync(store)
    source.execute("UPDATE users SET email = 'changed' WHERE id = 7")  # logged as text, applied to what is there now
    source.execute(f"ALTER TABLE users {change}")
    source.execute("DELETE FROM users WHERE email = (SELECT min(email) FROM users)")
    source.execute("INSERT INTO plans VALUES (1, 9.5)")
    report = sync(store)
    assert statuses(report) == {"users": "succeeded", "plans": "succeeded"}
    assert f"it is read anew: {told}" in str(report.objects["users"].error)
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")
    assert mirrored(store, "plans", "id", "price") == [("1", "9.5")]
    assert catalogue.entries(store, "acme-db")["users"].problem is None
    if mode == "real_time":
        source.execute("DELETE FROM users WHERE email = (SELECT min(email) FROM users)")
        assert sync(store).objects["users"].error is None
        assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")


@pytest.mark.parametrize("mode", ["incremental", "real_time"])
def test_a_mirror_that_somebody_removed_is_made_and_read_anew(
    store: Store, register: Register, source: Source, users: None, mode: str
) -> None:
    source.execute("UPDATE users SET updated_at = now() - id * interval '1 minute'")
    register(sync_mode=mode)
    sync(store)
    sync(store)
    with store.owner() as owner:
        owner.exec_driver_sql("DROP TABLE raw.postgresql_acme_db_users")
    assert statuses(sync(store)) == {"users": "succeeded"}
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")


def test_a_follower_says_that_a_table_is_read_once_more_and_its_changes_arrive_meanwhile(
    store: Store, register: Register, source: Source, users: None
) -> None:
    made = register(sync_mode="real_time")
    sync(store)
    source.execute("ALTER TABLE users ALTER email TYPE int USING 1; INSERT INTO users VALUES (101, 5)")
    with (
        opened_database(store, made) as connector,
        ChangeLane(store, Warehouse(store), made, connector) as lane,
    ):
        assert dict(lane.catch_up()).keys() == {"users"}
    problem = str(catalogue.entries(store, "acme-db")["users"].problem)
    assert problem == "column email was text and is integer now. The next sync reads it once more."
    assert ("101", "5") in mirrored(store, "users", "id", "email")
    assert statuses(sync(store)) == {"users": "succeeded"}
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")


def test_what_changed_while_a_table_was_stopped_is_not_missed(
    store: Store, register: Register, source: Source, users: None
) -> None:
    register(sync_mode="real_time")
    sync(store)
    with store.owner() as owner:
        owner.exec_driver_sql("CREATE VIEW raw.mails AS SELECT email FROM raw.postgresql_acme_db_users")
    source.execute("ALTER TABLE users ALTER email TYPE bytea USING email::bytea")
    source.execute("UPDATE users SET email = 'changed' WHERE id = 7; DELETE FROM users WHERE id = 8")
    report = sync(store)
    assert statuses(report) == {"users": "failed"}  # and the log has moved on without it
    assert "Drop what depends on it" in str(report.objects["users"].error)
    with store.owner() as owner:
        owner.exec_driver_sql("DROP VIEW raw.mails")
    assert statuses(sync(store)) == {"users": "succeeded"}
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")


def test_what_changed_while_a_table_was_not_wanted_is_not_missed(
    store: Store, register: Register, source: Source, users: None
) -> None:
    source.execute("CREATE TABLE plans (id int PRIMARY KEY)")
    register(sync_mode="real_time")
    sync(store)
    with_exclusion = register(sync_mode="real_time", exclude=["users"])
    source.execute("UPDATE users SET email = 'changed' WHERE id = 7; DELETE FROM users WHERE id = 8")
    source.execute("INSERT INTO plans VALUES (1)")
    with (
        opened_database(store, with_exclusion) as connector,
        ChangeLane(store, Warehouse(store), with_exclusion, connector) as lane,
    ):
        assert dict(lane.catch_up()).keys() == {"plans"}
    register(sync_mode="real_time")
    sync(store)
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")


def test_a_lost_slot_is_refused_and_reset_reads_anew(
    store: Store, register: Register, source: Source, users: None
) -> None:
    made = register(sync_mode="real_time")
    sync(store)
    source.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
    source.execute("DELETE FROM users WHERE id < 50")
    report = sync(store)
    assert report.status == "partial"
    assert f"its replication slot {SLOT} is gone; changes may be missing." in str(report.error)
    assert "churnguard integrations reset acme-db" in str(report.error)
    reset_database(store, made)
    assert sync(store).status == "succeeded"
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")


def test_a_slot_that_moved_on_without_us_is_refused(
    store: Store, register: Register, source: Source, users: None
) -> None:
    register(sync_mode="real_time")
    sync(store)
    source.execute("INSERT INTO users VALUES (200, 'x')")
    source.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_insert_lsn())", [SLOT])
    assert "beyond our position" in str(sync(store).error)


def test_another_server_is_refused(store: Store, register: Register, source: Source, users: None) -> None:
    made = register()
    sync(store)
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE ingest.checkpoints SET source = 'another/1'")
    assert "its checkpoint belongs to the server another/1" in str(sync(store).objects["users"].error)
    reset_database(store, made)
    assert sync(store).status == "succeeded"


def test_removing_an_integration_frees_the_source(
    store: Store, register: Register, source: Source, users: None
) -> None:
    register(sync_mode="real_time")
    sync(store)
    assert source.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", [SLOT]).fetchone() == (1,)
    assert remove_integration(store, "acme-db", "test", purge=True) is None
    assert source.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", [SLOT]).fetchone() == (0,)
    assert source.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)
    with store.owner() as connection:
        mirrors = "SELECT count(*) FROM pg_tables WHERE schemaname = 'raw' AND tablename LIKE 'postgresql%%'"
        assert connection.exec_driver_sql(mirrors).scalar_one() == 0


def test_following_no_more_frees_the_source(store: Store, register: Register, source: Source, users: None) -> None:
    register(sync_mode="real_time")
    sync(store)
    register(sync_mode="incremental")
    sync(store)
    assert source.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", [SLOT]).fetchone() == (0,)


def test_what_changed_before_it_was_followed_is_read_once_more(
    store: Store, register: Register, source: Source, users: None
) -> None:
    register(sync_mode="incremental")
    sync(store)
    source.execute("DELETE FROM users WHERE id < 10; UPDATE users SET email = 'x', updated_at = NULL WHERE id = 20")
    register(sync_mode="real_time")
    sync(store)
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")


def test_a_table_made_anew_is_read_anew(store: Store, register: Register, source: Source, users: None) -> None:
    source.execute("CREATE TABLE plans (id int PRIMARY KEY, price numeric); INSERT INTO plans VALUES (1, 1)")
    made = register(sync_mode="real_time")
    sync(store)
    source.execute("DROP TABLE plans; CREATE TABLE plans (id int PRIMARY KEY, price numeric)")
    source.execute("INSERT INTO plans VALUES (2, 2)")
    sync(store)
    assert mirrored(store, "plans", "id", "price") == [("2", "2")]
    source.execute("DROP TABLE plans")
    assert statuses(sync(store)) == {"users": "succeeded"}
    assert "it is not in the source any more" in str(catalogue.entries(store, "acme-db")["plans"].problem)
    reset_database(store, made)
    sync(store)
    assert mirrored(store, "plans", "id", "price") == [("2", "2")]  # what is gone there is not thrown away here
    register(sync_mode="real_time", exclude=["plans"])
    sync(store)
    assert catalogue.entries(store, "acme-db")["plans"].problem is None


def test_a_slot_that_another_reads_is_not_ours(
    store: Store, register: Register, source: Source, users: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("churnguard_pipelines.connectors.postgresql.slot.SLOT_WAIT", 0.3)
    made = register(sync_mode="real_time")
    sync(store)
    other = ReplicationStream(made, SLOT, SLOT, "0/0")
    try:
        assert f"the replication slot {SLOT} is in use by the server's process" in str(sync(store).error)
    finally:
        other.close()


def test_a_server_that_keeps_no_changes_is_told(store: Store, register: Register, short_path: Path) -> None:
    server = PostgreSQLServer(short_path)
    server.start(wal_level="replica")
    try:
        with server.connect() as connection:
            connection.execute("CREATE TABLE users (id int PRIMARY KEY)")
        register(fields={"port": str(server.port), "database": "postgres"}, sync_mode="real_time")
        report = check_connection(store, "acme-db")
        assert report.objects[-1].problem == "wal_level is replica"
        assert "ALTER SYSTEM SET wal_level = logical" in str(report.objects[-1].remedy)
        assert "ALTER SYSTEM SET wal_level = logical" in str(sync(store).error)
    finally:
        server.stop()


def test_an_increment_reads_what_changed_ties_and_nulls(
    store: Store, register: Register, source: Source, users: None
) -> None:
    source.execute(
        "UPDATE users SET updated_at = '2026-01-01' WHERE id < 50; UPDATE users SET updated_at = NULL WHERE id = 99"
    )
    source.execute("UPDATE users SET updated_at = '2026-06-01' WHERE id BETWEEN 50 AND 98 OR id = 100")
    made = register(sync_mode="incremental")
    sync(store)
    source.execute("UPDATE users SET email = 'tie' WHERE id = 60; UPDATE users SET email = 'null' WHERE id = 99")
    source.execute(
        "INSERT INTO users VALUES (101, 'late', '2026-05-31 23:58'); INSERT INTO users VALUES (102, 'new', now())"
    )
    report = sync(store)
    assert (
        report.objects["users"].counts.read == 50 + 1 + 2
    )  # the ties of the last moment, the null one, the two new ones
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")
    source.execute("DELETE FROM users WHERE id = 5")
    sync(store)
    assert ("5", "u5") in mirrored(store, "users", "id", "email")  # no cursor tells of it
    with store.operator() as connection:
        connection.exec_driver_sql(
            'UPDATE ingest.checkpoints SET position = position || \'{"swept_at": "2026-01-01T00:00:00+00:00"}\''
        )
    assert get_integration(store, made.integration_id).sync_config.sync_mode == "incremental"
    sync(store)
    assert mirrored(store, "users", "id", "email") == in_source(source, "users", "id", "email")
