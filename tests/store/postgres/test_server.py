"""A given database: what is wrong with it is said clearly, with the remedy, and without the password."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.cli.deployment import migrate
from churnguard_pipelines.errors import DatabaseUnavailable, InvalidConfiguration
from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.records import TEXT, Column, Table
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.postgres import database, schema, server, setup
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.store.postgres.row_security import GROUPS, SERVICE
from churnguard_pipelines.store.raw import views
from churnguard_pipelines.store.raw.views import View, ViewColumn
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.conftest import as_administrator, on_database, settings_for

CANARY = "s3cret-canary"


@pytest.fixture(scope="module")
def fresh_server() -> Iterator[str]:
    """A server of its own, without our roles; the URL is its superuser's."""
    home = Path(tempfile.mkdtemp(prefix="churnguard-test-"))
    home.chmod(0o755)
    own = EmbeddedPostgres(home)
    yield own.start()
    own.stop()
    shutil.rmtree(home)


@pytest.fixture
def login(fresh_server: str) -> Iterator[Callable[[str, str], str]]:
    """(user's attributes, database) -> URL of a new user on a new database."""
    made: list[tuple[str, str]] = []

    def make(attributes: str, database: str) -> str:
        user = f"user_of_{database}"
        made.append((user, database))
        with psycopg.connect(fresh_server, autocommit=True) as connection:
            statement = SQL("CREATE ROLE {} LOGIN PASSWORD {} " + attributes)
            connection.execute(statement.format(Identifier(user), CANARY))
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(database)))
        return as_user(on_database(fresh_server, database), user, CANARY)

    yield make
    with psycopg.connect(fresh_server, autocommit=True) as connection:
        for database in (*(database for _, database in made), server.DAGSTER_DATABASE):
            connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(database)))
        for role in (SERVICE, *GROUPS, *(user for user, _ in made)):
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount:
                connection.execute(SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(Identifier(role)))


def as_user(url: str, user: str, password: str) -> str:
    return re.sub(r"//.*?@", f"//{user}:{password}@", url, count=1)


def opened(url: str, home: Path) -> Store:
    return Store.open(settings_for(home, url))


def set_up(owner_url: str, home: Path) -> Store:
    """What `churnguard migrate` does with the owner's URL, and then the services with the one that it prints."""
    url = setup.services_url(owner_url)
    assert setup.set_up(owner_url, url)
    return opened(url, home)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql://app:{CANARY}@127.0.0.1:1/db", "db on 127.0.0.1:1 as app: Connection refused\\. Check"),
        (f"postgresql://app:{CANARY}@nowhere.invalid/db", "nowhere.invalid"),
        (f"postgresql://app:{CANARY}@x@127.0.0.1/db", "not a well-formed"),
        (f"postgresql://app:1/{CANARY}@127.0.0.1/db", "not a well-formed"),
        (f"postgresql://app:{CANARY}%zz@127.0.0.1/db", "not a well-formed"),
    ],
)
def test_a_database_that_cannot_be_reached(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=says) as caught:
        opened(url, tmp_path)
    assert "CHURNGUARD_DATABASE_URL" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_wrong_password(login: Callable[[str, str], str], tmp_path: Path) -> None:
    url = login("", "locked").replace(CANARY, CANARY + "x")
    with pytest.raises(DatabaseUnavailable, match="password authentication failed for user") as caught:
        opened(url, tmp_path)
    assert CANARY not in str(caught.value)


def test_a_database_that_does_not_exist(server_url: str, tmp_path: Path) -> None:
    nowhere = on_database(server_url, "nowhere")
    with pytest.raises(DatabaseUnavailable, match='database "nowhere" does not exist') as caught:
        opened(nowhere, tmp_path)
    assert str(caught.value.remedy).startswith("Correct CHURNGUARD_DATABASE_URL, or")
    with pytest.raises(DatabaseUnavailable) as caught:
        set_up(nowhere, tmp_path)
    remedy = str(caught.value.remedy)
    assert remedy.startswith("Correct CHURNGUARD_OWNER_DATABASE_URL, or run as the server's administrator: ")
    with psycopg.connect(server_url, autocommit=True) as administrator:
        administrator.execute(remedy.partition("administrator: ")[2])
        psycopg.connect(nowhere).close()
        administrator.execute("DROP DATABASE nowhere")


