"""Databases as sources: 1 M rows, against a hand-written copy and dlt; their changes, against a bare reader."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from churnguard_pipelines.connectors.database_sync import reset_database
from churnguard_pipelines.connectors.postgresql_changes import slot_name
from churnguard_pipelines.connectors.sync import sync_integration
from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.store.catalogue import entries
from churnguard_pipelines.store.database import Store
from churnguard_pipelines.store.integrations import replace_integration
from churnguard_pipelines.store.organizations import add_organization
from tests.bench.harness import ROUNDS, Row
from tests.sources.postgresql import PASSWORD, PostgreSQLServer

AREA = "databases"
ROWS = 1_000_000
CHANGES = 200_000
LATENCY_SECONDS, LATENCY_RATE = 20, 1000
FLOOR = "hand-written binary COPY to a temporary table + upsert"
DLT = "dlt 1.31, connectorx, replace"
READER = "psycopg2 reading the same slot, storing nothing"
COLUMNS = (
    "id bigint", "email text", "name text", "balance numeric(12,2)", "active boolean",
    "created_at timestamptz", "updated_at timestamptz", "profile jsonb",
)  # fmt: skip
NAMES = ", ".join(column.split()[0] for column in COLUMNS)
FILL = (
    "SELECT n, 'user' || n || '@example.com', 'User Number ' || n, n / 100.0, n % 13 <> 0, "
    "timestamptz '2024-01-01' + n * interval '1 second', timestamptz '2025-01-01' + n * interval '1 second', "
    "jsonb_build_object('plan', 'pro', 'seats', n % 50) FROM generate_series({begin}, {end}) n"
)
OURS = """
import json, resource, sys, time
from churnguard_pipelines.connectors.sync import sync_integration
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.database import Store
store = Store.open(load_settings(), migrate=False)
begun = time.perf_counter()
report = sync_integration(store, "bench", sync_id=sys.argv[1])
seconds = time.perf_counter() - begun
assert report.status == "succeeded", report
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
DLT_PROGRAM = """
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
from churnguard_pipelines.connectors.change_session import ChangeSession
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.database import Store
ChangeSession(Store.open(load_settings(), migrate=False), "bench", linger=600).run()
"""


def run(store: Store) -> list[Row]:
    home = Path(tempfile.mkdtemp(prefix="churnguard-source-"))
    home.chmod(0o755)
    source = PostgreSQLServer(home)
    source.start()
    add_organization(store, Organization(organization_id="bench", name="Bench"), actor="bench")
    try:
        return [*_full(store, source), _changes(store, source)]
    finally:
        source.stop()
        shutil.rmtree(home, ignore_errors=True)


def _register(store: Store, source: PostgreSQLServer, mode: str) -> IntegrationConfiguration:
    fields = {"host": "127.0.0.1", "port": str(source.port), "database": "postgres"}
    made = IntegrationConfiguration.model_validate(
        {
            "integration_id": "bench",
            "organization_id": "bench",
            "integration_name": "Bench",
            "integration_type": "database",
            "provider_name": "postgresql",
            "sync_config": {"sync_mode": mode},
            "credentials": {
                "credential_type": "basic_auth",
                "username": "owner",
                "password": PASSWORD,
                "custom_fields": fields,
            },
        }
    )
    replace_integration(store, made, actor="bench")
    return made


