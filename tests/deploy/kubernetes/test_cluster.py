"""The chart on a real kube-apiserver and its controllers; the pods are processes of this machine.

The tests go on from each other: an installation lives through what follows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.deploy.conftest import Measured
from tests.deploy.kubernetes.installation import NAMESPACE, RELEASE, Installation
from tests.deploy.kubernetes.node import until
from tests.deploy.kubernetes.pod import MISSING
from tests.deploy.machine import ROOT
from tests.webhook_gateway.intake.conftest import inbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

QUICK = {
    "dagster": {"run_monitoring": {"poll_interval_seconds": 2}},
    "runs": {"startTimeoutSeconds": 60},
    "config": {"WEBHOOK_RATE_LIMIT_PER_MINUTE": 1_000_000},
}
"""The daemon looks after runs more often than it does by itself; an organization may deliver more than usual."""
RATE = 200
"""Webhooks a second."""


def test_readmes_commands_install_it(installation: Installation) -> None:
    """In a namespace that takes restricted pods only."""
    until(lambda: len(installation.node.serving(NAMESPACE, "gateway")) == 3, installation.node, NAMESPACE)

    def all_ready() -> bool:
        """The cluster's own count follows a little later than the node's."""
        found = [each["status"] for each in installation.objects("apis/apps/v1/deployments")]
        return all(status.get("readyReplicas") == status["replicas"] for status in found)

    until(all_ready, installation.node, NAMESPACE)
    assert [pod.restarts for pod in installation.node.pods(NAMESPACE)] == [0] * len(installation.node.pods(NAMESPACE))


def test_the_migration_ran_before_and_is_gone(installation: Installation) -> None:
    """Had it not, `Store.open` of the fixture would have refused the database."""
    assert "churnguard-migrate" not in {job["metadata"]["name"] for job in installation.objects("apis/batch/v1/jobs")}
    assert len(migrations(installation)) == 1


def test_helm_test_says_that_it_is_well(installation: Installation) -> None:
    with installation.helm() as config:
        config.test(RELEASE, timeout=300)


def test_the_root_is_read_only_and_dagsters_instance_too(installation: Installation) -> None:
    pod = installation.one("dashboard")
    for path in ("/etc/churnguard/dagster/dagster.yaml", "/etc/hostname"):
        tried = pod.execute("python3", "-c", f"open({path!r}, 'a')")
        assert "Read-only file system" in tried.stderr or "Permission denied" in tried.stderr


def test_the_daemons_probe_finds_it_alive(installation: Installation) -> None:
    pod = installation.one("daemon")
    probe = pod.specification["containers"][0]["livenessProbe"]["exec"]["command"]
    until(lambda: pod.execute(*probe).returncode == 0, installation.node, NAMESPACE)


def test_an_upgrade_changes_what_it_is_about(installation: Installation) -> None:
    """And brings the schema up to date before, which it is."""
    installation.upgrade(**QUICK)
    (gateway,) = installation.one("gateway").specification["containers"]
    assert {"name": "WEBHOOK_RATE_LIMIT_PER_MINUTE", "value": "1000000"} in gateway["env"]
    assert len(migrations(installation)) == 2


def test_a_rolling_restart_loses_no_delivery(installation: Installation, measured: Measured) -> None:
    """Every accepted id is in the inbox, once, however the three gateways are replaced meanwhile."""
    before = {pod.uid for pod in installation.node.pods(NAMESPACE, component="gateway")}
    with Deliveries(installation) as deliveries:
        kubectl(installation, "rollout", "restart", "deployment/churnguard-gateway")
        kubectl(installation, "rollout", "status", "deployment/churnguard-gateway", "--timeout=10m")
    after = {pod.uid for pod in installation.node.serving(NAMESPACE, "gateway")}
    assert len(after) == 3
    assert not before & after, "all three were replaced"
    accepted = deliveries.accepted
    measured(
        f"kubernetes: a rolling restart under {deliveries.rate:.0f} webhooks a second: {len(accepted)} accepted, "
        f"{deliveries.refused} refused"
    )
    assert len(accepted) > RATE
    kept = inbox(installation.store)
    assert set(accepted) - set(kept) == set()
    assert len(kept) == len(set(kept))


def test_a_sync_is_a_job_of_its_own(installation: Installation) -> None:
    run = installation.ask("POST", "/api/integrations/acme/sync").raise_for_status().json()["sync_id"]
    installation.becomes(run, "SUCCESS")
    with installation.store.organization("acme") as connection:
        there = "SELECT count(*) FROM raw.stripe_customers WHERE deleted_at IS NULL"
        rows = connection.exec_driver_sql(there).scalar_one()
    assert rows == installation.sandbox.account("acme").counts()["customers"] > 0
    (job,) = [each for each in installation.objects("apis/batch/v1/jobs") if run in json.dumps(each["metadata"])]
    told = json.dumps(job)
    assert installation.store.settings.encryption_key is not None
    assert installation.store.settings.encryption_key.get_secret_value() not in told
    assert "postgresql://" not in told


def test_a_run_s_process_is_at_work(installation: Installation, measured: Measured) -> None:
    before = installation.sandbox.requests
    with _endless(installation) as run:
        pod = installation.pod_of(run)
        until(lambda: installation.sandbox.requests > before, installation.node, NAMESPACE)
        measured(f"kubernetes: {pod.processor_seconds:.1f} s of a processor until a run's first call")
        assert installation.terminate(run) == "TerminateRunSuccess"
        installation.becomes(run, "CANCELED")


def test_a_run_that_is_killed_has_failed(installation: Installation) -> None:
    with _endless(installation) as run:
        installation.pod_of(run).kill()
        installation.becomes(run, "FAILURE")


def test_a_run_that_is_evicted_has_ended(installation: Installation) -> None:
    with _endless(installation) as run:
        pod = installation.pod_of(run)
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod.pod_name}/eviction"
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.pod_name}}
        installation.cluster.ask("POST", path, body)
        until(lambda: installation.status(run) in ("FAILURE", "CANCELED"), installation.node, NAMESPACE)


def test_a_run_that_is_terminated_is_gone(installation: Installation) -> None:
    with _endless(installation) as run:
        pod = installation.pod_of(run)
        assert installation.terminate(run) == "TerminateRunSuccess"
        installation.becomes(run, "CANCELED")
        until(lambda: pod.gone, installation.node, NAMESPACE)
        assert not [each for each in installation.objects("apis/batch/v1/jobs") if run in json.dumps(each["metadata"])]


def test_a_run_that_takes_too_long_is_ended_by_the_daemon(installation: Installation) -> None:
    with _endless(installation, dagster__max_runtime="1") as run:
        pod = installation.pod_of(run)
        until(lambda: installation.status(run) in ("FAILURE", "CANCELED"), installation.node, NAMESPACE)
        until(lambda: pod.gone, installation.node, NAMESPACE)


def test_a_run_that_never_starts_has_failed(installation: Installation) -> None:
    image = {"container_config": {"image": f"churnguard-pipelines:{MISSING}"}}
    run = installation.launch_sync(**{"dagster-k8s__config": json.dumps(image)})
    installation.becomes(run, "FAILURE")
    assert "Run timed out due to taking longer than 60 seconds to start" in installation.words_of(run)


def test_after_all_that_the_next_sync_succeeds(installation: Installation) -> None:
    installation.becomes(installation.launch_sync(), "SUCCESS")


RARELY = {("jobs", "list"), ("pods/log", "get")}
"""What `dagster_k8s` asks, for the run's log, about a run that failed with its pod still there, or without any."""


