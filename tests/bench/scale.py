"""Ten thousand tenants with nine integrations each: what a quiet sync costs, how late one begins, what ticks and
Dagster's own storage cost.

The provider is in this process and answers from memory, through the real HTTP client: 95 of 100 syncs find nothing new,
the others one record. It stands in the place of Stripe, in a process of its own, so that Dagster's real definitions are
used.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import count

import dagster as dg
import httpx
import psycopg

from churnguard_pipelines import connectors
from churnguard_pipelines.connectors.sdk import ApiConnector, ConnectionReport, Object, Reading
from churnguard_pipelines.engine import http
from churnguard_pipelines.engine.auth import Bearer, Credential, TokenKeeper
from churnguard_pipelines.engine.quota import Quota
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationType, Organization
from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.records import Batch, Column, ColumnType, Record, Window
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.ingest.due import due_integrations
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw import views
from churnguard_pipelines.store.raw.views import View
from churnguard_pipelines.syncing.due import DueSyncs
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.typed_views import shown
from tests.bench.harness import Row, without_the_tests_own_cost
from tests.bench.stripe import INTEGRATION, integration
from tests.conftest import as_administrator

AREA = "scale"
TENANTS, INTEGRATIONS_EACH = 10_000, 9
SYNCS_A_DAY = TENANTS * INTEGRATIONS_EACH * 24
SYNCS_A_SECOND = TENANTS * INTEGRATIONS_EACH / 3600
NEWS_IN = 20  # syncs: one of so many finds a record
LANES = 1_000
LATENESS_SECONDS = 120
TICKS = 7
OBJECTS = ("customers", "invoices")
MEASURED = b"measured: "
"""What a line of the process that measures begins with, if it is a row's."""


class Memory(httpx.BaseTransport):
    """Answers at once, in this process."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"data": []}, request=request)


class Stripe(ApiConnector):
    """Two objects, a call each."""

    provider, kind, title = "stripe", IntegrationType.PAYMENT, "Stripe"
    objects = tuple(
        Object(name, f"/v1/{name}", (Column("name", ColumnType.TEXT), Column("created", ColumnType.TIMESTAMP)))
        for name in OBJECTS
    )
    reads = count(1)

    @classmethod
    def credential(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
        return Bearer("key")

    @classmethod
    def quota(cls, integration: IntegrationConfiguration) -> Quota:
        return Quota(per_second=100.0)

    def identity(self) -> str:
        return "memory"

    def check(self) -> ConnectionReport:
        return ConnectionReport(self.integration.integration_id, "memory", ())

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        self.http.request("GET", f"http://127.0.0.1:9{item.path}", expect_json=True)
        number = next(self.reads)
        record = Record({"id": f"r{number}", "name": "x", "created": reading.started.isoformat()}, number)
        yield Batch({"read": number}, [record] if number % (NEWS_IN * len(OBJECTS)) == 0 else [])

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        return None


_FILL = """
INSERT INTO control.organizations (organization_id, name, reporting_currency)
SELECT 't' || n, 'Tenant ' || n, 'usd' FROM generate_series(1, {tenants}) AS n;
INSERT INTO control.integrations
       (integration_id, organization_id, provider, config, credentials_sealed, status, next_due_at)
SELECT 't' || n || '-' || p, 't' || n, CASE p WHEN 1 THEN 'stripe' ELSE 'other' || p END, config, credentials_sealed,
       'active', now() + interval '10 minutes' + interval '3000 seconds' * random()
  FROM control.integrations, generate_series(1, {tenants}) AS n, generate_series(1, {each}) AS p
 WHERE integration_id = '{first}';
INSERT INTO ingest.syncs
       (sync_id, organization_id, integration_id, mode, trigger, status, started_at, heartbeat_at, finished_at)
SELECT 'first-' || integration_id, organization_id, integration_id, 'incremental', 'schedule', 'succeeded',
       now() - interval '1 hour', now() - interval '1 hour', now() - interval '1 hour'
  FROM control.integrations WHERE integration_id <> '{first}';
