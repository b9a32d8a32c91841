"""What the benchmarks of all databases share: the integration `bench` over a table `users`, ours and dlt as programs of
their own, the hand-written floor's table, and the delay from commit to queryable row."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psycopg

from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.ingest.catalogue import entries
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.source import reset_database
from churnguard_pipelines.syncing.sync import sync_integration
from tests.bench.harness import ROUNDS, Row
from tests.conftest import as_administrator

AREA = "databases"
ROWS = 1_000_000
DLT_IS = "dlt 1.31, connectorx, replace"
LATENCY_SECONDS, LATENCY_RATE = 20, 1000
OURS = """
import json, re, sys, time
from pathlib import Path
from churnguard_pipelines.syncing.sync import sync_integration
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.postgres.database import Store
store = Store.open(load_settings(), migrate=False)
begun = time.perf_counter()
report = sync_integration(store, "bench", sync_id=sys.argv[1])
seconds = time.perf_counter() - begun
assert report.status == "succeeded", report
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())  # ru_maxrss has the parent's in it
print(json.dumps([seconds, int(peak[1]) / 1024]))
"""
DLT = """
import json, sys, time
import dlt
from dlt.sources.sql_database import sql_table
source, target = sys.argv[1:]
begun = time.perf_counter()
pipeline = dlt.pipeline("bench", destination=dlt.destinations.postgres(target), dataset_name="dlt_bench")
pipeline.run(sql_table(source, table="users", backend="connectorx", chunk_size=100_000), write_disposition="replace")
print(json.dumps([time.perf_counter() - begun, 0]))
"""
SESSION = """
import sys
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.changes import ChangeLogs
from churnguard_pipelines.syncing.session import Session
store = Store.open(load_settings(), migrate=False)
Session(store, "bench", ChangeLogs(store), linger=600).run()
"""


def register(store: Store, provider: str, password: str, mode: str, **where: str) -> IntegrationConfiguration:
    made = IntegrationConfiguration.model_validate(
        {
            "integration_id": "bench",
            "organization_id": "bench",
            "integration_name": "Bench",
            "integration_type": "database",
            "provider_name": provider,
            "sync_config": {"sync_mode": mode},
            "credentials": {
                "credential_type": "basic_auth",
                "username": "owner",
                "password": password,
                "custom_fields": {"host": "127.0.0.1", **where},
            },
        }
    )
    replace_integration(store, made, actor="bench")
    return made


def mirror(store: Store) -> str:
    return f"raw.{entries(store, 'bench')['users'].raw_table}"


@contextmanager
def floor_table(store: Store) -> Iterator[None]:
    """A table like the mirror, for the hand-written copy."""
    with store.owner() as owner:
        owner.exec_driver_sql(f"CREATE TABLE raw.bench_floor (LIKE {mirror(store)} INCLUDING ALL)")
        for statement in (
            "ALTER TABLE raw.bench_floor ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "CREATE POLICY tenant ON raw.bench_floor USING "
            "(organization_id = current_setting('churnguard.organization_id', true))",
            "GRANT SELECT, INSERT, UPDATE ON raw.bench_floor TO churnguard_app",
        ):
            owner.exec_driver_sql(statement)
    yield
    with store.owner() as owner:
        owner.exec_driver_sql("DROP TABLE raw.bench_floor")


def full_rows(store: Store, made: IntegrationConfiguration, references: Mapping[str, Callable[[], float]]) -> list[Row]:
    """Full syncs into an empty table each time, after a warm-up. ``references``: what they are -> their rows/s."""
    provider = made.provider_name
    sync_integration(store, "bench", sync_id=f"{provider}-warm-up")
    own: list[float] = []
    others: dict[str, list[float]] = {name: [] for name in references}
    peaks: list[float] = []
    with floor_table(store):
        for number in range(ROUNDS):
            clean(store, made)
            took, peak = run_program(OURS, f"{provider}-round-{number}")
            own.append(ROWS / took)
            peaks.append(peak)
            clean(store, made)
            for name, reference in references.items():
                others[name].append(reference())
        clean(store, made)
    ours = statistics.median(own)
    return [
        Row(AREA, f"{provider}_full", "rows/s", ours, rate, name, ours / rate, peak_mib=max(peaks))
        for name, rate in ((name, statistics.median(rates)) for name, rates in others.items())
    ]


def dlt_rate(source: str, target: str) -> float:
    """dlt's rows/s from one database to the other, by their URLs."""
    return ROWS / run_program(DLT, source, target)[0]