@pytest.mark.parametrize("account", ["daemon", "dashboard"])
def test_a_role_has_what_is_used_and_no_more(installation: Installation, account: str) -> None:
    """Of what the tests before this one had it do."""
    (role,) = [
        each
        for each in installation.objects("apis/rbac.authorization.k8s.io/v1/roles")
        if each["metadata"]["name"] == f"churnguard-{account}"
    ]
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    asked = list(installation.cluster.requests(f"{NAMESPACE}:churnguard-{account}"))
    about = [
        each["objectRef"] | {"verb": each["verb"], "code": each["responseStatus"]["code"]}
        for each in asked
        if "objectRef" in each
    ]
    used = {("/".join(filter(None, (each["resource"], each.get("subresource")))), each["verb"]) for each in about}
    assert {each["code"] for each in about} & {401, 403} == set()
    assert granted - RARELY == used - RARELY


def test_whoever_does_not_start_runs_asks_nothing_of_kubernetes(installation: Installation) -> None:
    assert list(installation.cluster.requests(f"{NAMESPACE}:churnguard")) == []


def test_a_roll_back_runs_on_the_newer_schema(installation: Installation) -> None:
    """Which stays: nothing migrates down."""
    with psycopg.connect(installation.owner_url) as connection:
        connection.execute("UPDATE control.alembic_version SET version_num = 'zzzz'")
    with installation.helm() as config:
        installation.patiently(lambda: config.rollback(RELEASE, version=1, wait="watcher", timeout=600))
    for component in ("gateway", "dashboard", "code-server"):
        assert installation.one(component).restarts == 0
    assert installation.ask("GET", "/api/dashboard/health").is_success


def migrations(installation: Installation) -> list[str]:
    """The pods that said that the schema is up to date, by name."""
    said = installation.node.said(NAMESPACE)
    return [name for name, text in said.items() if "is up to date" in " ".join(text.split())]


def kubectl(installation: Installation, *arguments: str) -> str:
    ended = subprocess.run(
        ["kubectl", *arguments], env=installation.environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@contextmanager
def _endless(installation: Installation, **tags: str) -> Iterator[str]:
    """A sync that has begun, and whose provider never answers; its run's id."""
    installation.sandbox.fault("hang")
    try:
        run = installation.launch_sync(**tags)
        until(
            lambda: installation.status(run) not in ("UNKNOWN", "NOT_STARTED", "QUEUED", "STARTING"),
            installation.node,
            NAMESPACE,
        )
        yield run
    finally:
        installation.sandbox.clear_faults()


class Deliveries:
    """A provider that delivers ``RATE`` webhooks a second, in turn to the gateways that a Service would lead to; a
    context, after which it is known what became of them."""

    def __init__(self, installation: Installation) -> None:
        self._node = installation.node
        self._stopping = threading.Event()
        self._telling = threading.Thread(target=self._tell)
        self.accepted: list[str] = []
        self.refused = 0
        self.rate = 0.0

    def __enter__(self) -> Deliveries:
        command = [sys.executable, "-m", "tests.deploy.kubernetes.sender", str(RATE)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._telling.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._telling.join()
        told = json.loads(self._process.communicate()[0])
        self.accepted, self.refused, self.rate = told["accepted"], told["refused"], told["rate"]

    def _tell(self) -> None:
        """As a Service's proxies are told, a moment later."""
        assert self._process.stdin is not None
        told: list[str] = []
        while not self._stopping.wait(0.1):
            serving = [pod.address for pod in self._node.serving(NAMESPACE, "gateway")]
            if serving != told:
                self._process.stdin.write(" ".join(serving) + "\n")
                self._process.stdin.flush()
                told = serving