INSERT INTO ingest.sync_objects (organization_id, sync_id, object, status, rows)
SELECT organization_id, sync_id, object, 'succeeded', 0 FROM ingest.syncs, unnest(ARRAY{objects}) AS object;
INSERT INTO ingest.checkpoints (organization_id, integration_id, lane, position, source, version)
SELECT organization_id, integration_id, object, '{{"read": 0}}', 'memory', 1
  FROM control.integrations, unnest(ARRAY{objects}) AS object;
INSERT INTO ingest.materializations (organization_id, integration_id, object, status, told_at)
SELECT organization_id, integration_id, object, 'succeeded', now() - interval '2 hours'
  FROM control.integrations, unnest(ARRAY{objects}) AS object;
"""


def run(store: Store) -> Iterator[Row]:
    """In a process of its own, in which Stripe is what is written here."""
    environment = os.environ | dagster_environment(store)
    command = [sys.executable, "-m", "tests.bench.scale"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(MEASURED):
                yield Row(**json.loads(line.removeprefix(MEASURED)))
    assert process.returncode == 0, "a row could not be measured"


def fill(store: Store) -> None:
    add_organization(store, Organization(organization_id=INTEGRATION, name="Bench"), actor="bench")
    add_integration(store, integration("http://127.0.0.1:9"), actor="bench")
    values = {"tenants": TENANTS, "each": INTEGRATIONS_EACH, "first": INTEGRATION, "objects": list(OBJECTS)}
    with store.operator() as connection:
        for statement in _FILL.format(**values).split(";\n")[:-1]:
            connection.exec_driver_sql(statement.replace("%", "%%"))
        connection.exec_driver_sql(
            f"UPDATE control.integrations SET status = 'paused' WHERE integration_id = '{INTEGRATION}'"
        )
        connection.exec_driver_sql(
            "INSERT INTO ingest.objects (organization_id, integration_id, object, view_name, view_digest) "
            "SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[])",
            tuple(map(list, zip(*_views(), strict=True))),
        )
    with closing(psycopg.connect(as_administrator(store.database_url), autocommit=True)) as connection:
        connection.execute("VACUUM ANALYZE")


def _views() -> Iterator[tuple[str, str, str, str, str]]:
    """What the first syncs have noted: they made the views, which is no part of a quiet one."""
    for item in Stripe.objects:
        table = Stripe.table_of(item)
        columns = shown(integration("http://127.0.0.1:9"), table, ()).columns
        for number in range(1, TENANTS + 1):
            own, name = (f"t{number}", f"t{number}-1"), f"t{number}_1_{item.name}"
            yield *own, item.name, name, views.digest([View(name, table.name, *own, columns)])


def make_due(store: Store, lanes: int, *, over: float = 0.0) -> dict[str, datetime]:
    """So many of the provider's integrations, from now on over so many seconds; returns when each is due."""
    with store.operator() as connection:
        rows = connection.exec_driver_sql(
            "UPDATE control.integrations AS integration "
            "SET next_due_at = clock_timestamp() + make_interval(secs => %s * place / %s) "
            "FROM (SELECT integration_id, row_number() OVER (ORDER BY random()) AS place FROM control.integrations "
            "WHERE provider = 'stripe' AND status = 'active' LIMIT %s) AS chosen "
            "WHERE integration.integration_id = chosen.integration_id "
            "RETURNING integration.integration_id, next_due_at",
            (over, float(lanes), lanes),
        )
        return {row[0]: row[1] for row in rows}


