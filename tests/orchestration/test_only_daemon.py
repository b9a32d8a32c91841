"""Two daemons of one database would start everything twice: one works, the other waits for its end."""

from __future__ import annotations

import logging
import threading

import psycopg
import pytest

from churnguard_pipelines.orchestration.roles import daemon
from churnguard_pipelines.orchestration.roles.daemon import OnlyOne
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator
from tests.waiting import PATIENCE_SECONDS, wait_for

HOLDERS = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 5 AND granted
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "LOOK_EVERY", 0.02)


def holders(store: Store) -> list[int]:
    """The server's processes of the connections that hold the daemons' lock."""
    with psycopg.connect(as_administrator(store.database_url)) as administrator:
        return [pid for (pid,) in administrator.execute(HOLDERS)]


def end_connection_of_the_one_that_works(store: Store) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as administrator:
        administrator.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM ({HOLDERS}) AS holder")


def test_a_second_one_says_so_once_and_works_when_the_first_has_ended(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    first, other = OnlyOne(store.database_url), OnlyOne(store.database_url)
    first.wait()
    second = threading.Thread(target=other.wait, daemon=True)
    second.start()
    wait_for(lambda: "another daemon works on this database" in caplog.text)
    end_connection_of_the_one_that_works(store)  # as the end of its process does
    second.join(PATIENCE_SECONDS)
    assert not second.is_alive()
    assert caplog.text.count("another daemon") == 1


def test_one_whose_connection_broke_takes_the_lock_again(store: Store) -> None:
    first, other = OnlyOne(store.database_url), OnlyOne(store.database_url)
    first.wait()
    keeping = threading.Thread(target=first.keep, daemon=True)
    keeping.start()
    before = holders(store)
    end_connection_of_the_one_that_works(store)
    wait_for(lambda: holders(store) not in ([], before))

    second = threading.Thread(target=other.wait, daemon=True)
    second.start()

    def gave_way() -> bool:
        if second.is_alive():
            end_connection_of_the_one_that_works(store)
        return not keeping.is_alive()

    wait_for(gave_way)


def test_one_whose_connection_broke_ends_if_another_has_taken_over_meanwhile(store: Store) -> None:
    first, second = OnlyOne(store.database_url), OnlyOne(store.database_url)
    first.wait()
    end_connection_of_the_one_that_works(store)
    second.wait()
    first.keep()