def test_every_missing_right_is_named_with_the_sql_that_grants_it(
    login: Callable[[str, str], str], fresh_server: str, tmp_path: Path
) -> None:
    owner_url = login("", "poor")
    with pytest.raises(DatabaseUnavailable, match="no right to create schemas") as caught:
        set_up(owner_url, tmp_path)
    assert CANARY not in str(caught.value)
    remedy = str(caught.value.remedy).removeprefix("Run as the server's administrator: ")
    with psycopg.connect(on_database(fresh_server, "poor"), autocommit=True) as administrator:
        for statement in remedy.replace("…", CANARY).split(";"):
            if statement.strip():
                administrator.execute(statement)
    url = as_user(owner_url, SERVICE, CANARY)
    assert not setup.set_up(owner_url, url), "the administrator has made the login"
    store = opened(url, tmp_path)
    assert CANARY not in f"{store!r} {store.described}"
    with store.operator() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM control.organizations").scalar() == 0
    store.close()


def test_an_owner_who_may_create_roles_and_databases_needs_nothing_more(
    login: Callable[[str, str], str], fresh_server: str, tmp_path: Path
) -> None:
    """As the user that the provider of a managed server gives out: no superuser."""
    owner_url = login("CREATEROLE CREATEDB", "able")
    with psycopg.connect(fresh_server, autocommit=True) as administrator:
        administrator.execute("ALTER DATABASE able OWNER TO user_of_able")
    store = set_up(owner_url, tmp_path)
    Warehouse(store).ensure(Table("test", "things", "id", (Column("a", TEXT),)))
    inbox.keep_partitions(store, date(2026, 1, 1))
    assert inbox.forget(store, date(2026, 6, 1)) == 4
    with store.organization("acme") as connection:
        assert connection.exec_driver_sql("SELECT current_user").scalar() == "churnguard_app"
        assert connection.exec_driver_sql("SELECT count(*) FROM raw.test_things").scalar() == 0
    with psycopg.connect(store.dagster_database_url.replace("+psycopg2", "")) as connection:
        connection.execute("CREATE TABLE runs (id serial PRIMARY KEY)")
    setup.set_up(owner_url, store.database_url)
    opened(store.database_url, tmp_path).close()
    store.close()


def test_roles_that_somebody_else_made(login: Callable[[str, str], str], fresh_server: str, tmp_path: Path) -> None:
    owner_url = login("CREATEROLE CREATEDB", "second")
    with psycopg.connect(fresh_server, autocommit=True) as administrator:
        administrator.execute("ALTER DATABASE second OWNER TO user_of_second")
        administrator.execute("CREATE ROLE churnguard_owner; CREATE ROLE churnguard_operator")
    with pytest.raises(DatabaseUnavailable, match="may not grant our roles") as caught:
        set_up(owner_url, tmp_path)
    remedy = str(caught.value.remedy)
    assert "GRANT churnguard_owner, churnguard_raw" in remedy
    assert remedy.endswith('TO "user_of_second" WITH ADMIN OPTION;')


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        ("SUPERUSER", "is a superuser"),
        *((attribute, "has the rights of user_of_eager") for attribute in (
            "CREATEROLE", "CREATEDB", "BYPASSRLS", "REPLICATION",
        )),
        *((f"IN ROLE {role}", f"has the rights of {role}") for role in (
            "pg_read_server_files", "pg_write_server_files", "pg_execute_server_program", "pg_read_all_data",
        )),
    ],
)  # fmt: skip
def test_a_login_that_may_do_too_much_is_refused(
    login: Callable[[str, str], str], tmp_path: Path, rights: str, said: str
) -> None:
    with pytest.raises(DatabaseUnavailable, match=f"may do more than the services need: it {said}") as caught:
        opened(login(rights, "eager"), tmp_path)
    assert "CHURNGUARD_OWNER_DATABASE_URL" in str(caught.value.remedy)
    assert CANARY not in str(caught.value)


def test_the_owner_of_the_database_or_of_its_tables_is_no_login_for_the_services(
    login: Callable[[str, str], str], fresh_server: str, tmp_path: Path
) -> None:
    url = login("", "theirs")
    with psycopg.connect(on_database(fresh_server, "theirs"), autocommit=True) as administrator:
        administrator.execute("CREATE SCHEMA control AUTHORIZATION user_of_theirs")
        with pytest.raises(DatabaseUnavailable, match="has the rights of user_of_theirs"):
            opened(url, tmp_path)
        administrator.execute("DROP SCHEMA control; ALTER DATABASE theirs OWNER TO user_of_theirs")
    with pytest.raises(DatabaseUnavailable, match="has the rights of pg_database_owner"):
        opened(url, tmp_path)


