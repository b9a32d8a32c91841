"""What a probe of a cluster learns, which has no key: whether the database serves, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator, on_database
from tests.webhook_gateway.dashboard.conftest import MakeKey, bearer
from webhook_gateway.dashboard import probe


@pytest.fixture(autouse=True)
def _ask_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "GOOD_FOR_SECONDS", 0.0)


@contextmanager
def away(store: Store) -> Iterator[None]:
    """The database lets nobody in meanwhile."""
    url = as_administrator(store.database_url)
    with psycopg.connect(on_database(url, "postgres"), autocommit=True) as administrator:
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        door = SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        administrator.execute(door.format(Identifier(str(name)), SQL("false")))
        administrator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        yield
        administrator.execute(door.format(Identifier(str(name)), SQL("true")))


def asked(url: str) -> tuple[int, object]:
    answer = httpx.get(f"{url}/api/dashboard/health")
    return answer.status_code, answer.json()


def test_the_dashboard_is_ready_while_its_database_serves(url: str, store: Store) -> None:
    assert asked(url) == (200, {"status": "healthy"})
    with away(store):
        assert asked(url) == (503, {"status": "unavailable"})
        assert httpx.get(f"{url}/healthz").status_code == 200, "it lives, and a restart would not help"
    assert asked(url) == (200, {"status": "healthy"})


def test_it_is_not_ready_on_a_schema_that_is_older_than_its_code(url: str, store: Store) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as administrator:
        administrator.execute("UPDATE control.alembic_version SET version_num = '0001'")
    assert asked(url) == (503, {"status": "unavailable"})


def test_a_wrong_key_learns_less_and_a_good_one_everything(url: str, make_key: MakeKey) -> None:
    path = f"{url}/api/dashboard/health"
    assert httpx.get(path, headers=bearer("cg_00000000_wrong")).status_code == 401
    assert "components" in httpx.get(path, headers=bearer(make_key()), timeout=30).json()
