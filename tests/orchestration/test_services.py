"""The whole of it as a person runs it: Dagster's services, the plain `dagster` command, the schedules, the web UI."""

from __future__ import annotations

import json
import tempfile
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import websockets
import websockets.sync.client
import yaml
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import (
    DataSyncMode,
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationType,
    Organization,
    SyncConfiguration,
)
from churnguard_pipelines.orchestration.processes.children import SubmittedSync, SyncProcess, SyncRequest
from churnguard_pipelines.orchestration.processes.run_status import run_status
from churnguard_pipelines.orchestration.processes.services import Services
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.sandbox.serve import serve
from churnguard_pipelines.store.control.api_keys import Role, create_key
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.conftest import as_administrator, configuration, settings_for
from tests.connectors.postgresql.conftest import source_server  # noqa: F401 - a fixture
from tests.orchestration.installation import PATIENCE_SECONDS, Installation
from tests.sources.mariadb import running_mariadb
from tests.sources.mongodb import running_mongodb
from tests.sources.postgresql import PASSWORD, PostgreSQLServer
from tests.waiting import wait_for
from tests.webhook_gateway.intake.conftest import stripe_event, stripe_headers

EVENTS_MEANWHILE = 300
SIGNING_SECRET = "whsec_canary_of_the_endpoint"
CANARIES = ("rk_sandbox_acme", "canary-in-a-custom-field", SIGNING_SECRET, PASSWORD)
BINARY = """
SELECT table_schema, table_name, column_name FROM information_schema.columns
 WHERE data_type = 'bytea' AND table_schema NOT IN ('pg_catalog', 'information_schema')
"""
LAUNCH = """
mutation Launch($selector: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $selector, mode: "default", runConfigData: {}}) { __typename }
}"""
SELECTOR = {
    "repositoryName": "__repository__", "repositoryLocationName": "churnguard", "pipelineName": "retention",
}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("services")]


@pytest.fixture(scope="module")
def products(source_server: PostgreSQLServer) -> Iterator[dict[str, dict[str, str]]]:  # noqa: F811
    """Where Acme's databases are, by provider; each has a table with a hundred users."""
    source_server.new_database("services")
    with source_server.connect("services") as connection:
        connection.execute("CREATE TABLE users AS SELECT n AS id, 'u' || n AS email FROM generate_series(1, 100) n")
        connection.execute("ALTER TABLE users ADD PRIMARY KEY (id)")
    with running_mariadb() as mariadb, running_mongodb() as mongodb:
        with closing(mariadb.connect()) as shop, shop.cursor() as cursor:
            cursor.execute("CREATE DATABASE services")
            cursor.execute("USE services")
            cursor.execute("CREATE TABLE users (id int PRIMARY KEY, email text)")
            cursor.execute("INSERT INTO users SELECT seq, concat('u', seq) FROM seq_1_to_100")
        with mongodb.client() as client:
            client.drop_database("services")
            client["services"].users.insert_many([{"_id": n, "email": f"u{n}"} for n in range(1, 101)])
        yield {
            "postgresql": {"host": "127.0.0.1", "port": str(source_server.port), "database": "services"},
            "mysql": {"host": "127.0.0.1", "port": str(mariadb.port), "database": "services"},
            "mongodb": mongodb.fields("services"),
        }


