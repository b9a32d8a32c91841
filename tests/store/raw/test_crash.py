"""kill -9 at any point: the checkpoint and the rows always agree, and a re-run completes without loss or doubles."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.records import TEXT, Column, Lane, Table
from churnguard_pipelines.store.ingest import checkpoints
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator
from tests.soak import SOAK

pytestmark = [pytest.mark.slow, pytest.mark.soak]

KILLS = 100 if SOAK else 4
BATCHES, SIZE = KILLS * 7, 50
THINGS = Table("test", "things", "id", (Column("name", TEXT),), versioned=True)
LANE = Lane("acme", "acme-things", "things")

# Reads a source of numbered records batch by batch, from its checkpoint on; says each batch that is committed.
WRITER = """
from pathlib import Path
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.ingest import checkpoints
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.store.raw.test_crash import BATCHES, LANE, SIZE, THINGS

store = Store.open(load_settings())
warehouse = Warehouse(store)
warehouse.ensure(THINGS)
with store.organization(LANE.organization_id) as connection:
    checkpoint = checkpoints.load(connection, LANE)
for batch in range(checkpoint.position["batch"] + 1 if checkpoint else 0, BATCHES):
    rows = [(str(n), batch + 1, f"thing {n}", None) for n in range(batch * SIZE, (batch + 1) * SIZE)]
    with warehouse.transaction(LANE.organization_id) as transaction:
        transaction.upsert(THINGS, LANE.integration_id, rows)
        checkpoint = transaction.advance(LANE, checkpoint, {"batch": batch}, "source")
    print(batch, flush=True)
store.close()
"""


def test_killed_at_random_points_nothing_is_lost_or_doubled(store: Store) -> None:
    chance = random.Random(20260101)
    for _ in range(KILLS):
        said = run_and_kill(store, after=chance.randrange(0, 5))
        at = position(store)
        assert at >= said, "what was reported as committed is committed"
        assert stored(store) == list(range((at + 1) * SIZE)), "rows reach exactly as far as the checkpoint"
    finish = subprocess.Popen([sys.executable, "-c", WRITER], env=environment(store), stdout=subprocess.DEVNULL)
    assert finish.wait() == 0
    assert position(store) == BATCHES - 1
    assert stored(store) == stored(store, "_versions") == list(range(BATCHES * SIZE))


def run_and_kill(store: Store, after: int) -> int:
    """Kill the writer at work on the batch after ``after`` more; returns the last one that it reported."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER], env=environment(store), stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert writer.stdout is not None
    said = [line for line, _ in zip(writer.stdout, range(after), strict=False)]
    writer.kill()
    said += writer.communicate()[0].splitlines()
    wait_for_its_backends(store)
    return int(said[-1]) if said else -1


def wait_for_its_backends(store: Store) -> None:
    """The server notices a killed client a little later; until then its transaction is open."""
    end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute(f"{end} WHERE {others}")


def environment(store: Store) -> dict[str, str]:
    return {**os.environ, "CHURNGUARD_DATABASE_URL": store.database_url, "CHURNGUARD_HOME": str(store.settings.home)}


def position(store: Store) -> int:
    with store.organization("acme") as connection:
        checkpoint = checkpoints.load(connection, LANE)
    return int(checkpoint.position["batch"]) if checkpoint else -1


def stored(store: Store, suffix: str = "") -> list[int]:
    with store.organization("acme") as connection:
        if connection.scalar(sa.text("SELECT to_regclass('raw.test_things')")) is None:
            return []
        rows = connection.scalars(sa.text(f"SELECT id::int FROM raw.test_things{suffix} ORDER BY id::int"))
        return list(rows)
