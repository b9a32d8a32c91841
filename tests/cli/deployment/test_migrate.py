"""`churnguard migrate` while its database is away, goes away, or is migrated by somebody else, too."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import Popen

import psycopg
import pytest

from churnguard_pipelines.cli.deployment import migrate
from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.store.postgres import schema
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.store.postgres.locks import take_for_set_up
from churnguard_pipelines.store.postgres.row_security import SERVICE
from churnguard_pipelines.store.postgres.server import DAGSTER_DATABASE
from tests.cli.deployment.process import running
from tests.conftest import on_database, settings_for
from tests.waiting import wait_for

CANARY = "s3cret-canary"
WAITS_FOR_A_LOCK = "SELECT FROM pg_stat_activity WHERE application_name = 'churnguard' AND wait_event_type = 'Lock'"


@pytest.fixture
def server(short_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server with an empty database, as somebody's own."""
    own = EmbeddedPostgres(short_path)
    own.start()
    yield own
    own.stop()


@pytest.fixture
def environment(server: EmbeddedPostgres, tmp_path: Path) -> dict[str, str]:
    """Of whoever migrates; the services' password was chosen before."""
    return {
        "PATH": os.environ["PATH"],
        "CHURNGUARD_HOME": str(tmp_path),
        "CHURNGUARD_OWNER_DATABASE_URL": server.url(),
        "CHURNGUARD_DATABASE_URL": server.url(SERVICE).replace(f"{SERVICE}:", f"{SERVICE}:{CANARY}", 1),
    }


def revision(environment: Mapping[str, str]) -> str:
    with psycopg.connect(environment["CHURNGUARD_OWNER_DATABASE_URL"]) as connection:
        return str(connection.execute("SELECT version_num FROM control.alembic_version").fetchone()[0])  # type: ignore[index]


def migrates(environment: Mapping[str, str]) -> str:
    """What it says when all is well."""
    with running(environment, "migrate") as (process, log):
        assert process.wait(60) == 0, log.read_text()
    return log.read_text()


def fails(process: Popen[bytes], log: Path) -> str:
    """What it says: what happened on one line, what to do on the next, and no secret."""
    assert process.wait(60) == 1
    said = log.read_text()
    assert [line.split()[0] for line in said.splitlines()] == ["✗", "→"] or pytest.fail(said)
    assert CANARY not in said
    return said


def test_a_database_that_is_away_is_one_message_and_the_next_try_works(
    environment: dict[str, str], server: EmbeddedPostgres
) -> None:
    server.stop()
    with running(environment, "migrate") as (process, log):
        said = fails(process, log)
    assert "cannot connect to churnguard on " in said
    assert "CHURNGUARD_OWNER_DATABASE_URL" in said, "that is the URL which was tried"
    server.start()
    assert "is up to date" in migrates(environment)
    assert revision(environment) == schema.expected_revision()


@contextmanager
def halfway(environment: Mapping[str, str]) -> Iterator[tuple[Popen[bytes], Path]]:
    """The process and its log, while it waits somewhere among the migrations."""
    owner_url = environment["CHURNGUARD_OWNER_DATABASE_URL"]
    holder, observer = psycopg.connect(owner_url), psycopg.connect(owner_url, autocommit=True)
    with closing(holder), closing(observer), running(environment, "migrate") as (process, log):
        holder.execute("CREATE SCHEMA analytics")
        wait_for(lambda: observer.execute(WAITS_FOR_A_LOCK).rowcount)
        yield process, log


def nothing_is_there_and_the_next_try_works(environment: Mapping[str, str]) -> None:
    with psycopg.connect(environment["CHURNGUARD_OWNER_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT to_regnamespace('control')").fetchone() == (None,)
    migrates(environment)
    assert revision(environment) == schema.expected_revision()


def test_a_server_that_stops_meanwhile_leaves_nothing_half_made(
    environment: dict[str, str], server: EmbeddedPostgres
) -> None:
    with halfway(environment) as (process, log):
        server.stop()
        assert "broke the migration off: terminating connection" in fails(process, log)
    server.start()
    nothing_is_there_and_the_next_try_works(environment)


def test_asked_to_end_it_leaves_nothing_half_made(environment: dict[str, str]) -> None:
    """As a Job is that took too long."""
    with halfway(environment) as (process, log):
        process.terminate()
        assert process.wait(60) == 130
        assert log.read_text() == ""
    nothing_is_there_and_the_next_try_works(environment)


def test_two_at_once_make_one_schema(environment: dict[str, str]) -> None:
    with running(environment, "migrate") as (first, log), running(environment, "migrate") as (second, other_log):
        assert (first.wait(60), second.wait(60)) == (0, 0), log.read_text() + other_log.read_text()
    assert revision(environment) == schema.expected_revision()
    with closing(
        Store.open(settings_for(Path(environment["CHURNGUARD_HOME"]), environment["CHURNGUARD_DATABASE_URL"]))
    ):
        pass


def test_rights_in_dagsters_database_are_granted_by_one_at_a_time(environment: dict[str, str]) -> None:
    """Of two at the same moment PostgreSQL would refuse one."""
    owner_url = environment["CHURNGUARD_OWNER_DATABASE_URL"]
    with psycopg.connect(owner_url, autocommit=True) as observer:
        observer.execute(f"CREATE DATABASE {DAGSTER_DATABASE}")
        with psycopg.connect(on_database(owner_url, DAGSTER_DATABASE)) as other:
            take_for_set_up(other)
            other.execute("GRANT CREATE ON SCHEMA public TO pg_monitor")
            with running(environment, "migrate") as (process, log):
                wait_for(lambda: observer.execute(WAITS_FOR_A_LOCK).rowcount)
                other.commit()
                other.close()
                assert process.wait(60) == 0, log.read_text()


def test_of_two_at_once_that_make_the_login_one_says_its_url(environment: dict[str, str]) -> None:
    del environment["CHURNGUARD_DATABASE_URL"]
    with running(environment, "migrate") as (first, log), running(environment, "migrate") as (second, other_log):
        assert sorted((first.wait(60), second.wait(60))) == [0, 1]
    made, refused = (log, other_log) if first.returncode == 0 else (other_log, log)
    assert "was made before" in fails(second if refused is other_log else first, refused)
    (line,) = shlex.split(made.read_text().splitlines()[-1])
    with psycopg.connect(line.removeprefix("CHURNGUARD_DATABASE_URL=")):
        pass


@pytest.mark.parametrize("variable", ["CHURNGUARD_OWNER_DATABASE_URL", "CHURNGUARD_DATABASE_URL"])
@pytest.mark.parametrize("password", [f"{CANARY}%zz", f"{CANARY}@x", f"1/{CANARY}"])
def test_a_url_that_is_none_is_named_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, password: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHURNGUARD_OWNER_DATABASE_URL", "postgresql://admin:x@127.0.0.1:1/churnguard")
    monkeypatch.setenv(variable, f"postgresql://somebody:{password}@127.0.0.1:1/churnguard")
    with pytest.raises(DatabaseUnavailable, match=f"^{variable} is not a well-formed") as caught:
        migrate.migrate()
    assert CANARY not in str(caught.value)
