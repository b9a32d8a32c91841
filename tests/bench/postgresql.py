"""PostgreSQL as a source."""

from __future__ import annotations

import select
import statistics
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import psycopg2
import psycopg2.extras

from churnguard_pipelines.connectors.postgresql.slot import slot_name
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.bench.harness import ROUNDS, Row
from tests.bench.mirroring import AREA, DLT_IS, ROWS, delays, dlt_rate, full_rows, register, write_floor
from tests.sources.postgresql import PASSWORD, PostgreSQLServer

CHANGES = 200_000
ROWS_BEFORE = 140_000  # of which each change has one of its own
FLOOR = "hand-written binary COPY to a temporary table + upsert"
READER = "psycopg2 reading the same slot, storing nothing"
COLUMNS = (
    "id bigint", "email text", "name text", "balance numeric(12,2)", "active boolean",
    "created_at timestamptz", "updated_at timestamptz", "profile jsonb",
)  # fmt: skip
FILL = (
    "SELECT n, 'user' || n || '@example.com', 'User Number ' || n, n / 100.0, n % 13 <> 0, "
    "timestamptz '2024-01-01' + n * interval '1 second', timestamptz '2025-01-01' + n * interval '1 second', "
    "jsonb_build_object('plan', 'pro', 'seats', n % 50) FROM generate_series({begin}, {end}) n"
)


def run(store: Store, source: PostgreSQLServer) -> Iterator[Row]:
    yield from _full(store, source)
    yield _changes(store, source)


def _register(store: Store, source: PostgreSQLServer, mode: str) -> IntegrationConfiguration:
    return register(store, "postgresql", PASSWORD, mode, port=str(source.port), database="postgres")


def _full(store: Store, source: PostgreSQLServer) -> list[Row]:
    with source.connect() as connection:
        connection.execute(f"CREATE TABLE users ({', '.join(COLUMNS)}, PRIMARY KEY (id))")
        connection.execute("INSERT INTO users " + FILL.format(begin=1, end=ROWS))
        connection.execute("VACUUM ANALYZE users")
    made = _register(store, source, "full")
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**source.parameters("postgres"))
    source.new_database("dlt")  # on the source's server: dlt cannot reach a socket, where the warehouse listens
    target = url.removesuffix("postgres") + "dlt"
    references = {FLOOR: lambda: _floor(store, source), DLT_IS: lambda: dlt_rate(url, target)}
    rows = full_rows(store, made, references)
    source.drop_database("dlt")
    return rows


def _floor(store: Store, source: PostgreSQLServer) -> float:
    def fill(cursor: psycopg.Cursor) -> None:
        with (
            source.connect() as reading,
            reading.cursor().copy("COPY users TO STDOUT (FORMAT binary)") as rows,
            cursor.copy("COPY incoming FROM STDIN (FORMAT binary)") as copy,
        ):
            for row in rows:
                copy.write(row)

    return write_floor(store, COLUMNS, fill)


def _changes(store: Store, source: PostgreSQLServer) -> Row:
    """Throughput of a backlog; and commit to queryable row at a steady rate, with a warm session."""
    _register(store, source, "real_time")
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS):
        with source.connect() as connection:
            connection.execute("TRUNCATE users; INSERT INTO users " + FILL.format(begin=1, end=ROWS_BEFORE))
            sync_integration(store, "bench", sync_id=f"snapshot-{number}")  # who truncates is read anew
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
    lags = _delays(store, source)
    p50, p99 = lags[len(lags) // 2] * 1000, lags[int(len(lags) * 0.99)] * 1000
    return Row(AREA, "postgresql_cdc", "changes/s", ours, bare, READER, ours / bare, p50, p99)


def _change(connection: psycopg.Connection[Any]) -> None:
    """In transactions of a hundred: six in ten are updates, three inserts, one a deletion, all of different rows."""
    last = ROWS_BEFORE
    for number in range(CHANGES // 100):
        first = number * 70 + 1
        connection.execute(
            f"BEGIN; UPDATE users SET balance = balance + 1 WHERE id BETWEEN {first} AND {first + 59};"
            f"DELETE FROM users WHERE id BETWEEN {first + 60} AND {first + 69};"
            f"INSERT INTO users {FILL.format(begin=last + 1, end=last + 30)}; COMMIT"
        )
        last += 30


def _bare(source: PostgreSQLServer) -> float:
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


def _delays(store: Store, source: PostgreSQLServer) -> list[float]:
    with source.connect() as connection:

        def insert(begin: int, end: int) -> None:
            connection.execute("INSERT INTO users " + FILL.format(begin=begin, end=end))

        return delays(store, insert)
