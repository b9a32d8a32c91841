"""Every table equals its source, row by row, whatever was killed: the source, the session, the warehouse's server.

Random transactions of random size run meanwhile, and the first sync is killed in its middle, too. Six kills here, sixty
with CHURNGUARD_SOAK=1. The seed is in the test's id.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from churnguard_pipelines.connectors.change_lane import load_checkpoint
from churnguard_pipelines.connectors.sync import sync_integration
from churnguard_pipelines.model import IntegrationCredentials, IntegrationType, Organization
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.database import Store
from churnguard_pipelines.store.embedded import EmbeddedPostgres
from churnguard_pipelines.store.integrations import add_integration
from churnguard_pipelines.store.organizations import add_organization
from tests.conftest import configuration, settings_for
from tests.connectors.postgresql.conftest import in_source, mirrored
from tests.sources.postgresql import PASSWORD, PostgreSQLServer
from tests.waiting import wait_for

KILLS = 60 if os.environ.get("CHURNGUARD_SOAK") == "1" else 6
VICTIMS = ("session", "source", "warehouse")
USERS, PAIRS = ("id", "email", "body", "paid", "at"), ("a", "b", "n")
OPEN = """
import logging, sys
from churnguard_pipelines.connectors.change_session import ChangeSession
from churnguard_pipelines.connectors.sync import sync_integration
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.database import Store
store = Store.open(load_settings(), migrate=False)
"""
SESSION = OPEN + "ChangeSession(store, sys.argv[1], linger=600).run()"
SYNC = OPEN + "sync_integration(store, 'acme-db', sync_id=sys.argv[1])"

pytestmark = pytest.mark.timeout(3600 if KILLS > 6 else 300)


class Product:
    """A customer's application: it writes all the time, and goes on after its database was away."""

    def __init__(self, server: PostgreSQLServer, chance: random.Random) -> None:
        self._server, self._chance = server, chance
        self._ended = threading.Event()
        self.transactions = 0
        with server.connect() as connection:
            connection.execute(
                "CREATE TABLE users (id int PRIMARY KEY, email text, body text, paid numeric(12,2), at timestamptz)"
            )
            connection.execute("ALTER TABLE users ALTER body SET STORAGE EXTERNAL")
            connection.execute("CREATE TABLE pairs (a int, b text, n bigint, PRIMARY KEY (a, b))")
            connection.execute(
                "INSERT INTO users SELECT n, 'u' || n, repeat('x', 3000), n, now() FROM generate_series(1, 20000) n"
            )
            connection.execute("INSERT INTO pairs SELECT n % 50, 'p' || n, n FROM generate_series(1, 5000) n")
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.is_set():
            # A key that is taken, or the server is away: the next transaction comes all the same.
            with suppress(psycopg.OperationalError, psycopg.IntegrityError), self._server.connect() as connection:
                while not self._ended.is_set():
                    self._transaction(connection)
            self._ended.wait(0.05)

    def _transaction(self, connection: psycopg.Connection[Any]) -> None:
        chance = self._chance
        with connection.transaction():
            for _ in range(chance.choice((1, 1, 3, 20))):
                low = chance.randrange(1, 25_000)
                self._one(connection, chance.randrange(8), low, low + chance.choice((0, 0, 5, 100)))
            if chance.random() < 0.1:
                raise psycopg.Rollback
        self.transactions += 1
        self._ended.wait(0.005)

    def _one(self, connection: psycopg.Connection[Any], kind: int, low: int, high: int) -> None:
        moved = self._chance.randrange(30_000, 2_000_000_000)
        span = f"BETWEEN {low} AND {high}"
        rows, ids, numbers = f"generate_series({low}, {high}) n", f"id {span}", f"n {span}"
        connection.execute(
            (
                f"INSERT INTO users SELECT n, 'n' || n, repeat('y', 2500), n, now() FROM {rows} ON CONFLICT DO NOTHING",
                f"UPDATE users SET email = left(email, 50) || '!', at = now() WHERE {ids}",
                f"UPDATE users SET body = repeat('z', 2200), paid = paid + 1 WHERE {ids}",
                f"DELETE FROM users WHERE {ids}",
                f"UPDATE users SET id = {moved} WHERE id = {low}",
                f"INSERT INTO pairs SELECT n % 50, 'q' || n, n FROM {rows} ON CONFLICT DO NOTHING",
                f"UPDATE pairs SET b = left(b, 50) || '+' WHERE {numbers}",
                f"DELETE FROM pairs WHERE {numbers}",
            )[kind]
        )


