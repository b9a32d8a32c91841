"""A sync is killed with SIGKILL again and again; at the end nothing is missing, doubled or altered.

Three kills here, thirty with CHURNGUARD_SOAK=1. The seed is in the test's id, so that a failure can be repeated.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa

from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.conftest import OBJECTS, Register, difference, live, path_of, sync
from tests.soak import SOAK

KILLS = 30 if SOAK else 3
SYNC = """
import sys
from churnguard_pipelines.syncing.sync import sync_integration
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.postgres.database import Store
store = Store.open(load_settings())
print("ready", flush=True)
sync_integration(store, "acme-stripe", sync_id=sys.argv[1])
"""
PATIENCE_SECONDS = 60


def environment(store: Store) -> dict[str, str]:
    assert store.settings.encryption_key is not None
    return os.environ | {
        "CHURNGUARD_DATABASE_URL": store.database_url,
        "CHURNGUARD_HOME": str(store.settings.home),
        "INTEGRATION_ENCRYPTION_KEY": store.settings.encryption_key.get_secret_value(),
    }


def committed(store: Store, sync_id: str) -> int:
    """Records that stand, by the ledger, which is written in the same transactions."""
    with store.operator() as connection:
        statement = sa.text("SELECT coalesce(sum(read), 0) FROM ingest.sync_objects WHERE sync_id = :id")
        return int(connection.scalar(statement, {"id": sync_id}) or 0)


def kill_after(store: Store, sync_id: str, records: int) -> bool:
    """Start a sync and kill it once ``records`` are stored; False if it was done before."""
    process = subprocess.Popen(
        [sys.executable, "-c", SYNC, sync_id], env=environment(store), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None:
            assert time.monotonic() < deadline, "the sync neither goes on nor ends"
            if committed(store, sync_id) >= records:
                process.send_signal(signal.SIGKILL)
                break
        return process.wait() == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [20261123])
def test_killed_syncs_lose_double_and_alter_nothing(
    store: Store, world: Sandbox, register: Register, seed: int
) -> None:
    register(world, batch_size=100)  # many small transactions: more points to die at
    chance = random.Random(seed)
    total = sum(len(world.account("acme").objects(path_of(name))) for name in OBJECTS)
    killed = 0
    for number in range(KILLS):
        killed += kill_after(store, f"killed-{number}", chance.randrange(1, max(total // KILLS, 2)))
    assert killed >= 1
    assert sync(store).status == "succeeded"
    for name, item in OBJECTS.items():
        sent = {record["id"]: record for record in world.account("acme").objects(path_of(name))}
        stored = live(store, name)
        assert stored.keys() == sent.keys(), f"{name}: missing {sent.keys() - stored.keys()}"
        if name in ("subscriptions", "invoices"):  # read with expansions: compare what is not expanded
            assert {key: row["status"] for key, row in stored.items()} == {key: r["status"] for key, r in sent.items()}
        elif name != "events":
            expanded = {path.partition(".")[0] for path in item.options.expand}
            wrong = {(key, column) for key, row in stored.items() for column in difference(item, row, sent[key])}
            assert {each for each in wrong if each[1] not in expanded} == set()
