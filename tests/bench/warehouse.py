"""Writing 200k dict records against a hand-written COPY + upsert of ready tuples, both as the application role."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import orjson
import psycopg

from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import BIGINT, BOOLEAN, JSON, TEXT, TIMESTAMP, Column, Record, Table
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.bench.harness import Row, compare
from tests.conftest import as_administrator

ROWS = 200_000
ORGANIZATION = "bench"
COLUMNS = (
    ("email", TEXT), ("name", TEXT), ("currency", TEXT), ("balance", BIGINT), ("delinquent", BOOLEAN),
    ("created", TIMESTAMP), ("livemode", BOOLEAN), ("metadata", JSON), ("phone", TEXT), ("attempts", BIGINT),
)  # fmt: skip
TABLE = Table("bench", "records", "id", tuple(Column(name, kind) for name, kind in COLUMNS))
REFERENCE_IS = "psycopg COPY of ready tuples to a temporary table + upsert"
REFERENCE_COLUMNS = "organization_id, integration_id, id, source_version, " + ", ".join(name for name, _ in COLUMNS)


def records(version: int) -> list[Record]:
    return [
        Record(
            {
                "id": f"rec_{number:08d}",
                "email": f"user{number}@example.com",
                "name": f"User Number {number}",
                "currency": "usd",
                "balance": number * 7 + version,
                "delinquent": number % 13 == 0,
                "created": 1_700_000_000 + number,
                "livemode": True,
                "metadata": {"plan": "pro", "seats": number % 50},
                "phone": None,
                "attempts": number % 5,
            },
            version,
        )
        for number in range(ROWS)
    ]


def ready_tuples(version: int) -> list[tuple[Any, ...]]:
    start = datetime.fromtimestamp(1_700_000_000, UTC)
    return [
        (
            ORGANIZATION, ORGANIZATION, item["id"], version, item["email"], item["name"], item["currency"],
            item["balance"], item["delinquent"], start + timedelta(seconds=number), item["livemode"],
            orjson.dumps(item["metadata"]).decode(), item["phone"], item["attempts"],
        )
        for number, item in enumerate(record.payload for record in records(version))
    ]  # fmt: skip


class Bench:
    """Both sides write to a table of the same shape, indexes and row-level security."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._warehouse = Warehouse(store)
        self._version = 0
        add_organization(store, Organization(organization_id=ORGANIZATION, name=ORGANIZATION), actor="bench")
        self._warehouse.ensure(TABLE)
        with store.owner() as connection:
            connection.exec_driver_sql("CREATE TABLE raw.bench_reference (LIKE raw.bench_records INCLUDING ALL)")
            for statement in (
                "ALTER TABLE raw.bench_reference ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
                "CREATE POLICY tenant ON raw.bench_reference USING "
                "(organization_id = current_setting('churnguard.organization_id', true))",
                "GRANT SELECT, INSERT, UPDATE ON raw.bench_reference TO churnguard_app",
            ):
                connection.exec_driver_sql(statement)

    def empty(self) -> None:
        with self._store.owner() as connection:
            connection.exec_driver_sql("TRUNCATE raw.bench_records, raw.bench_reference")

    def ours(self, *, fresh: bool) -> float:
        self._prepare("raw.bench_records", fresh)
        incoming = records(self._version)
        started = time.perf_counter()
        mapped = Mapper(TABLE).rows(incoming)
        with self._warehouse.transaction(ORGANIZATION) as transaction:
            counts = transaction.upsert(TABLE, ORGANIZATION, mapped.rows)
        seconds = time.perf_counter() - started
        assert counts.written == ROWS
        return seconds

    def reference(self, *, fresh: bool) -> float:
        self._prepare("raw.bench_reference", fresh)
        incoming = ready_tuples(self._version)
        updates = ", ".join(f"{name} = excluded.{name}" for name in ("source_version", *(name for name, _ in COLUMNS)))
        with psycopg.connect(as_administrator(self._store.database_url)) as connection, connection.cursor() as cursor:
            started = time.perf_counter()
            cursor.execute("SET LOCAL ROLE churnguard_app")
            cursor.execute("SELECT set_config('churnguard.organization_id', %s, true)", [ORGANIZATION])
            cursor.execute("CREATE TEMP TABLE incoming (LIKE raw.bench_reference) ON COMMIT DROP")
            cursor.execute("ALTER TABLE incoming ALTER synced_at DROP NOT NULL")
            with cursor.copy(f"COPY incoming ({REFERENCE_COLUMNS}) FROM STDIN") as copy:
                for row in incoming:
                    copy.write_row(row)
            cursor.execute(
                f"INSERT INTO raw.bench_reference ({REFERENCE_COLUMNS}, synced_at) "
                f"SELECT {REFERENCE_COLUMNS}, clock_timestamp() FROM incoming "
                "ON CONFLICT (organization_id, integration_id, id) "
                f"DO UPDATE SET {updates}, synced_at = excluded.synced_at "
                "WHERE excluded.source_version >= bench_reference.source_version"
            )
            assert cursor.rowcount == ROWS
            connection.commit()
            return time.perf_counter() - started

    def _prepare(self, table: str, fresh: bool) -> None:
        self._version += 1
        with self._store.owner() as connection:
            if fresh:
                connection.exec_driver_sql(f"TRUNCATE {table}")
        with psycopg.connect(as_administrator(self._store.database_url), autocommit=True) as connection:
            connection.execute(f"VACUUM {table}")
            connection.execute("CHECKPOINT")


def run(store: Store) -> Iterator[Row]:
    bench = Bench(store)
    for name, fresh in (("upsert_new", True), ("upsert_existing", False)):
        yield compare(
            "warehouse", name, "rows/s", ROWS,
            partial(bench.ours, fresh=fresh), partial(bench.reference, fresh=fresh),
            REFERENCE_IS,
        )  # fmt: skip
