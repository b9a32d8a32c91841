"""The README's commands for Docker, as they stand there: what comes up, and what becomes of webhooks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from churnguard_pipelines.ports import free_port
from tests.deploy.docker.engine import Engine
from tests.deploy.machine import ROOT
from tests.waiting import wait_for
from tests.webhook_gateway.intake.conftest import SECRET, stripe_event, stripe_headers

ROLES = ("gateway", "code-server", "daemon", "dashboard")
SERVERS = ("db", "redis", "kafka")
UP_SECONDS, ROW_SECONDS = 1200.0, 600.0
DELIVERIES, STOPPED_AFTER = 400, 50
_FILE = "-f deploy/compose.yaml"


def readme_commands(naming: str) -> list[str]:
    """Those of the README's block of commands that names this file, without their comments."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [each for each in blocks if naming in each]
    return [line.partition(" #")[0].strip() for line in block.splitlines() if line.strip()]


@dataclass
class Stack:
    """An installation by compose, in a copy of `deploy/` with secrets of its own."""

    engine: Engine
    folder: Path
    environment: dict[str, str]
    gateway: str
    dashboard: str

    def run(self, command: str, seconds: float = UP_SECONDS) -> str:
        """As somebody types it in the project's folder."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}\n{self._logs()}"
        return done.stdout

    def compose(self, command: str) -> str:
        return self.run(f"docker compose {_FILE} {command}")

    def rows(self, statement: str) -> list[str]:
        """As the database's superuser; a line for each row."""
        asked = (
            f'exec -T db psql --username postgres --no-align --tuples-only --quiet churnguard --command "{statement}"'
        )
        return self.compose(asked).splitlines()

    def containers(self) -> dict[str, dict[str, Any]]:
        """By service, as `docker inspect` has them."""
        ids = self.engine.docker(
            "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project"
        ).stdout.split()
        found = json.loads(self.engine.docker("inspect", *ids).stdout)
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def deliver(self, event: bytes) -> bool:
        """Whether the gateway took the event; nobody may be there, or on the way out."""
        try:
            answer = httpx.post(
                f"{self.gateway}/webhooks/stripe/acme", content=event, headers=stripe_headers(event), timeout=60
            )
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    def _logs(self) -> str:
        logs = ["docker", "compose", *_FILE.split(), "logs", "--no-color", "--tail", "40"]
        shown = subprocess.run(logs, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        return shown.stdout[-20_000:]


@pytest.fixture(scope="module")
def stack(engine: Engine, image: str, servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns(".env"))
    ports = free_port(), free_port()
    environment = engine.environment | {
        "COMPOSE_PROJECT_NAME": "churnguard-test",
        "WEBHOOK_SERVER_PORT": str(ports[0]),
        "DASHBOARD_PORT": str(ports[1]),
        "SANDBOX_SCALE": "0.02",
    }
    started = Stack(engine, folder, environment, *(f"http://127.0.0.1:{port}" for port in ports))
    try:
        for command in readme_commands("deploy/secrets.sh"):
            started.run(command)
        yield started
    finally:
        started.compose("-f deploy/compose.demo.yaml down --volumes --timeout 20")


@pytest.fixture(scope="module")
def demo(stack: Stack) -> str:
    """The demo in the same containers; gives what it printed."""
    up, logs = readme_commands("compose.demo.yaml")
    stack.run(up)
    return stack.run(logs)


def test_every_role_is_up_on_a_read_only_root_without_capabilities(stack: Stack) -> None:
    found = stack.containers()
    for name in (*ROLES, *SERVERS, "migrate"):
        host = found[name]["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert found[name]["Config"]["User"] not in ("", "root", "0"), name
    assert found["migrate"]["State"]["ExitCode"] == 0
    assert {name: found[name]["State"]["Health"]["Status"] for name in (*ROLES, *SERVERS)} == dict.fromkeys(
        (*ROLES, *SERVERS), "healthy"
    )


def test_ports_are_published_on_loopback_only(stack: Stack) -> None:
    published = {
        name: {bound["HostIp"] for each in container["HostConfig"]["PortBindings"].values() for bound in each}
        for name, container in stack.containers().items()
    }
    assert {name: hosts for name, hosts in published.items() if hosts} == {
        "gateway": {"127.0.0.1"},
        "dashboard": {"127.0.0.1"},
    }


def test_only_the_migration_has_the_owners_rights(stack: Stack) -> None:
    environments = {name: " ".join(each["Config"]["Env"]) for name, each in stack.containers().items()}
    assert [name for name, variables in environments.items() if "OWNER_DATABASE" in variables] == ["migrate"]


def test_the_dashboard_lets_in_who_has_a_key(stack: Stack) -> None:
    assert (
        httpx.get(f"{stack.dashboard}/api/dashboard/integrations", timeout=60).status_code == httpx.codes.UNAUTHORIZED
    )
    key = stack.compose("exec -T dashboard churnguard api-keys create me").split()[-1]
    answer = httpx.get(
        f"{stack.dashboard}/api/dashboard/health", headers={"Authorization": f"Bearer {key}"}, timeout=60
    )
    assert answer.status_code == httpx.codes.OK
    seen = {each["component"]: each["ok"] for each in answer.json()["components"]}
    assert {name: seen[name] for name in ("database", "daemon", "gateway")} == dict.fromkeys(
        ("database", "daemon", "gateway"), True
    )


def test_a_health_check_that_left_a_child_behind_does_not_restart_the_database(stack: Stack) -> None:
    """As Docker does with one that takes too long: its shell is killed, and pg_isready ends with 2 some time later."""
    started = stack.rows("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    orphan = stack.compose("exec -T db sh -c '(sleep 1; exit 2) > /dev/null & echo $!'").strip()
    wait_for(lambda: "gone" in stack.compose(f"exec -T db sh -c 'test -e /proc/{orphan} || echo gone'"))
    assert stack.rows("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'") == started


def test_the_demo_brings_its_businesses_in(demo: str) -> None:
    assert "Synced in" in demo
    assert "agree with the business's own books" in demo
    assert "✗" not in demo


def test_a_signed_webhook_is_a_row(stack: Stack, demo: str) -> None:
    (endpoint,) = stack.rows(
        "SELECT endpoint_id FROM control.webhook_endpoints WHERE provider = 'stripe' AND organization_id = 'acme'"
    )
    stack.compose(f"exec -T --env WEBHOOK_SECRET={SECRET} gateway churnguard webhooks rotate {endpoint}")
    event = stripe_event("evt_compose", "customer.created").replace(b'"cus_1"', b'"cus_compose"')
    wait_for(lambda: stack.deliver(event))
    row = "SELECT organization_id FROM raw.stripe_customers WHERE id = 'cus_compose'"
    wait_for(lambda: stack.rows(row) == ["acme"], ROW_SECONDS)


def test_what_the_gateway_took_while_it_was_being_stopped_is_there(stack: Stack, demo: str) -> None:
    events = {f"evt_drain_{number}": stripe_event(f"evt_drain_{number}") for number in range(DELIVERIES)}
    accepted: list[str] = []

    def deliver(name: str) -> None:
        if stack.deliver(events[name]):
            accepted.append(name)

    wait_for(lambda: stack.deliver(stripe_event("evt_drain_begins")))
    with ThreadPoolExecutor(8) as senders:
        sent = [senders.submit(deliver, name) for name in events]
        wait_for(lambda: len(accepted) >= STOPPED_AFTER)
        stack.compose("stop gateway")
        for each in sent:
            each.result()
    state = stack.containers()["gateway"]["State"]
    assert STOPPED_AFTER <= len(accepted) < DELIVERIES
    assert state["ExitCode"] == 0, "it ended by itself, when it was asked to"
    kept = stack.rows("SELECT event_id FROM ingest.webhook_inbox WHERE event_id LIKE 'evt_drain_%'")
    assert sorted({*kept} & {*accepted}) == sorted(accepted)
    assert len(kept) == len({*kept})


def test_a_worker_does_the_same_work_and_ends_when_it_is_asked_to(stack: Stack, demo: str) -> None:
    stack.compose("--profile worker up --detach --no-deps worker")
    (network,) = stack.containers()["worker"]["NetworkSettings"]["Networks"].values()
    connected = f"SELECT count(*) > 1 FROM pg_stat_activity WHERE client_addr = '{network['IPAddress']}'"
    wait_for(lambda: stack.rows(connected) == ["t"], ROW_SECONDS)
    stack.compose("--profile worker stop worker")
    state = stack.containers()["worker"]["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)


def test_a_home_that_is_read_only_is_named_in_one_line(stack: Stack) -> None:
    dashboard = stack.containers()["dashboard"]
    (network,) = dashboard["NetworkSettings"]["Networks"]
    environment = [f"--env={each}" for each in dashboard["Config"]["Env"]]
    hardened = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", f"--network={network}")
    image = dashboard["Config"]["Image"]
    ended = stack.engine.docker("run", "--rm", *hardened, *environment, image, "dashboard", check=False)
    assert ended.returncode == 1
    assert "/var/lib/churnguard/dagster cannot be written: Read-only file system." in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr


def test_a_role_without_the_key_says_so_in_one_line_and_ends(stack: Stack) -> None:
    without = "run --rm --no-deps --env INTEGRATION_ENCRYPTION_KEY= gateway"
    ended = stack.compose(f"{without} gateway 2>&1 || echo ended $?")
    assert "INTEGRATION_ENCRYPTION_KEY" in ended
    assert "Traceback" not in ended
    assert ended.rstrip().endswith("ended 1")
