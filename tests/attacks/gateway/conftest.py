"""The two servers as processes of their own, honest deliveries, and strangers who come from other addresses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.postgres.database import Store
from tests.attacks.gateway.strangers import Server
from tests.waiting import wait_for
from tests.webhook_gateway import dashboard
from tests.webhook_gateway.intake.conftest import Gateway, endpoint, gateway, make_gateway

__all__ = ["dashboard_server", "endpoint", "gateway", "intake_server", "make_gateway", "server"]


@pytest.fixture
def intake_server(gateway: Gateway) -> Server:
    assert gateway.process is not None
    return Server(gateway.port, "/webhooks/stripe/acme", "/webhooks/health", psutil.Process(gateway.process.pid))


@pytest.fixture
def dashboard_server(store: Store, tmp_path: Path) -> Iterator[Server]:
    port = free_port()
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(f"load_from:\n  - python_file: {Path(dashboard.__path__[0]) / 'quiet.py'}\n")
    environment = dagster_environment(store) | {"DASHBOARD_PORT": str(port)}
    command = [sys.executable, "-m", "webhook_gateway.dashboard", "-w", str(workspace)]
    process = subprocess.Popen(command, env=environment)

    def answers() -> bool:
        assert process.poll() is None, "it ended"
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).is_success
        except httpx.TransportError:
            return False

    try:
        wait_for(answers)
        yield Server(port, "/login", "/healthz", psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(params=["intake_server", "dashboard_server"])
def server(request: pytest.FixtureRequest) -> Server:
    made: Callable[[str], Server] = request.getfixturevalue
    return made(request.param)
