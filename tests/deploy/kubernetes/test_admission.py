"""What a real kube-apiserver says to the rendered chart, without running any of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.kubernetes.cluster import Cluster, Object
from tests.deploy.kubernetes.rendering import objects, pods
from tests.deploy.kubernetes.test_chart import EVERYTHING, FOREIGN
from tests.waiting import wait_for

STRICT = {"dryRun": "All", "fieldValidation": "Strict"}
NAMESPACE = "admission"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # the first builds a kube-apiserver, once on a machine


@pytest.fixture(scope="module", autouse=True)
def namespace(cluster: Cluster) -> None:
    """Where restricted pods only are taken."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": labels}})
    accounts = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    wait_for(lambda: cluster.api.get(f"{accounts}/default").is_success)  # a controller makes it
    high = {"metadata": {"name": EVERYTHING["pod"]["priorityClassName"]}, "value": 1000}
    cluster.ask("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", high)
    for each in objects():
        if each["kind"] == "ServiceAccount":
            created(cluster, each)


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["as it comes", "everything"])
def test_every_object_is_taken_to_the_letter(cluster: Cluster, values: dict[str, Any]) -> None:
    made = [each for each in objects(values) if each["kind"] not in FOREIGN]
    for each in made:
        if each["kind"] != "ServiceAccount":
            created(cluster, each, **STRICT)


@pytest.mark.parametrize("name", sorted(pods(objects())))
def test_every_pod_is_admitted_where_restricted_ones_are(cluster: Cluster, name: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a-pod"}, "spec": pods(objects())[name]}
    created(cluster, pod, **STRICT)


def created(cluster: Cluster, made: Object, **parameters: str) -> None:
    version = made["apiVersion"]
    kind = made["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}{'es' if kind.endswith('s') else 's'}"
    root = "api" if version == "v1" else "apis"
    body = made | {"metadata": made["metadata"] | {"namespace": NAMESPACE}}
    response = cluster.api.post(f"/{root}/{version}/namespaces/{NAMESPACE}/{plural}", json=body, params=parameters)
    assert response.is_success, response.text
