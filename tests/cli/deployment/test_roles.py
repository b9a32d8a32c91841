"""A process of an installation that runs by itself: what it lacks is one sentence; what is away, it waits for."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import httpx
import psutil
import psycopg
import pytest
import sqlalchemy as sa
import typer
from dagster._daemon.types import DaemonHeartbeat
from psycopg.sql import SQL, Identifier

from churnguard_pipelines.cli.deployment import migrate, roles
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import Organization
from churnguard_pipelines.orchestration.dagster_storage import DagsterStorage
from churnguard_pipelines.orchestration.processes import dagster_schema
from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint
from churnguard_pipelines.store.postgres.database import Store
from tests.cli.deployment.process import running
from tests.conftest import as_administrator, configuration, on_database
from tests.telemetry.collector import collecting
from tests.waiting import wait_for
from tests.webhook_gateway.intake.conftest import SECRET, stripe_event, stripe_headers

ALONE = pytest.mark.parametrize(
    "role", [roles.gateway, roles.dashboard, roles.code_server, roles.worker], ids=lambda role: role.__name__
)


@pytest.fixture
def environment(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, str]]:
    """That of a role; this process has it, too."""
    heard = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)
    variables = dagster_environment(store)
    for name in ("CHURNGUARD_HOME", "CHURNGUARD_DATABASE_URL", "INTEGRATION_ENCRYPTION_KEY"):
        monkeypatch.setenv(name, variables[name])
    monkeypatch.delenv("CHURNGUARD_OWNER_DATABASE_URL", raising=False)
    yield variables
    signal.signal(signal.SIGTERM, heard)


def refusal(role: object) -> str:
    with pytest.raises(ChurnGuardError) as caught:
        role()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@ALONE
def test_without_a_database_it_is_told_what_to_set(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, role: object
) -> None:
    monkeypatch.delenv("CHURNGUARD_DATABASE_URL")
    assert "CHURNGUARD_DATABASE_URL is not set" in refusal(role)


@ALONE
def test_without_a_key_it_does_not_start(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, role: object
) -> None:
    monkeypatch.delenv("INTEGRATION_ENCRYPTION_KEY")
    assert "set INTEGRATION_ENCRYPTION_KEY" in refusal(role)


@ALONE
def test_an_older_schema_is_refused_with_the_command_that_migrates_it(
    environment: dict[str, str], store: Store, role: object
) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as administrator:
        administrator.execute("UPDATE control.alembic_version SET version_num = '0001'")
    assert "`churnguard migrate`" in refusal(role)


@pytest.fixture
def of_an_older_dagster(environment: dict[str, str]) -> Iterator[None]:
    """The tables of all tests on this server, for a while."""
    url = environment["CHURNGUARD_DAGSTER_DATABASE_URL"]
    DagsterStorage.from_config_value(None, {"postgres_url": url}).run_storage.dispose()
    with sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
        change = "UPDATE alembic_version SET version_num = '{}'"
        connection.exec_driver_sql(change.format("7e2f3204cf8e"))
        yield
        connection.exec_driver_sql(change.format(dagster_schema.NEWEST))


@pytest.mark.parametrize("role", ["dashboard", "code-server", "worker"])
def test_tables_of_an_older_dagster_are_refused_in_one_line(
    environment: dict[str, str], of_an_older_dagster: None, role: str
) -> None:
    with running(environment | {"DASHBOARD_PORT": str(free_port())}, role) as (process, log):
        assert process.wait(60) == 1
    assert "those of an older version of Dagster" in log.read_text()
    assert "Run `churnguard migrate`" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_the_migration_brings_dagster_s_tables_up_to_date(
    environment: dict[str, str], of_an_older_dagster: None
) -> None:
    migrate.migrate()
    assert dagster_schema.revision(environment["CHURNGUARD_DAGSTER_DATABASE_URL"]) == dagster_schema.NEWEST


def test_a_home_that_cannot_be_written_is_named(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(environment["CHURNGUARD_HOME"], "file", "below")
    home.parent.touch()
    monkeypatch.setenv("CHURNGUARD_HOME", str(home))
    assert f"{home / 'dagster'} cannot be written: Not a directory. Set CHURNGUARD_HOME" in refusal(roles.gateway)


def test_the_gateway_waits_for_a_database_that_is_away_takes_deliveries_and_ends_when_it_is_asked_to(
    environment: dict[str, str], store: Store
) -> None:
    url = as_administrator(store.database_url)
    name = Identifier(str(psycopg.conninfo.conninfo_to_dict(url)["dbname"]))
    port = str(free_port())
    store.close()
    with psycopg.connect(on_database(url, "postgres"), autocommit=True) as administrator:
        administrator.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        with running(environment | {"WEBHOOK_SERVER_PORT": port}, "gateway") as (process, log):
            wait_for(lambda: "is tried again in 2 s" in log.read_text())
            administrator.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
            wait_for(lambda: healthy(f"http://127.0.0.1:{port}/webhooks/health"))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    assert "Traceback" not in log.read_text()
    assert all("is not currently accepting connections" in line for line in log.read_text().splitlines())


@pytest.mark.parametrize("role", ["gateway", "dashboard", "code-server", "daemon", "worker"])
def test_who_is_asked_to_end_while_it_begins_ends_at_once(environment: dict[str, str], role: str) -> None:
    nowhere = f"postgresql://nobody:x@127.0.0.1:{free_port()}/churnguard"
    with running(environment | {"CHURNGUARD_DATABASE_URL": nowhere}, role) as (process, log):
        wait_for(lambda: "is tried again in 2 s" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "Traceback" not in log.read_text()


def test_the_gateway_s_last_spans_are_sent_when_it_is_asked_to_end(environment: dict[str, str], store: Store) -> None:
    add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
    add_integration(store, configuration(base_url="http://127.0.0.1:1"), actor="test")
    add_endpoint(store, organization_id="acme", provider="stripe", secret=SECRET, actor="test")
    port, body = str(free_port()), stripe_event("evt_1")
    with collecting() as collector:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
        with running(environment | told | {"WEBHOOK_SERVER_PORT": port}, "gateway") as (process, _):
            wait_for(lambda: healthy(f"http://127.0.0.1:{port}/webhooks/health"))
            url = f"http://127.0.0.1:{port}/webhooks/stripe/acme"
            assert httpx.post(url, content=body, headers=stripe_headers(body)).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        assert collector.named("receive stripe")


def test_a_dagster_command_that_is_cut_short_has_failed_and_leaves_no_process(environment: dict[str, str]) -> None:
    with running(environment, "dagster", "job", "list", "-m", "churnguard_pipelines.definitions") as (process, _):
        begun = psutil.Process(process.pid)
        wait_for(lambda: any("grpc" in each.cmdline() for each in begun.children()))
        children = begun.children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
        _, living = psutil.wait_procs(children, timeout=30)
        for each in living:
            each.kill()
        assert living == []


@pytest.mark.parametrize(
    ("role", "wrong", "said"),
    [
        ("gateway", {"INTEGRATION_ENCRYPTION_KEY": "short"}, "INTEGRATION_ENCRYPTION_KEY"),
        ("worker", {"WEBHOOK_SERVER_PORT": "none"}, "WEBHOOK_SERVER_PORT"),
        ("dashboard", {"DASHBOARD_HOST": "0.0.0.0"}, "DASHBOARD_TLS_CERT"),
        ("migrate", {"CHURNGUARD_OWNER_DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c"}, "Connection refused"),
    ],
    ids=["key", "setting", "module", "database"],
)
def test_where_logs_are_json_so_is_why_a_process_ended(
    environment: dict[str, str], role: str, wrong: dict[str, str], said: str
) -> None:
    with running(environment | {"INTEGRATION_ENGINE_LOG_FORMAT": "json"} | wrong, role) as (process, log):
        assert process.wait(60) == 1
    *_, last = map(json.loads, log.read_text().splitlines())
    assert said in last["message"]
    assert last["level"] == "CRITICAL"


def healthy(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_a_probe_that_gets_no_answer_from_the_database_blames_nobody(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("CHURNGUARD_DATABASE_URL", f"postgresql://nobody:x@127.0.0.1:{port}/churnguard")
        roles.daemon(check=True)
    assert "cannot be reached" in capsys.readouterr().out


def test_a_probe_sees_whether_the_daemon_lives(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHURNGUARD_DAGSTER_DATABASE_URL", environment["CHURNGUARD_DAGSTER_DATABASE_URL"])
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        instance.wipe_daemon_heartbeats()
        with pytest.raises(typer.Exit):
            roles.daemon(check=True)
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 600, "SENSOR", "hangs"))
        with pytest.raises(typer.Exit):
            roles.daemon(check=True)
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "lives"))
        roles.daemon(check=True)
    assert [line[:24] for line in capsys.readouterr().out.splitlines()] == [
        "No daemon has given a si",
        "The daemon is silent for",
    ]