def _full(store: Store, source: PostgreSQLServer) -> list[Row]:
    """Into an empty table each time."""
    with source.connect() as connection:
        connection.execute(f"CREATE TABLE users ({', '.join(COLUMNS)}, PRIMARY KEY (id))")
        connection.execute("INSERT INTO users " + FILL.format(begin=1, end=ROWS))
        connection.execute("VACUUM ANALYZE users")
    made = _register(store, source, "full")
    sync_integration(store, "bench", sync_id="warm-up")
    raw = f"raw.{entries(store, 'bench')['users'].raw_table}"
    with store.owner() as owner:
        owner.exec_driver_sql(f"CREATE TABLE raw.bench_floor (LIKE {raw} INCLUDING ALL)")
        for statement in (
            "ALTER TABLE raw.bench_floor ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "CREATE POLICY tenant ON raw.bench_floor USING "
            "(organization_id = current_setting('churnguard.organization_id', true))",
            "GRANT SELECT, INSERT, UPDATE ON raw.bench_floor TO churnguard_app",
        ):
            owner.exec_driver_sql(statement)
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**source.parameters("postgres"))
    source.new_database("dlt")  # on the source's server: dlt cannot reach a socket, where the warehouse listens
    target = url.removesuffix("postgres") + "dlt"
    seconds: dict[str, list[float]] = {"ours": [], "floor": [], "dlt": []}
    peaks: list[float] = []
    for number in range(ROUNDS):
        _clean(store, made, raw)
        took, peak = _program(OURS, f"round-{number}")
        seconds["ours"].append(took)
        peaks.append(peak)
        _clean(store, made, raw)
        seconds["floor"].append(_floor(store, source))
        seconds["dlt"].append(_program(DLT_PROGRAM, url, target)[0])
    _clean(store, made, raw)
    ours, floor, dlt = (ROWS / statistics.median(seconds[name]) for name in ("ours", "floor", "dlt"))
    source.drop_database("dlt")
    return [
        Row(AREA, "postgresql_full", "rows/s", ours, floor, FLOOR, ours / floor, peak_mib=max(peaks)),
        Row(AREA, "postgresql_full", "rows/s", ours, dlt, DLT, ours / dlt, peak_mib=max(peaks)),
    ]


