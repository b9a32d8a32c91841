"""Our own pages with five hundred integrations and weeks of history: what one costs on the server.

The dashboard runs as it does in an installation, in a process of its own, and is asked over HTTP for whole pages, one
after the other. ``first`` is the overview just after the port was opened, ``rested`` the same page after nobody asked
for more than two of DASHBOARD_UPDATE_INTERVAL.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import psycopg

from churnguard_pipelines.model import Organization, StreamConfiguration
from churnguard_pipelines.monitoring.monitor import take_picture
from churnguard_pipelines.orchestration.processes.environment import dagster_environment, workspace
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.control.api_keys import create_key
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest.stream_metrics import BOUNDS_MS
from churnguard_pipelines.store.postgres.database import Store
from tests.bench.harness import Row, answers, program
from tests.bench.scale import timed
from tests.bench.stripe import INTEGRATION, integration
from tests.conftest import as_administrator
from tests.waiting import wait_for

AREA = "pages"
ORGANIZATIONS, INTEGRATIONS_EACH = 50, 10
STREAMS_THERE = 20
DAYS = 14
PATH_OF = {
    "overview": "/",
    "overview_last": f"/?page={ORGANIZATIONS * INTEGRATIONS_EACH // 50}",
    "search": "/?search=stripe+t7&health=healthy",
    "alerts": "/alerts",
    "integration": "/integrations/t7-1",
    "sync": "/integrations/t7-1/syncs/t7-1-0",
    "rejected": "/integrations/t7-1/rejected",
    "webhooks": "/integrations/t7-1/webhooks",
    "add": "/integrations/new",
    "form": "/integrations/new/salesforce",
    "streams": "/streams",
    "stream": "/streams/s7",
    "organizations": "/organizations",
    "organization": "/organizations/t7",
}
ROUNDS = 30
RESTING = 4
"""Seconds of DASHBOARD_UPDATE_INTERVAL where it is to pass."""

_FILL = """
INSERT INTO control.organizations (organization_id, name, reporting_currency)
SELECT 't' || n, 'Tenant ' || n, 'usd' FROM generate_series(1, {organizations}) AS n;
INSERT INTO control.integrations
       (integration_id, organization_id, provider, config, credentials_sealed, status, next_due_at)
SELECT 't' || n || '-' || p, 't' || n, (ARRAY['stripe', 'hubspot', 'salesforce', 'mailchimp', 'sendgrid'])[1 + p % 5],
       config, credentials_sealed, 'active', now() + interval '1 hour'
  FROM control.integrations, generate_series(1, {organizations}) AS n, generate_series(1, {each}) AS p
 WHERE integration_id = '{first}';
INSERT INTO ingest.syncs
       (sync_id, organization_id, integration_id, mode, trigger, status, error, started_at, heartbeat_at, finished_at)
SELECT integration_id || '-' || hour, organization_id, integration_id, 'incremental', 'schedule', outcome,
       CASE outcome WHEN 'failed' THEN 'Stripe refused the credentials (401 on GET /v1/account).' END,
       at, at + interval '9 seconds', at + interval '9 seconds'
  FROM control.integrations, generate_series(0, {days} * 24 - 1) AS hour,
       LATERAL (SELECT now() - interval '5 minutes' - hour * interval '1 hour' AS at,
                       CASE WHEN (length(integration_id) + hour) % 24 < 1 THEN 'failed' ELSE 'succeeded' END
                       AS outcome) AS end_;
INSERT INTO ingest.sync_objects (organization_id, sync_id, object, status, read, written, rows)
SELECT organization_id, sync_id, object, status, 20, 10, 1000
  FROM ingest.syncs, unnest(ARRAY['customers', 'invoices', 'charges', 'products', 'prices']) AS object;
INSERT INTO ingest.sync_hours (organization_id, integration_id, hour, succeeded, read, written, seconds)
SELECT organization_id, integration_id, date_trunc('hour', started_at), 1, 100, 50, 9 FROM ingest.syncs;
INSERT INTO ingest.objects (organization_id, integration_id, object, view_name, rows)
SELECT organization_id, integration_id, object, integration_id || object, 1000
  FROM control.integrations, unnest(ARRAY['customers', 'invoices', 'charges', 'products', 'prices']) AS object;
INSERT INTO ingest.schema_drift (organization_id, integration_id, object, "column", kind, detail, examples)
SELECT organization_id, integration_id, 'customers', 'c' || n, 'new_field', 'text', '[]'
  FROM control.integrations, generate_series(1, 20) AS n;
INSERT INTO ingest.rejected_records
       (organization_id, integration_id, lane, object, key, reason, payload, fingerprint)