class Installation:
    """The warehouse, and one process at a time that syncs or follows."""

    def __init__(self, home: Path, source: PostgreSQLServer) -> None:
        self.postgres = EmbeddedPostgres(home)
        settings = settings_for(home, self.postgres.start())
        self.store = Store.open(settings)
        assert settings.encryption_key is not None
        self._environment = os.environ | {
            "CHURNGUARD_HOME": str(home), "CHURNGUARD_DATABASE_URL": self.store.database_url,
            "INTEGRATION_ENCRYPTION_KEY": settings.encryption_key.get_secret_value(),
        }  # fmt: skip
        self._log = (home / "processes.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0
        add_organization(self.store, Organization(organization_id="acme", name="Acme"), actor="test")
        where = {"host": "127.0.0.1", "port": str(source.port), "database": "postgres"}
        credentials = {
            "credential_type": "basic_auth",
            "username": "owner",
            "password": PASSWORD,
            "custom_fields": where,
        }
        made = configuration(
            "acme-db", integration_type=IntegrationType.DATABASE, provider_name="postgresql",
            credentials=IntegrationCredentials.model_validate(credentials), sync_config={"sync_mode": "real_time"},
        )  # fmt: skip
        add_integration(self.store, made, actor="test")

    def start(self, program: str) -> None:
        self._number += 1
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, f"process-{self._number}"],
            env=self._environment, stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def keep(self) -> None:
        """What Dagster does: a session that ended is followed by another."""
        if self._process is None or self._process.poll() is not None:
            self.start(SESSION)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_warehouse(self) -> None:
        pid = int((self.postgres.data / "postmaster.pid").read_text().splitlines()[0])
        for process in (psutil.Process(pid), *psutil.Process(pid).children()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        self.postgres.start()

    def progress(self) -> tuple[int, ...]:
        """How often the lanes have moved."""
        lanes = (load_checkpoint(self.store, Lane("acme", "acme-db", name)) for name in ("changes", "users", "pairs"))
        return tuple(checkpoint.version if checkpoint else 0 for checkpoint in lanes)

    def page_of(self, table: str) -> int:
        """Before which every row of the table is stored."""
        checkpoint = load_checkpoint(self.store, Lane("acme", "acme-db", table))
        assert checkpoint is None or not checkpoint.position["complete"], "too late"
        return checkpoint.position["next"][1] if checkpoint and checkpoint.position["next"] else 0

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._log.close()
        self.store.close()
        self.postgres.stop()


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="churnguard-ledger-"))
    folder.chmod(0o755)
    for name in ("source", "warehouse"):
        (folder / name).mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20261124])
def test_every_table_equals_its_source_after_kills(home: Path, seed: int) -> None:
    chance = random.Random(seed)
    source = PostgreSQLServer(home / "source")
    source.start()
    product = Product(source, random.Random(seed + 1))
    ours = Installation(home / "warehouse", source)
    try:
        ours.start(SYNC)
        wait_for(lambda: ours.progress()[1] >= 2)  # in the middle of the first table's copy, or a little after
        ours.kill()
        sync_integration(ours.store, "acme-db", sync_id="first")
        killed = dict.fromkeys(VICTIMS, 0)
        for number in range(KILLS):
            ours.keep()
            before = ours.progress()
            wait_for(lambda before=before: ours.progress() > before)  # type: ignore[misc]
            victim = VICTIMS[number % len(VICTIMS)]
            threading.Event().wait(chance.random() * 0.5)  # anywhere in what it does
            if victim == "session":
                ours.kill()
            elif victim == "source":
                source.kill()
                source.start()
            else:
                ours.kill_warehouse()
            killed[victim] += 1
        product.stop()
        ours.keep()

        def equal() -> bool:
            ours.keep()
            with source.connect() as connection:
                return mirrored(ours.store, "users", *USERS) == in_source(connection, "users", *USERS) and mirrored(
                    ours.store, "pairs", *PAIRS
                ) == in_source(connection, "pairs", *PAIRS)

        wait_for(equal, 120)
        assert set(killed.values()) == {KILLS // len(VICTIMS)}
        assert product.transactions > 20 * KILLS
    finally:
        product.stop()
        ours.stop()
        source.stop()


@pytest.mark.slow
def test_a_snapshot_killed_halfway_goes_on_from_there(home: Path) -> None:
    rows = 1_000_000 if KILLS > 6 else 300_000
    source = PostgreSQLServer(home / "source")
    source.start()
    ours = Installation(home / "warehouse", source)
    try:
        with source.connect() as connection:
            connection.execute("CREATE TABLE users (id int PRIMARY KEY, email text, padding text)")
            connection.execute(
                f"INSERT INTO users SELECT n, 'u' || n, repeat('x', 200) FROM generate_series(1, {rows}) n"
            )
            connection.execute("ANALYZE users")
            (pages,) = connection.execute("SELECT relpages FROM pg_class WHERE relname = 'users'").fetchone() or (0,)
        ours.start(SYNC)
        wait_for(lambda: ours.page_of("users") >= pages / 2)
        ours.kill()
        reached = ours.page_of("users")
        report = sync_integration(ours.store, "acme-db", sync_id="second")
        assert report.objects["users"].counts.read <= rows * (1 - reached / pages) * 1.01
        with source.connect() as connection:
            assert mirrored(ours.store, "users", "id", "email") == in_source(connection, "users", "id", "email")
    finally:
        ours.stop()
        source.stop()
