"""Salesforce's change events while a session is warm: from the change until a query finds its row, on one clock."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
import uuid
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import psycopg

from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.sandbox.serve import serve
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.changes import ChangeLogs
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.sync import sync_integration
from tests.bench.harness import Row
from tests.conftest import as_administrator
from tests.waiting import wait_for

NAME = "bench-pubsub"
RATE = 100  # changes a second
SECONDS = 20
PATIENCE = 60.0


def row(store: Store, area: str) -> Row:
    context = multiprocessing.get_context("spawn")
    asked: Queue[str] = context.Queue()
    told: Queue[Any] = context.Queue()
    business = context.Process(target=_business, args=(asked, told))
    business.start()
    try:
        replace_integration(store, _integration(*told.get(timeout=PATIENCE)), actor="bench")
        report = sync_integration(store, NAME, sync_id=str(uuid.uuid4()))
        assert report.status == "succeeded", report
        lags = sorted(_followed(store, asked, told))
    finally:
        asked.put("end")
        business.join(PATIENCE)
    p50, p99 = lags[len(lags) // 2] * 1000, lags[int(len(lags) * 0.99)] * 1000
    return Row(area, "pubsub_warm", "changes/s", RATE, None, None, None, p50, p99)


def _business(asked: Queue[str], told: Queue[Any]) -> None:
    """In a process of its own: changes at the rate, and when each was made."""
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), scale=0) as sandbox:
        pubsub = sandbox.salesforce.pubsub()
        pubsub.keep_alive = 0.5
        told.put((sandbox.url, pubsub.target))
        while (what := asked.get()) != "end":
            made: dict[str, float] = {}
            begun = time.monotonic()
            for number in range(RATE * SECONDS):
                time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
                name = f"{what}-{number}"
                made[name] = time.time()
                sandbox.account("acme").crm("create", kind="company", name=name)
            told.put(made)


def _followed(store: Store, asked: Queue[str], told: Queue[Any]) -> list[float]:
    session = Session(store, str(uuid.uuid4()), ChangeLogs(store), linger=600)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        wait_for(lambda: _is_warm(store), PATIENCE)
        asked.put("warm")
        found: dict[str, float] = {}
        deadline = time.monotonic() + SECONDS + PATIENCE
        with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
            recent = "SELECT name FROM raw.salesforce_account WHERE synced_at > clock_timestamp() - interval '5 s'"
            while len(found) < RATE * SECONDS:
                assert time.monotonic() < deadline, f"{len(found)} of {RATE * SECONDS} came"
                names = [name for (name,) in connection.execute(recent)]
                now = time.time()
                for name in names:
                    found.setdefault(name, now)
                time.sleep(0.01)
        made = told.get(timeout=PATIENCE)
        return [found[name] - at for name, at in made.items()]
    finally:
        session.stop()
        thread.join()


def _is_warm(store: Store) -> bool:
    with store.operator() as connection:
        statement = f"SELECT position FROM ingest.checkpoints WHERE integration_id = '{NAME}' AND lane = 'changes'"
        return bool(connection.exec_driver_sql(statement).scalar_one()["replay"])


def _integration(url: str, target: str) -> IntegrationConfiguration:
    return IntegrationConfiguration.model_validate(
        {
            "integration_id": NAME,
            "organization_id": "bench-crm",
            "integration_name": NAME,
            "integration_type": "crm",
            "provider_name": "salesforce",
            "base_url": url,
            "credentials": {
                "credential_type": "bearer",
                "access_token": "00Dsandbox_acme",
                "custom_fields": {"pubsub_url": f"http://{target}"},
            },
            "sync_config": {"requests_per_minute": 60_000, "sync_mode": "real_time", "objects": ["Account"]},
        }
    )