SELECT organization_id, integration_id, 'customers', 'customers', 'cus_' || n, 'created: no moment',
       json_build_object('id', 'cus_' || n, 'text', repeat('x', 5000)), n::text
  FROM control.integrations, generate_series(1, 60) AS n WHERE integration_id LIKE '%-1';
INSERT INTO ingest.webhook_inbox (organization_id, provider, integration_id, endpoint_id, event_id, event_type, entity,
                                  payload, slot, received_on)
SELECT organization_id, provider, integration_id, 'endpoint', 'evt_' || n, 'customer.updated', 'cus_' || n,
       '{{"id": "evt_' || n || '", "text": "' || repeat('x', 5000) || '"}}', 0,
       (clock_timestamp() AT TIME ZONE 'UTC')::date
  FROM control.integrations, generate_series(1, 200) AS n WHERE integration_id LIKE '%-1';
INSERT INTO ingest.stream_partitions (organization_id, integration_id, partition, watermark, lag_messages, lag_seconds)
SELECT organization_id, stream_id, p::text, '100', 10, 1 FROM control.streams, generate_series(1, 12) AS p;
INSERT INTO ingest.stream_metrics (organization_id, integration_id, at, session_id, seconds, messages, histogram)
SELECT organization_id, stream_id, now() - n * interval '10 seconds', 'bench', 10, 500, array_fill(1, ARRAY[{classes}])
  FROM control.streams, generate_series(1, 8640) AS n;
"""
_REVENUE = """
INSERT INTO analytics.mrr_movements (organization_id, month, currency, starting, new, expansion, contraction, churn,
                                     reactivation, ending)
SELECT organization_id, date_trunc('month', now()) - n * interval '1 month', 'usd', 1000000 - n * 1000, 3000, 1000,
       -500, -3000, 500, 1001000 - n * 1000
  FROM control.organizations, generate_series(0, 24) AS n
"""


def run(store: Store) -> Iterator[Row]:
    _fill(store)
    with _dashboard(store, RESTING) as browser:
        yield Row(AREA, "first", "ms", _asked(browser, "/"), None, None, None)
        time.sleep(2.5 * RESTING)
        yield Row(AREA, "rested", "ms", _asked(browser, "/"), None, None, None)
    yield Row(AREA, "numbers", "ms", 1000 * timed(lambda: take_picture(store)), None, None, None)
    with _dashboard(store, 60) as browser:
        for name, path in PATH_OF.items():
            took = sorted(_asked(browser, path) for _ in range(ROUNDS))
            p50, p99 = took[ROUNDS // 2], took[-1]
            yield Row(AREA, name, "ms", p50, None, None, None, p50, p99)


@contextmanager
def _dashboard(store: Store, update_interval: int) -> Iterator[httpx.Client]:
    """Somebody who is signed in to one that has just begun to answer."""
    port, key = free_port(), create_key(store, "bench", actor="bench")
    places = str(workspace(store.settings, "127.0.0.1", free_port()))  # nobody is there: these pages need no Dagster
    environment = dagster_environment(store) | {
        "DASHBOARD_PORT": str(port), "DASHBOARD_UPDATE_INTERVAL": str(update_interval),
    }  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with (
        program([sys.executable, "-m", "webhook_gateway.dashboard", "-w", places], environment),
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}", "Accept": "text/html"}) as browser,
    ):
        wait_for(lambda: answers(f"{url}/healthz"))
        yield browser


def _asked(browser: httpx.Client, path: str) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    answer = browser.get(path, timeout=60)
    took = time.perf_counter() - begun
    assert answer.status_code == 200, f"{path}: {answer.status_code}"
    return took * 1000


def _fill(store: Store) -> None:
    add_organization(store, Organization(organization_id=INTEGRATION, name="Bench"), actor="bench")
    replace_integration(store, integration("http://127.0.0.1:9"), actor="bench")
    for number in range(1, STREAMS_THERE + 1):
        STREAMS.add(store, _stream(f"s{number}"), actor="bench")
    values = {
        "organizations": ORGANIZATIONS,
        "each": INTEGRATIONS_EACH,
        "first": INTEGRATION,
        "days": DAYS,
        "classes": len(BOUNDS_MS) + 1,
    }
    with store.operator() as connection:
        for statement in _FILL.format(**values).split(";\n")[:-1]:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    with closing(psycopg.connect(as_administrator(store.database_url), autocommit=True)) as connection:
        connection.execute(_REVENUE)
        connection.execute("VACUUM ANALYZE")


def _stream(stream_id: str) -> StreamConfiguration:
    return StreamConfiguration.model_validate(
        {
            "stream_id": stream_id, "organization_id": INTEGRATION, "name": stream_id, "stream_type": "redis",
            "topics": [stream_id], "connection_config": {"url": "redis://127.0.0.1:9/0"},
        }
    )  # fmt: skip