def clean(store: Store, made: IntegrationConfiguration) -> None:
    with store.owner() as owner:
        owner.exec_driver_sql(f"TRUNCATE {mirror(store)}, raw.bench_floor")
    reset_database(store, made)
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def write_floor(store: Store, columns: tuple[str, ...], fill: Callable[[psycopg.Cursor], None]) -> float:
    """``fill``: copies all rows into the temporary table `incoming`, whose first column is the key. Returns rows/s."""
    key = columns[0].split()[0]
    names = ", ".join(column.split()[0] for column in columns)
    updates = ", ".join(f"{name} = excluded.{name}" for name in names.split(", ")[1:])
    with psycopg.connect(as_administrator(store.database_url)) as writing, writing.cursor() as cursor:
        begun = time.perf_counter()
        writing.execute("SELECT set_config('role', 'churnguard_app', true)")
        writing.execute("SELECT set_config('churnguard.organization_id', 'bench', true)")
        writing.execute(f"CREATE TEMP TABLE incoming ({', '.join(columns)}) ON COMMIT DROP")
        fill(cursor)
        writing.execute(
            f"INSERT INTO raw.bench_floor (organization_id, integration_id, {names}, source_version, synced_at) "
            f"SELECT 'bench', 'bench', {names}, 1, clock_timestamp() FROM incoming "
            f"ON CONFLICT (organization_id, integration_id, {key}) DO UPDATE SET {updates}, "
            "source_version = excluded.source_version, synced_at = excluded.synced_at "
            "WHERE excluded.source_version >= bench_floor.source_version"
        )
        writing.commit()
        return ROWS / (time.perf_counter() - begun)


def delays(store: Store, insert: Callable[[int, int], None]) -> list[float]:
    """``insert``: commits rows with the ids from … to. Returns, in order, the seconds from a row's commit until it was
    seen in the warehouse, at a steady rate with a warm session."""
    session = subprocess.Popen(
        [sys.executable, "-c", SESSION], env=os.environ | {"CHURNGUARD_DATABASE_URL": store.database_url}
    )
    raw = mirror(store)
    committed: dict[int, float] = {}
    found: dict[int, float] = {}
    ended = threading.Event()
    first = 10_000_000
    with store.owner() as owner:
        owner.exec_driver_sql(f"CREATE INDEX bench_ids ON {raw} (id)")

    def observe() -> None:
        missing = first
        with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
            while not ended.wait(0.01):
                rows = connection.execute(f"SELECT id FROM {raw} WHERE id >= %s", [missing]).fetchall()
                now = time.time()
                for (key,) in rows:
                    found.setdefault(key, now)
                while missing in found:
                    missing += 1

    observer = threading.Thread(target=observe)
    observer.start()
    try:
        insert(first, first)
        _until(lambda: first in found)  # the session is warm
        begun = time.perf_counter()
        key = first + 1
        while (passed := time.perf_counter() - begun) < LATENCY_SECONDS:
            due = int(passed * LATENCY_RATE) - (key - first - 1)
            if due >= 5:
                insert(key, key + due - 1)
                committed.update(dict.fromkeys(range(key, key + due), time.time()))
                key += due
            time.sleep(0.002)
        _until(lambda: committed.keys() <= found.keys())
    finally:
        ended.set()
        observer.join()
        session.terminate()
        session.wait()
    return sorted(found[key] - moment for key, moment in committed.items())


def run_program(program: str, *arguments: str) -> tuple[float, float]:
    """Seconds, and the most memory in MiB."""
    environment = os.environ | {"RUNTIME__DLTHUB_TELEMETRY": "false"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", program, *arguments]
        ended = subprocess.run(
            command, env=environment | {"DLT_DATA_DIR": folder}, capture_output=True, text=True, check=False
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    seconds, peak = json.loads(ended.stdout.splitlines()[-1])
    return seconds, peak


def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