def _database(provider: str, where: dict[str, str]) -> IntegrationConfiguration:
    credentials = {"credential_type": "basic_auth", "username": "owner", "password": PASSWORD, "custom_fields": where}
    return configuration(
        f"acme-{provider}", provider_name=provider, integration_type=IntegrationType.DATABASE,
        credentials=IntegrationCredentials.model_validate(credentials),
        sync_config=SyncConfiguration(sync_mode=DataSyncMode.FULL, sync_frequency=86_400),
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _rates_of_any_age() -> Iterator[None]:
    """Of all processes: the businesses live now, and the exchange rates that are installed end some day."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHURNGUARD_RATES_CARRIED_DAYS", "36500")
        yield


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, products: dict[str, dict[str, str]]
) -> Iterator[Installation]:
    others = psutil.Process().children()  # of other tests of this process, e.g. a source's server
    home = Path(tempfile.mkdtemp(prefix="churnguard-services-"))
    home.chmod(0o755)
    settings = settings_for(home).model_copy(update={"dashboard_port": free_port(), "webhook_port": free_port()})
    store = Store.open(settings)
    with serve(tmp_path_factory.mktemp("sandbox"), scale=0.02) as sandbox:
        for name in ("acme", "globex"):
            add_organization(store, Organization(organization_id=name, name=name), actor="test")
            credentials = {
                "credential_type": "api_key",
                "api_key": f"rk_sandbox_{name}",
                "refresh_token": CANARIES[1],
            }
            add_integration(
                store,
                configuration(
                    name, organization_id=name, base_url=sandbox.url,
                    credentials=IntegrationCredentials.model_validate(credentials),
                    # not due within the test: what runs is what the test asks for, after the first schedule
                    sync_config=SyncConfiguration(requests_per_minute=60_000, sync_frequency=86_400),
                ),
                actor="test",
            )  # fmt: skip
        for provider, where in products.items():
            add_integration(store, _database(provider, where), actor="test")
        services = Services(store)
        try:
            for name in ("acme", "globex", *(f"acme-{provider}" for provider in products)):
                process = SyncProcess(store, SyncRequest(name))
                process.wait()
                assert process.report().status == "succeeded", process.report()
            services.start()
            threading.Thread(target=services.watch, name="watch", daemon=True).start()  # as `churnguard up` does
            yield Installation(store, services, sandbox)
        finally:
            ours = [child for child in psutil.Process().children() if child not in others]
            started = [*ours, *(each for child in ours for each in child.children(recursive=True))]
            services.stop()
            _, left = psutil.wait_procs(started, timeout=1)
            living = [each for each in left if each.status() != psutil.STATUS_ZOMBIE]  # which only wait for init
            assert living == [], "nothing outlives a stop"
            store.close()


def test_the_dashboard_answers_whom_it_knows(installation: Installation) -> None:
    url = installation.services.url
    assert httpx.get(f"{url}/server_info").status_code == 401
    shown = httpx.get(url, headers={"Accept": "text/html"}, follow_redirects=True)
    assert "Sign in with an API key" in shown.text
    key = create_key(installation.store, "ada", actor="test")
    assert "<!DOCTYPE html>" in httpx.get(url, headers=bearer(key), follow_redirects=True).text


def test_the_parts_of_an_installation_are_seen_to_be_well(installation: Installation) -> None:
    key = create_key(installation.store, "watcher", actor="test", role=Role.VIEWER)
    base = installation.services.url.removesuffix("/dashboard")
    health = httpx.get(f"{base}/api/dashboard/health", headers=bearer(key), timeout=30).json()
    assert [part["component"] for part in health["components"] if not part["ok"]] == [], health
    scraped = httpx.get(f"{base}/metrics", headers=bearer(key), timeout=30)
    assert 'churnguard_integrations{provider="stripe",status="healthy"} 2.0' in scraped.text
    assert httpx.get(f"{base}/metrics").status_code == 401


def test_a_viewer_sees_dagster_and_changes_nothing(installation: Installation) -> None:
    viewer = create_key(installation.store, "viewer", actor="test", role=Role.VIEWER)
    assert launched(installation, viewer) == "UnauthorizedError"
    admin = create_key(installation.store, "admin", actor="test")
    assert launched(installation, admin) == "LaunchRunSuccess"
    with installation.store.operator() as connection:
        noted = connection.exec_driver_sql(
            "SELECT actor, subject FROM control.audit_log WHERE action = 'dagster.change'"
        )
        assert {tuple(row) for row in noted} == {("_".join(admin.split("_")[:2]), "launchRun")}


def test_a_key_of_one_organization_does_not_see_dagster(installation: Installation) -> None:
    key = create_key(installation.store, "acme's", actor="test", organization_id="acme")
    refused = httpx.get(installation.services.url, headers=bearer(key), follow_redirects=True)
    assert refused.status_code == 403
    assert "Dagster shows every organization" in refused.text


def test_graphql_s_websocket_is_behind_the_same_door(installation: Installation) -> None:
    url = installation.services.url.replace("http://", "ws://") + "/graphql"
    with pytest.raises(websockets.exceptions.InvalidStatus), websockets.sync.client.connect(url):
        pass
    key = create_key(installation.store, "ada", actor="test")
    protocols = [websockets.Subprotocol("graphql-ws")]
    with websockets.sync.client.connect(url, additional_headers=bearer(key), subprotocols=protocols) as socket:
        socket.send('{"type": "connection_init"}')
        assert json.loads(socket.recv(timeout=30))["type"] == "connection_ack"


def test_webhooks_become_rows(installation: Installation) -> None:
    store, account = installation.store, installation.sandbox.account("acme")
    add_endpoint(store, organization_id="acme", provider="stripe", secret=SIGNING_SECRET, actor="test")
    installation.sandbox.webhooks("acme", f"{store.settings.webhooks_url}/stripe/acme", SIGNING_SECRET)
    made = [account.insert_customer(name=f"Hook {number}") for number in range(3)]

    def there() -> bool:
        with store.organization("acme") as connection:
            found = connection.exec_driver_sql("SELECT id FROM raw.stripe_customers WHERE name LIKE 'Hook %%'")
            return set(found.scalars()) == set(made)

    wait_for(there)
    with store.operator() as connection:
        outcomes = connection.exec_driver_sql("SELECT DISTINCT outcome FROM ingest.webhook_counts").scalars().all()
    assert "accepted" in outcomes


def test_dagster_is_killed_meanwhile_webhooks_are_taken_and_it_comes_back_and_stores_them(
    installation: Installation,
) -> None:
    """The gateway needs PostgreSQL only; what ended by itself is started again, and nothing else is."""
    store, services = installation.store, installation.services
    add_endpoint(store, organization_id="globex", provider="stripe", secret=SIGNING_SECRET, actor="test")
    roles = "churnguard_pipelines.orchestration.roles"
    installation.kill(f"{roles}.daemon", f"{roles}.code_server", "webhook_gateway.dashboard")
    with httpx.Client() as provider:
        for number in range(EVENTS_MEANWHILE):
            body = stripe_event(f"evt_{number}", created=1_900_000_000 + number, name=f"Meanwhile {number}")
            body = body.replace(b'"cus_1"', f'"cus_meanwhile_{number}"'.encode())
            answer = provider.post(
                f"{store.settings.webhooks_url}/stripe/globex",
                content=body,
                headers=stripe_headers(body, SIGNING_SECRET),
            )
            assert answer.status_code == 200

    def stored() -> int:
        with store.organization("globex") as connection:
            found = connection.exec_driver_sql(
                "SELECT count(*) FROM raw.stripe_customers WHERE name LIKE 'Meanwhile %%'"
            )
            return int(found.scalar_one())

    wait_for(lambda: stored() == EVENTS_MEANWHILE, PATIENCE_SECONDS)
    wait_for(lambda: answers(f"{services.url}/server_info"))
    assert (store.settings.home / "logs" / "daemon.log.1").exists(), "what it said before it ended is kept"


def test_a_killed_gateway_comes_back(installation: Installation) -> None:
    url = f"{installation.store.settings.webhooks_url}/health"
    assert answers(url)
    installation.kill("webhook_gateway.intake")
    wait_for(lambda: not answers(url))
    wait_for(lambda: answers(url))


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 500
    except httpx.TransportError:
        return False


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def launched(installation: Installation, key: str) -> str:
    """Dagster's answer to a launch from its web UI."""
    body = {"query": LAUNCH, "variables": {"selector": SELECTOR}}
    answer = httpx.post(f"{installation.services.url}/graphql", json=body, headers=bearer(key), timeout=60)
    return str(answer.json()["data"]["launchRun"]["__typename"])


def test_a_taken_port_is_named_with_the_way_out(installation: Installation) -> None:
    with pytest.raises(InvalidConfiguration, match=r"port \d+ on 127\.0\.0\.1 is in use .* DASHBOARD_PORT"):
        Services(installation.store).start()


def test_integrations_are_synced_again_by_a_backfill_of_the_plain_command(installation: Installation) -> None:
    output = installation.dagster(
        "job", "backfill", "-w", "workspace.yaml", "-j", "stripe_sync", "--partitions", "acme,globex", "--noprompt"
    )  # fmt: skip
    installation.backfilled(output, runs=2)
    assert "SUCCESS" in installation.runs("churnguard/integration", "acme")
    assert "SUCCESS" in installation.runs("churnguard/organization", "globex")


def test_a_sync_that_somebody_asks_for_runs_where_dagster_launches_its_runs(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does where each run is a pod: a process of ours only puts it into the queue, and looks how it goes."""
    [code_server] = yaml.safe_load(Path(installation.workspace).read_text())["load_from"]
    monkeypatch.setenv("CHURNGUARD_CODE_SERVER_PORT", str(code_server["grpc_server"]["port"]))
    sync = SubmittedSync(installation.store, SyncRequest("acme", DataSyncMode.FULL, ["prices", "products"]))
    sync.wait()
    report = sync.report()
    assert (report.status, report.mode, sorted(report.objects)) == ("succeeded", "full", ["prices", "products"])
    assert run_status(installation.store.dagster_database_url, sync.request.sync_id) in ("STARTED", "SUCCESS")


def test_databases_are_read_again_by_backfills_of_the_plain_command(installation: Installation) -> None:
    """Three at once, of the definitions that the code server has loaded."""
    tables = {provider: f"raw.{provider}_acme_{provider}_users" for provider in ("postgresql", "mysql", "mongodb")}
    with installation.store.organization("acme") as connection:
        for users in tables.values():  # some of it got lost
            connection.exec_driver_sql(f"DELETE FROM {users} WHERE length(email) < 3 OR email LIKE 'u1%%'")
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {users}").scalar_one() < 100

    def begin(provider: str) -> str:
        job, key = f"{provider}_sync", f"acme-{provider}"
        return installation.dagster(
            "job", "backfill", "-w", installation.workspace, "-j", job, "--partitions", key, "--noprompt"
        )

    with ThreadPoolExecutor() as pool:
        for output in list(pool.map(begin, tables)):
            installation.backfilled(output, runs=1)
    with installation.store.organization("acme") as connection:
        for users in tables.values():
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {users}").scalar_one() == 100


def test_months_are_read_again_by_a_backfill_of_the_plain_command(installation: Installation) -> None:
    store, sandbox = installation.store, installation.sandbox
    with store.organization("acme") as connection:  # two months got lost
        connection.exec_driver_sql(
            "DELETE FROM raw.stripe_charges WHERE created >= date_trunc('month', now()) - interval '3 months' "
            "AND created < date_trunc('month', now()) - interval '1 month'"
        )
    everything = sandbox.account("acme").counts()["charges"]
    assert Warehouse(store).count("stripe_charges", "acme", "acme") < everything
    now = datetime.now(UTC)
    first, last = (f"{_months_before(now, count):%Y-%m-01}" for count in (3, 2))
    output = installation.dagster(
        "job", "backfill", "-w", installation.workspace, "-j", "stripe_history",
        "--from", first, "--to", last, "--tags", '{"churnguard/integration": "acme"}', "--noprompt",
    )  # fmt: skip
    installation.backfilled(output, runs=2)
    assert Warehouse(store).count("stripe_charges", "acme", "acme") == everything


def test_mrr_is_computed_by_itself_after_a_sync(installation: Installation) -> None:
    wait_for(lambda: "SUCCESS" in installation.runs("dagster/from_automation_condition", "true"), PATIENCE_SECONDS)
    with installation.store.organization("acme") as connection:
        movements = connection.exec_driver_sql("SELECT count(*) FROM analytics.mrr_movements").scalar()
    assert movements is not None
    assert movements >= 24


def test_no_secret_is_anywhere_in_the_databases_or_the_logs(installation: Installation) -> None:
    store = installation.store
    for url in (store.database_url, store.dagster_database_url.replace("postgresql+psycopg2://", "postgresql://")):
        with psycopg.connect(as_administrator(url)) as connection:
            tables = connection.execute(
                "SELECT schemaname, tablename FROM pg_tables "
                "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND schemaname NOT LIKE 'pg_temp%'"
            ).fetchall()
            assert tables
            for name in tables:
                rows = SQL("SELECT count(*) FROM {} AS row WHERE row::text LIKE %s").format(Identifier(*name))
                for canary in CANARIES:
                    hits = connection.execute(rows, [f"%{canary}%"]).fetchone()
                    assert hits == (0,), f"{canary} is in {name}"
            for schema, table, column in connection.execute(BINARY).fetchall():
                binary = SQL("SELECT {} FROM {}").format(Identifier(column), Identifier(schema, table))
                for (value,) in connection.execute(binary):
                    text = unpacked(value or b"")
                    assert not any(canary.encode() in text for canary in CANARIES), (schema, table, column)
    logs = list((store.settings.home / "logs").glob("*.log"))
    assert logs
    for log in logs:
        assert not any(canary in log.read_text(errors="replace") for canary in CANARIES), log


def unpacked(value: bytes) -> bytes:
    """Dagster compresses what it keeps of definitions."""
    try:
        return zlib.decompress(value)
    except zlib.error:
        return value


def _months_before(moment: datetime, count: int) -> datetime:
    index = moment.year * 12 + moment.month - 1 - count
    return moment.replace(year=index // 12, month=index % 12 + 1, day=1)
