"""Where the server's clock shows another zone's time."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.orchestration.processes.heartbeats import daemon_age_seconds
from churnguard_pipelines.store.postgres import setup
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.store.postgres.row_security import GROUPS, SERVICE
from tests.conftest import on_database, opened_on


def test_what_dagster_says_of_when_holds_wherever_the_server_is(short_path: Path) -> None:
    """It writes moments with their zone into columns that keep none, and takes what it reads for UTC."""
    server = EmbeddedPostgres(short_path / "server")
    owner_url = server.start()
    try:
        with psycopg.connect(owner_url, autocommit=True) as administrator:
            administrator.execute("ALTER ROLE ALL SET TimeZone = 'America/New_York'")
        with closing(opened_on(server, short_path)) as store:
            dagster = sa.create_engine(store.dagster_database_url, poolclass=sa.NullPool)
            with dagster.begin() as connection:
                connection.exec_driver_sql("CREATE TABLE daemon_heartbeats (timestamp timestamp)")
                connection.exec_driver_sql("INSERT INTO daemon_heartbeats VALUES (%s)", (datetime.now(UTC),))
            age = daemon_age_seconds(store.dagster_database_url)
            assert age is not None
            assert age < 600
            assert store.now().utcoffset() == timedelta(0), "what we say of when is in UTC, too"
            with psycopg.connect(owner_url, autocommit=True) as administrator:
                administrator.execute(f"ALTER ROLE {SERVICE} RESET TimeZone")
            setup.set_up(owner_url, store.database_url)
            with dagster.connect() as connection:
                assert connection.exec_driver_sql("SHOW TimeZone").scalar() == "UTC", "one that was set up before, too"
    finally:
        server.stop()


def test_a_login_that_works_in_utc_by_itself_need_not_be_made_to(short_path: Path) -> None:
    """It is the administrator's, as on a server whose users are made by a form: the owner may not change it."""
    server = EmbeddedPostgres(short_path / "server")
    administrators_url = server.start()
    try:
        with psycopg.connect(administrators_url, autocommit=True) as administrator:
            administrator.execute("CREATE ROLE owner LOGIN CREATEDB PASSWORD 'x'")
            administrator.execute("CREATE DATABASE own OWNER owner")
            administrator.execute(f"CREATE ROLE {SERVICE} LOGIN NOINHERIT PASSWORD 'x'")
            for role in GROUPS:
                administrator.execute(f"CREATE ROLE {role}; GRANT {role} TO owner WITH ADMIN OPTION")
            owner_url, url = (
                re.sub(r"//.*?@", f"//{user}:x@", on_database(administrators_url, "own")) for user in ("owner", SERVICE)
            )

            def refused_where(subject: str) -> None:
                administrator.execute(f"ALTER {subject} SET TimeZone = 'America/New_York'")
                with pytest.raises(DatabaseUnavailable, match=f"have the login {SERVICE} work in UTC") as caught:
                    setup.set_up(owner_url, url)
                assert f"ALTER ROLE \"{SERVICE}\" SET TimeZone = 'UTC';" in str(caught.value.remedy)
                administrator.execute(f"ALTER {subject} RESET TimeZone")

            for subject in ("DATABASE own", f"ROLE {SERVICE}", f"ROLE {SERVICE} IN DATABASE own", "ROLE ALL"):
                refused_where(subject)
            assert not setup.set_up(owner_url, url), "the server is in UTC, and so is whoever says nothing else"
            refused_where("DATABASE dagster")
            administrator.execute("ALTER DATABASE dagster SET TimeZone = 'America/New_York'")
            administrator.execute(f"ALTER ROLE {SERVICE} SET TimeZone = 'UTC'")
            assert not setup.set_up(owner_url, url), "what the login says goes before what a database does"
    finally:
        server.stop()
