"""MariaDB as a source."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pymysql
from pymysql.cursors import SSCursor
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.bench.harness import ROUNDS, Row
from tests.bench.mirroring import AREA, DLT_IS, ROWS, delays, dlt_rate, full_rows, register, write_floor
from tests.sources.mariadb import PASSWORD, MariaDBServer
from tests.sources.postgresql import PostgreSQLServer

CHANGES = 200_000
ACCOUNTS = 150_000
FLOOR = "PyMySQL's rows one by one into COPY to a temporary table + upsert"
READER = "mysql-replication reading the same log, storing nothing"
COLUMNS = (
    "id bigint", "email text", "name text", "balance numeric(12,2)", "active smallint",
    "created_at timestamp", "updated_at timestamp", "profile json",
)  # fmt: skip
TABLE = (
    "CREATE TABLE users (id bigint PRIMARY KEY, email varchar(99), name varchar(99), balance decimal(12,2), "
    "active tinyint(1), created_at datetime(6), updated_at datetime(6), profile json)"
)
FILL = (
    "INSERT INTO users SELECT seq, concat('user', seq, '@example.com'), concat('User Number ', seq), seq / 100.0, "
    "seq % 13 <> 0, timestamp'2024-01-01 00:00:00' + interval seq second, "
    "timestamp'2025-01-01 00:00:00' + interval seq second, "
    "json_object('plan', 'pro', 'seats', seq % 50) FROM seq_{begin}_to_{end}"
)


def run(store: Store, source: MariaDBServer, target: PostgreSQLServer) -> Iterator[Row]:
    """``target``: where dlt writes to; it cannot reach a socket, where the warehouse listens."""
    with closing(source.connect()) as connection:
        _execute(connection, "CREATE DATABASE bench")
    yield from _full(store, source, target)
    yield _changes(store, source)


def _register(store: Store, source: MariaDBServer, mode: str) -> IntegrationConfiguration:
    return register(store, "mysql", PASSWORD, mode, port=str(source.port), database="bench")


def _execute(connection: pymysql.Connection[Any], statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def _full(store: Store, source: MariaDBServer, target: PostgreSQLServer) -> list[Row]:
    with closing(source.connect("bench")) as connection:
        _execute(connection, TABLE)
        _execute(connection, FILL.format(begin=1, end=ROWS))
    made = _register(store, source, "full")
    target.new_database("dlt")
    to = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**target.parameters("dlt"))
    come_from = f"mysql+pymysql://owner:{PASSWORD}@127.0.0.1:{source.port}/bench"
    references = {FLOOR: lambda: _floor(store, source), DLT_IS: lambda: dlt_rate(come_from, to)}
    rows = full_rows(store, made, references)
    target.drop_database("dlt")
    return rows


def _floor(store: Store, source: MariaDBServer) -> float:
    def fill(cursor: psycopg.Cursor) -> None:
        with (
            closing(source.connect("bench")) as reading,
            reading.cursor(SSCursor) as rows,
            cursor.copy("COPY incoming FROM STDIN") as copy,
        ):
            rows.execute("SELECT * FROM users")
            for row in rows:
                copy.write_row(row)

    return write_floor(store, COLUMNS, fill)


def _changes(store: Store, source: MariaDBServer) -> Row:
    """Throughput of a backlog; and commit to queryable row at a steady rate, with a warm session."""
    with closing(source.connect("bench")) as connection:
        _fill_anew(connection)
    _register(store, source, "real_time")
    sync_integration(store, "bench", sync_id="mysql-snapshot")
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS):
        with closing(source.connect("bench")) as connection:
            _fill_anew(connection)
        sync_integration(store, "bench", sync_id=f"mysql-before-{number}")
        with closing(source.connect("bench")) as connection:
            begin = _execute(connection, "SHOW MASTER STATUS")[0][:2]
            _change(connection)
            end = _execute(connection, "SHOW MASTER STATUS")[0][:2]
        begun = time.perf_counter()
        report = sync_integration(store, "bench", sync_id=f"mysql-changes-{number}")
        seconds = time.perf_counter() - begun - 1.0  # it waits for a second whether more comes
        assert report.objects["users"].counts.read >= CHANGES, report
        rates[0].append(CHANGES / seconds)
        rates[1].append(CHANGES / _bare(source, begin, end))
    ours, bare = (statistics.median(side) for side in rates)
    with closing(source.connect("bench")) as connection:

        def insert(begin: int, end: int) -> None:
            _execute(connection, FILL.format(begin=begin, end=end))

        lags = delays(store, insert)
    p50, p99 = lags[len(lags) // 2] * 1000, lags[int(len(lags) * 0.99)] * 1000
    return Row(AREA, "mysql_cdc", "changes/s", ours, bare, READER, ours / bare, p50, p99)


def _fill_anew(connection: pymysql.Connection[Any]) -> None:
    _execute(connection, "TRUNCATE users")
    _execute(connection, FILL.format(begin=1, end=ACCOUNTS))


def _change(connection: pymysql.Connection[Any]) -> None:
    """In transactions of a hundred: six in ten are updates, three inserts, one a deletion, all of different rows."""
    last = ACCOUNTS
    for number in range(CHANGES // 100):
        first = number * 70 + 1
        connection.begin()
        _execute(connection, f"UPDATE users SET balance = balance + 1 WHERE id BETWEEN {first} AND {first + 59}")
        _execute(connection, f"DELETE FROM users WHERE id BETWEEN {first + 60} AND {first + 69}")
        _execute(connection, FILL.format(begin=last + 1, end=last + 30))
        connection.commit()
        last += 30


def _bare(source: MariaDBServer, begin: tuple[str, int], end: tuple[str, int]) -> float:
    begun = time.perf_counter()
    reader = BinLogStreamReader(
        connection_settings={"host": "127.0.0.1", "port": source.port, "user": "owner", "passwd": PASSWORD},
        server_id=4711, is_mariadb=True, log_file=begin[0], log_pos=begin[1], resume_stream=True,
        only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
    )  # fmt: skip
    changes = 0
    for event in reader:
        changes += len(event.rows)
        if changes >= CHANGES:
            break
    assert (reader.log_file, reader.log_pos) <= end
    seconds = time.perf_counter() - begun
    reader.close()
    return seconds
