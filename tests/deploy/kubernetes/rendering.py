"""The chart as Helm renders it: objects, as Kubernetes would be told of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "churnguard"
NEEDED: dict[str, Any] = {"existingSecret": "churnguard"}
"""The one value that has no default."""

Object = dict[str, Any]


def rendered(values: dict[str, Any] | None = None, *, name: str = "churnguard") -> dict[str, str]:
    """YAML by the template's path in the chart. Raises ``helm.HelmError``."""
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(NEEDED | (values or {}), name=name, namespace="churnguard")
    return {path.removeprefix("churnguard/templates/"): text for path, text in texts.items()}


def objects(values: dict[str, Any] | None = None, *, name: str = "churnguard") -> list[Object]:
    """All of them, hooks and tests too."""
    return _parsed(json.dumps(values or {}), name)


@cache
def _parsed(values: str, name: str) -> list[Object]:
    texts = (text for path, text in rendered(json.loads(values), name=name).items() if path.endswith(".yaml"))
    return [each for text in texts for each in yaml.load_all(text, yaml.CSafeLoader) if each]


def the(kind: str, name: str, among: list[Object]) -> Object:
    (found,) = (each for each in among if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def pods(among: list[Object]) -> dict[str, Object]:
    """The specification of every pod that the chart makes, by whose it is; that of a run's, too."""
    made = {
        f"{each['kind']} {each['metadata']['name']}": each["spec"]
        if each["kind"] == "Pod"
        else each["spec"]["template"]["spec"]
        for each in among
        if each["kind"] in ("Deployment", "Job", "Pod")
    }
    return made | {"run": run_pod(among)}


def instance(among: list[Object]) -> Object:
    """Dagster's instance."""
    loaded: Object = yaml.safe_load(the("ConfigMap", "churnguard-dagster", among)["data"]["dagster.yaml"])
    return loaded


def components(among: list[Object]) -> dict[str, Object]:
    """The template of every pod that the chart makes and goes on, by its component; that of a run's, too."""
    templates = [each["spec"]["template"] for each in among if each["kind"] == "Deployment"]
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each for each in (*templates, run_template(among))
    }


def selected(selector: Object, among: list[Object]) -> set[str]:
    """The components that Kubernetes finds by it: a Service's, or labels and expressions."""
    wanted = selector.get("matchLabels", {} if "matchExpressions" in selector else selector)
    refused = {each["key"]: each["values"] for each in selector.get("matchExpressions", ())}
    assert all(each["operator"] == "NotIn" for each in selector.get("matchExpressions", ()))
    return {
        name
        for name, template in components(among).items()
        if wanted.items() <= template["metadata"]["labels"].items()
        and not any(template["metadata"]["labels"].get(key) in values for key, values in refused.items())
    }


def run_pod(among: list[Object]) -> Object:
    """Of a run."""
    specification: Object = run_template(among)["spec"]
    return specification


def run_template(among: list[Object]) -> Object:
    """What dagster-k8s makes of the instance for a run: its own code, without a cluster."""
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job
    from kubernetes.client import ApiClient

    config = instance(among)["run_launcher"]["config"]
    context = K8sContainerContext.create_from_config({"k8s": {"run_k8s_config": config["run_k8s_config"]}})
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(
            job_image=config["job_image"],
            dagster_home=config["dagster_home"],
            service_account_name=config["service_account_name"],
            instance_config_map=config["instance_config_map"],
        ),
        ["dagster", "api", "execute_run"],
        "dagster-run",
        user_defined_k8s_config=context.run_k8s_config,
    )
    template: Object = ApiClient().sanitize_for_serialization(job)["spec"]["template"]
    return template
