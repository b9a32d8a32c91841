"""Where the server's clock shows another zone's time."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import sqlalchemy as sa

from churnguard_pipelines.orchestration.processes.heartbeats import daemon_age_seconds
from churnguard_pipelines.store.postgres import setup
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.store.postgres.row_security import SERVICE
from tests.conftest import opened_on


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