def quiet_lanes(store: Store) -> Row:
    """Syncs for each second of a processor that the session uses; PostgreSQL has its own."""
    make_due(store, LANES)
    begun = time.process_time()
    reports = work(store, "quiet")
    seconds = time.process_time() - begun
    assert len(reports) == LANES, f"{len(reports)} of {LANES}"
    took = sorted(
        (report.finished_at - report.started_at).total_seconds() * 1000 for report in reports if report.finished_at
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
    return Row(
        AREA, "quiet_lanes", "syncs/s of a core", LANES / seconds, None, None, None,
        took[len(took) // 2], took[len(took) * 99 // 100], peak,
    )  # fmt: skip


def lateness(store: Store) -> Row:
    """What all tenants' integrations want in two minutes of an hour, of one session in one process."""
    lanes = round(SYNCS_A_SECOND * LATENESS_SECONDS)
    due_at = make_due(store, lanes, over=LATENESS_SECONDS)
    reports = work(store, "lateness")
    late = sorted((report.started_at - due_at[report.integration_id]).total_seconds() for report in reports)
    assert len(late) == lanes, f"{len(late)} of {lanes}"
    p50, p95, p99 = (late[lanes * share // 100] for share in (50, 95, 99))
    return Row(AREA, "lateness_10k", "s late (p95)", p95, None, None, None, p50 * 1000, p99 * 1000)


def work(store: Store, session_id: str) -> list[SyncReport]:
    reports: list[SyncReport] = []
    Session(store, session_id, DueSyncs(store, session_id, "stripe", reports.append), max_age=3600).run()
    return reports


def due_query(store: Store) -> Row:
    """A minute's worth of the provider is due."""
    make_due(store, TENANTS // 60)
    seconds = [
        timed(lambda: due_integrations(store, "stripe", datetime.now(UTC) + timedelta(seconds=1))) for _ in range(50)
    ]
    return Row(AREA, "due_query", "ms", statistics.median(seconds) * 1000, None, None, None)


def sensor_tick(instance: dg.DagsterInstance) -> Row:
    """The slowest of those that come every few seconds or minutes, once all is as it should be."""
    from churnguard_pipelines.definitions import definitions

    repository = definitions.get_repository_def()
    names = ("partition_keeper", "long_syncs", "webhooks_waiting", "changes_waiting", "dead_runs")
    ticks: dict[str, Callable[[], object]] = {
        name: lambda name=name: repository.get_sensor_def(name).evaluate_tick(  # type: ignore[misc]
            dg.build_sensor_context(instance=instance, repository_def=repository)
        )
        for name in names
    }
    ticks["stripe_due"] = lambda: repository.get_schedule_def("stripe_due").evaluate_tick(
        dg.build_schedule_context(
            instance=instance, repository_def=repository, scheduled_execution_time=datetime.now(UTC)
        )
    )
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        for tick in ticks.values():
            tick()
        medians = {name: statistics.median(timed(tick) for _ in range(TICKS)) for name, tick in ticks.items()}
    slowest = max(medians, key=lambda name: medians[name])
    return Row(AREA, "sensor_tick", "ms", medians[slowest] * 1000, None, f"{slowest}, the slowest", None)


def dagster_bytes_a_day(store: Store, instance: dg.DagsterInstance) -> Row:
    """What a session's run leaves of each sync, times all of a day; after one that has found the tables empty."""
    from churnguard_pipelines.definitions import definitions

    before = 0
    for lanes in (LANES // 5, LANES):
        make_due(store, lanes)
        before = _size(store)
        assert definitions.resolve_job_def("stripe_sync_session").execute_in_process(instance=instance).success
    grown = (_size(store) - before) / LANES * SYNCS_A_DAY
    return Row(AREA, "dagster_bytes_a_day", "MiB", grown / 2**20, None, None, None)


def _size(store: Store) -> int:
    address = store.dagster_database_url.replace("postgresql+psycopg2://", "postgresql://")
    with closing(psycopg.connect(as_administrator(address), autocommit=True)) as connection:
        connection.execute("VACUUM")  # as every now and then: what was updated leaves room for what comes
        [size] = connection.execute("SELECT pg_database_size(current_database())").fetchone() or [0]
    return int(size)


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    without_the_tests_own_cost()
    http.transports = lambda guard: (Memory(), {})  # type: ignore[attr-defined]
    connectors._registry._found["stripe"] = Stripe
    store = Store.open(load_settings(), migrate=False)
    fill(store)
    tell(quiet_lanes(store))
    tell(lateness(store))
    tell(due_query(store))
    with dg.DagsterInstance.get() as instance:
        tell(sensor_tick(instance))
        tell(dagster_bytes_a_day(store, instance))


def tell(row: Row) -> None:
    print(MEASURED.decode() + json.dumps(asdict(row)), flush=True)


if __name__ == "__main__":
    main()
