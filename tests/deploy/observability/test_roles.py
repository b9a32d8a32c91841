"""An installation of one process for each role, as Prometheus, a collector of traces and one of logs see it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from churnguard_pipelines.model import Organization
from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import Copied, configuration, settings_for
from tests.deploy.observability.files import metrics_asked_for
from tests.telemetry.collector import Collector, collecting
from tests.waiting import wait_for
from tests.webhook_gateway.intake.conftest import SECRET, stripe_event, stripe_headers

ROLES = ("gateway", "dashboard", "code-server", "daemon", "worker")
START_SECONDS = 180.0

pytestmark = pytest.mark.timeout(400)


@dataclass
class Observed:
    """``logs``, ``ports``: by role; ``collector``: is sent their spans."""

    store: Store
    collector: Collector
    webhooks: str
    logs: dict[str, Path]
    ports: dict[str, int]

    def scrape(self, role: str) -> dict[str, Metric]:
        told = httpx.get(f"http://127.0.0.1:{self.ports[role]}/metrics", timeout=60).raise_for_status()
        return {family.name: family for family in text_string_to_metric_families(told.text)}

    def answers(self, role: str) -> bool:
        try:
            return "churnguard_build_info" in self.scrape(role)
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def observed(copied: Copied, _template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    home = tmp_path_factory.mktemp("home")
    with copied(_template) as url, collecting() as collector, ExitStack() as ends:
        store = Store.open(settings_for(home, url))
        ends.callback(store.close)
        add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
        add_integration(store, configuration(base_url="http://127.0.0.1:1"), actor="test")
        add_endpoint(store, organization_id="acme", provider="stripe", secret=SECRET, actor="test")
        ports = {role: free_port() for role in ROLES}
        webhooks = free_port()
        environment = dagster_environment(store) | {
            "INTEGRATION_ENGINE_LOG_FORMAT": "json",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "WEBHOOK_SERVER_PORT": str(webhooks),
            "DASHBOARD_PORT": str(free_port()),
            "DASHBOARD_UPDATE_INTERVAL": "1",
            "CHURNGUARD_CODE_SERVER_PORT": str(free_port()),
        }
        logs = {role: home / f"{role}.json" for role in ROLES}
        for role in ROLES:
            ends.enter_context(
                running(role, environment | {"CHURNGUARD_METRICS_PORT": str(ports[role])}, logs[role], home)
            )
        made = Observed(store, collector, f"http://127.0.0.1:{webhooks}/webhooks", logs, ports)
        for role in ROLES:
            wait_for(partial(made.answers, role), START_SECONDS)
        yield made


@contextmanager
def running(role: str, environment: dict[str, str], log: Path, home: Path) -> Iterator[None]:
    program = "from churnguard_pipelines.cli import main; main()"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, role], env=environment, cwd=home, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        _, living = psutil.wait_procs(started, timeout=60)
        for each in living:
            each.kill()


def test_a_webhook_is_followed_to_its_row(observed: Observed) -> None:
    body = stripe_event("evt_1")
    taken = httpx.post(f"{observed.webhooks}/stripe/acme", content=body, headers=stripe_headers(body), timeout=60)
    assert taken.status_code == 200
    wait_for(lambda: observed.collector.named("store stripe"), START_SECONDS)
    wait_for(lambda: observed.collector.named("receive stripe"), START_SECONDS)
    [received] = observed.collector.named("receive stripe")
    stored = observed.collector.named("store stripe")[0]
    assert [(link.trace_id, link.span_id) for link in stored.links] == [(received.trace_id, received.span_id)]
    services = {service for service, span in observed.collector.spans if span.trace_id == received.trace_id}
    assert {"churnguard-gateway", "churnguard-worker"} <= services


def test_each_role_tells_of_itself(observed: Observed) -> None:
    for role in ROLES:
        families = observed.scrape(role)
        [build] = families["churnguard_build_info"].samples
        assert build.labels["role"] == role
        assert families["process_resident_memory_bytes"].samples[0].value > 0


def test_what_rules_and_dashboards_ask_for_is_what_processes_tell(observed: Observed) -> None:
    """By name. Dagster's numbers begin with its daemon's first sign of life."""
    wait_for(lambda: "churnguard_dagster_heartbeat_age_seconds" in observed.scrape("dashboard"), START_SECONDS)
    told = {
        name
        for role in ROLES
        for family in observed.scrape(role).values()
        for name in (family.name, f"{family.name}_total", *(sample.name for sample in family.samples))
    }
    commits = {f"churnguard_webhook_commit_seconds_{part}" for part in ("bucket", "count")}
    assert commits <= told
    assert metrics_asked_for() - told == set()


def test_the_gateway_counts_deliveries_by_what_became_of_them(observed: Observed) -> None:
    unsigned = httpx.post(
        f"{observed.webhooks}/stripe/acme", content=b"{}", headers={"content-type": "application/json"}, timeout=60
    )
    nowhere = httpx.post(f"{observed.webhooks}/nobody/acme", content=b"{}", timeout=60)
    assert (unsigned.status_code, nowhere.status_code) == (401, 404)
    families = observed.scrape("gateway")
    counted = {
        (sample.labels["provider"], sample.labels["outcome"]): sample.value
        for sample in families["churnguard_webhook_requests"].samples
        if sample.name.endswith("_total")
    }
    assert counted["stripe", "accepted"] >= 1
    assert counted["stripe", "bad_signature"] == 1
    assert counted["unknown", "unknown_address"] == 1
    assert families["churnguard_webhook_storing"].samples[0].value == 1


def test_each_line_of_each_log_is_an_object(observed: Observed) -> None:
    for role, log in observed.logs.items():
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            assert {"time", "level", "logger", "message"} <= entry.keys(), role