def test_a_database_of_an_older_version_is_left_alone(
    login: Callable[[str, str], str], fresh_server: str, tmp_path: Path
) -> None:
    with pytest.raises(DatabaseUnavailable, match="may not take the role churnguard_app") as caught:
        opened(login("", "empty"), tmp_path)
    assert "churnguard migrate" in str(caught.value.remedy)
    owner_url = on_database(fresh_server, "empty")
    store = set_up(owner_url, tmp_path)
    with psycopg.connect(owner_url) as administrator:
        administrator.execute("UPDATE control.alembic_version SET version_num = '0001'")
    with pytest.raises(DatabaseUnavailable, match=r"is 0001; this version of ChurnGuard needs") as caught:
        opened(store.database_url, tmp_path)
    assert "churnguard migrate" in str(caught.value.remedy)
    store.close()


def test_the_command_makes_the_services_login_and_says_its_url_once(
    login: Callable[[str, str], str],
    fresh_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    login("", "ours")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHURNGUARD_DATABASE_URL", raising=False)
    monkeypatch.setenv("CHURNGUARD_HOME", str(tmp_path))
    monkeypatch.setenv("CHURNGUARD_OWNER_DATABASE_URL", on_database(fresh_server, "ours"))
    with pytest.raises(DatabaseUnavailable, match="without CHURNGUARD_DATABASE_URL"):
        Store.open(load_settings())
    migrate.migrate()
    (line,) = shlex.split(capsys.readouterr().out.splitlines()[-1])  # as a shell reads it
    url = line.removeprefix("CHURNGUARD_DATABASE_URL=")
    opened(url, tmp_path).close()
    with pytest.raises(InvalidConfiguration, match="was made before"):
        migrate.migrate()
    monkeypatch.setenv("CHURNGUARD_DATABASE_URL", url)
    with closing(Store.open(load_settings())) as store:
        environment = dagster_environment(store)
    assert environment["CHURNGUARD_DATABASE_URL"] == url
    assert "CHURNGUARD_OWNER_DATABASE_URL" not in environment


# A database of version 0.1.0: all of it belongs to whoever ran the product.
FORMER = """
CREATE TABLE raw.stripe_customers (organization_id text, integration_id text, id text, extra jsonb);
ALTER TABLE raw.stripe_customers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT ON raw.stripe_customers TO churnguard_operator;
CREATE TABLE ingest.webhook_inbox_20260101 PARTITION OF ingest.webhook_inbox FOR VALUES FROM ('2026-01-01') TO
    ('2026-01-02');
"""


@pytest.mark.parametrize("attributes", ["SUPERUSER", "CREATEROLE CREATEDB"])
def test_a_database_that_belonged_to_its_user_is_taken_over(
    login: Callable[[str, str], str], fresh_server: str, tmp_path: Path, attributes: str
) -> None:
    owner_url = login(attributes, "former")
    with psycopg.connect(fresh_server, autocommit=True) as administrator:
        administrator.execute("ALTER DATABASE former OWNER TO user_of_former")
    with psycopg.connect(owner_url, autocommit=True) as former:
        for role in GROUPS:  # the first migrations name some of today's
            former.execute(SQL("CREATE ROLE {}").format(Identifier(role)))
        former.execute("CREATE DATABASE dagster")
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(owner_url), poolclass=sa.NullPool
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA control")
        schema.upgrade(connection, "0009")
        connection.exec_driver_sql(FORMER)
    engine.dispose()
    with psycopg.connect(on_database(owner_url, "dagster")) as dagster:
        dagster.execute("CREATE TABLE runs (id serial PRIMARY KEY)")
    store = set_up(owner_url, tmp_path)
    with psycopg.connect(on_database(fresh_server, "former")) as administrator:
        owners = administrator.execute(
            "SELECT DISTINCT nspname, pg_get_userbyid(relowner), pg_get_userbyid(nspowner) "
            "FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
            "WHERE nspname IN ('control', 'ingest', 'raw', 'analytics')"
        ).fetchall()
    assert set(owners) == {
        *((name, "churnguard_owner", "churnguard_owner") for name in ("control", "ingest", "analytics")),
        ("raw", "churnguard_raw", "churnguard_owner"),
    }
    assert inbox.forget(store, date(2026, 6, 1)) == 1
    Warehouse(store).ensure(Table("stripe", "customers", "id", (Column("name", TEXT),)))
    with psycopg.connect(store.dagster_database_url.replace("+psycopg2", "")) as dagster:
        dagster.execute("INSERT INTO runs DEFAULT VALUES")
        dagster.execute("ALTER TABLE runs ADD COLUMN name text")
    store.close()


def test_a_database_that_was_restored_without_its_owners_is_taken_over(
    login: Callable[[str, str], str], fresh_server: str, tmp_path: Path
) -> None:
    """As `pg_restore --no-owner` leaves it: all of it belongs to whoever ran that, views and functions too."""
    owner_url = login("SUPERUSER", "restored")
    table = Table("stripe", "customers", "id", (Column("name", TEXT),))
    view = View("acme_customers", table.name, "acme", "acme", (ViewColumn("name", "name"),))
    with closing(set_up(owner_url, tmp_path)) as store:
        Warehouse(store).ensure(table)
        with store.operator() as connection:
            views.put(connection, view)
        url = store.database_url
    with psycopg.connect(owner_url) as restorer:
        restorer.execute("REASSIGN OWNED BY churnguard_owner, churnguard_raw TO user_of_restored")
    setup.set_up(owner_url, url)
    with closing(opened(url, tmp_path)) as store:
        Warehouse(store).ensure(replace(table, columns=(*table.columns, Column("email", TEXT))))
        with store.operator() as connection:
            views.put(connection, replace(view, columns=(*view.columns, ViewColumn("email", "email"))))
    with psycopg.connect(owner_url) as administrator:
        owners = administrator.execute(
            "SELECT DISTINCT pronamespace::regnamespace::text, proowner::regrole::text FROM pg_proc "
            "WHERE pronamespace::regnamespace::text IN ('control', 'views')"
        ).fetchall()
    assert set(owners) == {("control", "churnguard_owner"), ("views", "churnguard_owner")}


def test_a_database_with_another_encoding(fresh_server: str, tmp_path: Path) -> None:
    with psycopg.connect(fresh_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    with pytest.raises(DatabaseUnavailable, match="encoding LATIN1"):
        set_up(on_database(fresh_server, "latin"), tmp_path)


def test_a_server_that_is_too_old(monkeypatch: pytest.MonkeyPatch, store: Store, tmp_path: Path) -> None:
    monkeypatch.setattr(server, "OLDEST_VERSION", 99)
    with pytest.raises(DatabaseUnavailable, match=r"runs PostgreSQL 18.*99 or newer"):
        opened(store.database_url, tmp_path)


def test_a_connection_that_breaks_is_said_and_the_next_one_works(store: Store) -> None:
    with pytest.raises(DatabaseUnavailable, match="broke"), store.organization("acme") as connection:  # noqa: PT012
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        with psycopg.connect(as_administrator(store.database_url)) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
        connection.exec_driver_sql("SELECT 1")
    with store.organization("acme") as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_a_connection_that_was_ended_while_it_rested_is_replaced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "TRUSTED_SECONDS", 0.0)
    with store.organization("acme") as connection:
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    with psycopg.connect(as_administrator(store.database_url)) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
    with store.organization("acme") as connection:
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() != backend


def test_connections_that_were_ended_while_they_were_trusted_are_replaced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "TRUSTED_SECONDS", 600.0)
    with store.organization("acme"), store.organization("globex"), store.operator():
        pass
    with psycopg.connect(as_administrator(store.database_url)) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with store.organization("acme") as first, store.organization("globex") as second, store.operator() as third:
        assert [each.exec_driver_sql("SELECT 1").scalar() for each in (first, second, third)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "postgresql://u:p%40ss@h:5433/db?sslmode=require",
            "postgresql+psycopg2://u:p%40ss@h:5433/dagster?sslmode=require",
        ),
        ("postgres://h/db", "postgresql+psycopg2://h/dagster"),
        ("postgresql://u@/db?host=/run/pg", "postgresql+psycopg2://u@/dagster?host=%2Frun%2Fpg&port=5432"),
    ],
)
def test_dagsters_database_is_on_the_same_server(given: str, expected: str) -> None:
    assert server.sqlalchemy_url(given, "psycopg2", "dagster") == expected