def _clean(store: Store, made: IntegrationConfiguration, raw: str) -> None:
    with store.owner() as owner:
        owner.exec_driver_sql(f"TRUNCATE {raw}, raw.bench_floor")
    reset_database(store, made)
    with psycopg.connect(store.database_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def _floor(store: Store, source: PostgreSQLServer) -> float:
    updates = ", ".join(f"{name} = excluded.{name}" for name in NAMES.split(", ")[1:])
    with source.connect() as reading, psycopg.connect(store.database_url) as writing:
        begun = time.perf_counter()
        writing.execute("SELECT set_config('role', 'churnguard_app', true)")
        writing.execute("SELECT set_config('churnguard.organization_id', 'bench', true)")
        writing.execute(f"CREATE TEMP TABLE incoming ({', '.join(COLUMNS)}) ON COMMIT DROP")
        with (
            reading.cursor() as reader,
            writing.cursor() as writer,
            reader.copy("COPY users TO STDOUT (FORMAT binary)") as rows,
            writer.copy("COPY incoming FROM STDIN (FORMAT binary)") as copy,
        ):
            for row in rows:
                copy.write(row)
        writing.execute(
            f"INSERT INTO raw.bench_floor (organization_id, integration_id, {NAMES}, source_version, synced_at) "
            f"SELECT 'bench', 'bench', {NAMES}, 1, clock_timestamp() FROM incoming "
            f"ON CONFLICT (organization_id, integration_id, id) DO UPDATE SET {updates}, "
            "source_version = excluded.source_version, synced_at = excluded.synced_at "
            "WHERE excluded.source_version >= bench_floor.source_version"
        )
        writing.commit()
        return time.perf_counter() - begun


def _changes(store: Store, source: PostgreSQLServer) -> Row:
    """Throughput of a backlog; and commit to queryable row at a steady rate, with a warm session."""
    with source.connect() as connection:
        connection.execute("TRUNCATE users; INSERT INTO users " + FILL.format(begin=1, end=100_000))
    _register(store, source, "real_time")
    sync_integration(store, "bench", sync_id="snapshot")
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS):
        with source.connect() as connection:
            connection.execute("SELECT pg_create_logical_replication_slot('bare', 'pgoutput')")
            _change(connection)
        begun = time.perf_counter()
        report = sync_integration(store, "bench", sync_id=f"changes-{number}")
        seconds = time.perf_counter() - begun - 1.0  # it waits for a second whether more comes
        assert report.objects["users"].counts.read >= CHANGES, report
        rates[0].append(CHANGES / seconds)
        rates[1].append(CHANGES / _bare(source))
        with source.connect() as connection:
            connection.execute("SELECT pg_drop_replication_slot('bare')")
    ours, bare = (statistics.median(side) for side in rates)
    lags = _latency(store, source)
    p50, p99 = lags[len(lags) // 2] * 1000, lags[int(len(lags) * 0.99)] * 1000
    return Row(AREA, "postgresql_cdc", "changes/s", ours, bare, READER, ours / bare, p50, p99)


def _change(connection: psycopg.Connection[Any]) -> None:
    """In transactions of a hundred: six in ten are updates, three inserts, one a deletion, all of different rows."""
    connection.execute("TRUNCATE users; INSERT INTO users " + FILL.format(begin=1, end=100_000))
    last = 100_000
    for number in range(CHANGES // 100):
        first = number * 70 % 90_000 + 1
        connection.execute(
            f"BEGIN; UPDATE users SET balance = balance + 1 WHERE id BETWEEN {first} AND {first + 59};"
            f"DELETE FROM users WHERE id BETWEEN {first + 60} AND {first + 69};"
            f"INSERT INTO users {FILL.format(begin=last + 1, end=last + 30)}; COMMIT"
        )
        last += 30


def _bare(source: PostgreSQLServer) -> float:
    import select

    import psycopg2
    import psycopg2.extras

    with source.connect() as connection:
        row = connection.execute("SELECT pg_current_wal_flush_lsn() - '0/0'").fetchone()
        assert row is not None
    reader = psycopg2.connect(
        **source.parameters("postgres"), connection_factory=psycopg2.extras.LogicalReplicationConnection
    )
    cursor = reader.cursor()
    begun = time.perf_counter()
    options = {"proto_version": "1", "publication_names": slot_name("bench")}
    cursor.start_replication(slot_name="bare", decode=False, options=options)
    while cursor.wal_end < int(row[0]):
        if cursor.read_message() is None:
            select.select([cursor], [], [], 0.1)
    seconds = time.perf_counter() - begun
    reader.close()
    return seconds


def _latency(store: Store, source: PostgreSQLServer) -> list[float]:
    session = subprocess.Popen([sys.executable, "-c", SESSION], env=_environment(store))
    raw = f"raw.{entries(store, 'bench')['users'].raw_table}"
    committed: dict[int, float] = {}
    found: dict[int, float] = {}
    ended = threading.Event()
    first = 10_000_000
    with store.owner() as owner:
        owner.exec_driver_sql(f"CREATE INDEX bench_ids ON {raw} (id)")

    def observe() -> None:
        missing = first
        with psycopg.connect(store.database_url, autocommit=True) as connection:
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
        with source.connect() as connection:
            connection.execute("INSERT INTO users " + FILL.format(begin=first, end=first))
            _until(lambda: first in found)  # the session is warm
            begun = time.perf_counter()
            key = first + 1
            while (passed := time.perf_counter() - begun) < LATENCY_SECONDS:
                due = int(passed * LATENCY_RATE) - (key - first - 1)
                if due >= 5:
                    connection.execute("INSERT INTO users " + FILL.format(begin=key, end=key + due - 1))
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


def _program(program: str, *arguments: str) -> tuple[float, float]:
    environment = os.environ | {"RUNTIME__DLTHUB_TELEMETRY": "false"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", program, *arguments]
        ended = subprocess.run(
            command, env=environment | {"DLT_DATA_DIR": folder}, capture_output=True, text=True, check=False
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    seconds, peak = json.loads(ended.stdout.splitlines()[-1])
    return seconds, peak


def _environment(store: Store) -> dict[str, str]:
    return os.environ | {"CHURNGUARD_DATABASE_URL": store.database_url}


def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
