"""One cluster and one node for all tests in here, and an installation of the chart by README's own commands."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from churnguard_pipelines.model import IntegrationCredentials, Organization, SyncConfiguration
from churnguard_pipelines.sandbox.serve import serve
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import Copied, as_administrator, configuration, settings_for
from tests.deploy.conftest import Measured
from tests.deploy.kubernetes.cluster import Cluster
from tests.deploy.kubernetes.installation import NAMESPACE, Installation
from tests.deploy.kubernetes.node import Node, last_words
from tests.deploy.machine import ROOT, lack, program
from tests.webhook_gateway.intake.conftest import SECRET

TOOLS = ROOT / ".ci" / "kube" / "tools.sh"


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of etcd, kube-apiserver, kube-controller-manager and kubectl."""
    if os.geteuid() != 0:
        lack("the node of the tests mounts pods' volumes, which only root may do")
    for name, package in (("go", "golang"), ("unshare", "util-linux"), ("setpriv", "util-linux")):
        program(name, package)
    made = subprocess.run([TOOLS], capture_output=True, text=True, check=False)
    if made.returncode:
        lack(f"{TOOLS.relative_to(ROOT)} did not make a kube-apiserver: {made.stderr.strip()[-500:]}")
    return Path(made.stdout.strip())


@pytest.fixture(scope="session")
def cluster(programs: Path, measured: Measured) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="churnguard-kube-"))
    begun = time.monotonic()
    with Cluster(programs, folder) as started:
        measured(f"kubernetes: a control plane in {time.monotonic() - begun:.0f} s")
        yield started
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> Iterator[Node]:
    folder = Path(tempfile.mkdtemp(prefix="churnguard-node-"))
    folder.chmod(0o711)
    with Node(cluster, folder) as started:
        yield started
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def installation(
    cluster: Cluster, node: Node, programs: Path, copied: Copied, tmp_path_factory: pytest.TempPathFactory,
    measured: Measured,
) -> Iterator[Installation]:  # fmt: skip
    """README's two commands, where restricted pods only are taken; an organization with a simulated Stripe."""
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    cluster.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": labels}})
    with copied("template0") as url, serve(tmp_path_factory.mktemp("sandbox"), scale=0.02) as sandbox:
        begun = time.monotonic()
        environment = _a_shell(cluster, programs, tmp_path_factory.mktemp("bin"))
        owner = as_administrator(url)
        ended = subprocess.run(
            ["bash", "-euc", readme_commands()], cwd=ROOT, capture_output=True, text=True, check=False,
            env=environment | {"OWNER_URL": owner, "SERVICES_URL": url},
        )  # fmt: skip
        assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{last_words(node, NAMESPACE)}"
        measured(f"kubernetes: README's commands in {time.monotonic() - begun:.0f} s")
        key = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/churnguard")["data"]["INTEGRATION_ENCRYPTION_KEY"]
        settings = settings_for(tmp_path_factory.mktemp("home"), url, encryption_key=base64.b64decode(key).decode())
        with closing(Store.open(settings)) as store:
            _acme(store, sandbox.url)
            yield Installation(cluster, node, store, sandbox, environment, owner)


def readme_commands() -> str:
    """The block of README's section on Kubernetes."""
    section = (ROOT / "README.md").read_text().partition("## On Kubernetes")[2]
    found = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def _a_shell(cluster: Cluster, programs: Path, folder: Path) -> dict[str, str]:
    """The environment of an administrator of the cluster, whose namespace is chosen, and who has kubectl and helm."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = NAMESPACE
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    helm = folder / "helm"
    helm.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.deploy.kubernetes.helm "$@"\n')
    helm.chmod(0o755)
    path = f"{folder}:{programs}:{os.environ.get('PATH', os.defpath)}"
    return os.environ | {"PATH": path, "KUBECONFIG": str(folder / "kubeconfig")}


def _acme(store: Store, stripe: str) -> None:
    """Whose integration is not due while the tests run: what runs is what they ask for."""
    add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
    rest = SyncConfiguration(requests_per_minute=60_000, sync_frequency=86_400)
    credentials = {"credential_type": "api_key", "api_key": "rk_sandbox_acme"}
    made = configuration(
        "acme", base_url=stripe, sync_config=rest, credentials=IntegrationCredentials.model_validate(credentials)
    )
    add_integration(store, made, actor="test")
    add_endpoint(store, organization_id="acme", provider="stripe", secret=SECRET, actor="test")
