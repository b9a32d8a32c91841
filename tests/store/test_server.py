"""A given database: what is wrong with it is said clearly, with the remedy, and without the password."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.store import server
from churnguard_pipelines.store.database import Store
from churnguard_pipelines.store.embedded import EmbeddedPostgres
from tests.conftest import as_administrator, settings_for

CANARY = "s3cret-canary"


@pytest.fixture(scope="module")
def fresh_server() -> Iterator[str]:
    """A server of its own, without our roles; it lets in users of the group ``logins`` with their passwords."""
    import shutil
    import tempfile

    home = Path(tempfile.mkdtemp(prefix="churnguard-test-"))
    home.chmod(0o755)
    own = EmbeddedPostgres(home)
    url = own.start()
    hba = own.data / "pg_hba.conf"
    hba.write_text("local all +logins scram-sha-256\n" + hba.read_text())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE logins; SELECT pg_reload_conf()")
    yield url
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
            statement = SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE logins " + attributes)
            connection.execute(statement.format(Identifier(user), CANARY))
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(database)))
            connection.execute("SELECT pg_reload_conf()")
        return fresh_server.replace("postgres@/churnguard", f"{user}:{CANARY}@/{database}")

    yield make
    with psycopg.connect(fresh_server, autocommit=True) as connection:
        for user, database in made:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(database)))
            connection.execute(SQL("DROP DATABASE IF EXISTS dagster WITH (FORCE)"))
            connection.execute(SQL("DROP OWNED BY {u} CASCADE").format(u=Identifier(user)))
            connection.execute("DROP ROLE IF EXISTS churnguard_app, churnguard_operator")
            connection.execute(SQL("DROP ROLE {}").format(Identifier(user)))


def opened(url: str, home: Path) -> Store:
    return Store.open(settings_for(home, url))


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
    with pytest.raises(DatabaseUnavailable, match='database "nowhere" does not exist'):
        opened(server_url.replace("/churnguard?", "/nowhere?"), tmp_path)


def test_every_missing_right_is_named_with_the_sql_that_grants_it(
    login: Callable[[str, str], str], fresh_server: str, tmp_path: Path
) -> None:
    url = login("", "poor")
    with pytest.raises(DatabaseUnavailable, match="no right to create schemas") as caught:
        opened(url, tmp_path)
    assert CANARY not in str(caught.value)
    remedy = str(caught.value.remedy).removeprefix("Run as the server's administrator: ")
    with psycopg.connect(fresh_server, autocommit=True) as administrator:
        for statement in remedy.split(";"):
            if statement.strip():
                administrator.execute(statement)
    store = opened(url, tmp_path)
    assert CANARY not in f"{store!r} {store.described}"
    with store.operator() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM control.organizations").scalar() == 0
    store.close()


def test_a_user_who_may_create_roles_and_databases_needs_nothing_more(
    login: Callable[[str, str], str], fresh_server: str, tmp_path: Path
) -> None:
    url = login("CREATEROLE CREATEDB", "able")
    with psycopg.connect(fresh_server, autocommit=True) as administrator:
        administrator.execute("GRANT CREATE ON DATABASE able TO user_of_able")
    store = opened(url, tmp_path)
    with store.organization("acme") as connection:
        assert connection.exec_driver_sql("SELECT current_user").scalar() == "churnguard_app"
    store.close()
    opened(url, tmp_path).close()


def test_roles_that_somebody_else_made(login: Callable[[str, str], str], fresh_server: str, tmp_path: Path) -> None:
    url = login("CREATEROLE CREATEDB", "second")
    with psycopg.connect(fresh_server, autocommit=True) as administrator:
        administrator.execute("GRANT CREATE ON DATABASE second TO user_of_second")
        administrator.execute("CREATE ROLE churnguard_app; CREATE ROLE churnguard_operator")
    with pytest.raises(DatabaseUnavailable, match="may not take the role") as caught:
        opened(url, tmp_path)
    assert "GRANT churnguard_app, churnguard_operator TO user_of_second;" in str(caught.value.remedy)


def test_a_database_with_another_encoding(fresh_server: str, tmp_path: Path) -> None:
    with psycopg.connect(fresh_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    with pytest.raises(DatabaseUnavailable, match="encoding LATIN1"):
        opened(fresh_server.replace("/churnguard?", "/latin?"), tmp_path)


def test_a_server_that_is_too_old(monkeypatch: pytest.MonkeyPatch, server_url: str, tmp_path: Path) -> None:
    monkeypatch.setattr(server, "OLDEST_VERSION", 99)
    with pytest.raises(DatabaseUnavailable, match=r"runs PostgreSQL 18.*99 or newer"):
        opened(server_url, tmp_path)


def test_a_connection_that_breaks_is_said_and_the_next_one_works(store: Store) -> None:
    with pytest.raises(DatabaseUnavailable, match="broke"), store.organization("acme") as connection:  # noqa: PT012
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        with psycopg.connect(as_administrator(store.database_url)) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
        connection.exec_driver_sql("SELECT 1")
    with store.organization("acme") as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


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
