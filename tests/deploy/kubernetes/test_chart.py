"""What the chart renders to, without a cluster."""

from __future__ import annotations

import json
import os
import re
import time
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from churnguard_pipelines.settings import Settings
from tests.deploy.kubernetes.rendering import (
    CHART,
    NEEDED,
    ROOT,
    components,
    instance,
    objects,
    pods,
    rendered,
    run_pod,
    selected,
    the,
)

OLDEST, NEWEST = "1.30", "1.36"
EVERYTHING: dict[str, Any] = {
    "secretKeys": {"redisUrl": "REDIS_URL", "oidcClientSecret": "OIDC_CLIENT_SECRET"},
    "config": {"OIDC_ISSUER": "https://id.example.com", "WEBHOOK_MAX_PAYLOAD_SIZE": 10_485_760},
    "image": {"registry": "registry.example.com", "tag": "1.2.3"},
    "imagePullSecrets": [{"name": "pull"}],
    "commonLabels": {"team": "data"},
    "pod": {
        "annotations": {"example.com/a": "b"},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "priorityClassName": "high",
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/own", "readOnly": True}],
    },
    "gateway": {
        "ingress": {"enabled": True, "className": "nginx", "host": "hooks.example.com"},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["hooks.example.com"]},
    },
    "dashboard": {"ingress": {"enabled": True, "className": "internal", "host": "churnguard.internal"}},
    "worker": {"keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090"}},
    "monitoring": {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "grafanaDashboards": {"enabled": True},
    },
}  # fmt: skip
FOREIGN = {"HTTPRoute", "ScaledObject", "ServiceMonitor", "PrometheusRule"}
"""Of other projects, whose schemas do not come with Kubernetes."""


def test_linter_has_nothing_to_say() -> None:
    said = helm.lint(CHART, NEEDED, strict=True)
    assert [each for each in said["messages"] if each["error"] != "icon is recommended"] == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["as it comes", "everything"])
def test_every_object_is_one_that_kubernetes_takes(version: str, values: dict[str, Any]) -> None:
    made = [each for each in objects(values) if each["kind"] not in FOREIGN]
    assert len(made) > 15
    for each in made:
        kubernetes_validate.validate(each, version, strict=True)


def test_every_kind_of_another_project_is_there_when_asked_for() -> None:
    assert {each["kind"] for each in objects(EVERYTHING)} >= FOREIGN
    assert not FOREIGN & {each["kind"] for each in objects()}


def test_rules_and_dashboards_are_those_of_the_product() -> None:
    made = objects(EVERYTHING)
    rules = yaml.safe_load((ROOT / "deploy" / "observability" / "rules.yaml").read_text())
    assert the("PrometheusRule", "churnguard-metrics", made)["spec"] == rules
    dashboards = the("ConfigMap", "churnguard-dashboards", made)["data"]
    folder = ROOT / "deploy" / "observability" / "dashboards"
    assert dashboards == {file.name: file.read_text() for file in folder.iterdir()}


def test_workers_are_scaled_by_numbers_that_the_product_exposes() -> None:
    """Those of the rules are; tests/deploy/observability holds that."""
    scaled = the("ScaledObject", "churnguard-worker", objects(EVERYTHING))
    asked = {
        name for each in scaled["spec"]["triggers"] for name in re.findall(r"churnguard_\w+", each["metadata"]["query"])
    }
    rules = (ROOT / "deploy" / "observability" / "rules.yaml").read_text()
    assert asked <= set(re.findall(r"churnguard_\w+", rules))
    assert len(asked) == 2


def test_names_are_unique_and_carry_the_release() -> None:
    made = objects(EVERYTHING, name="acme")
    names = [(each["kind"], each["metadata"]["name"]) for each in made]
    assert len(names) == len(set(names))
    assert all(name.startswith("acme-churnguard") for _, name in names)


@pytest.mark.parametrize("name", sorted(pods(objects())))
def test_every_pod_is_restricted(name: str) -> None:
    """As the Pod Security Standard of that name says, and what it does not ask for: a root file system that is read
    only, memory that is limited, no variables of other Services."""
    pod = pods(objects())[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"]


def test_only_the_migration_has_the_owners_rights() -> None:
    having = {
        name
        for name, pod in pods(objects()).items()
        for container in pod["containers"]
        for variable in container.get("env", [])
        if variable["name"] == "CHURNGUARD_OWNER_DATABASE_URL"
    }
    assert having == {"Job churnguard-migrate"}


def test_only_who_starts_or_ends_runs_talks_to_kubernetes() -> None:
    having = {name for name, pod in pods(objects()).items() if pod["automountServiceAccountToken"]}
    assert having == {"Deployment churnguard-daemon", "Deployment churnguard-dashboard"}


def test_migration_uses_nothing_that_the_chart_makes() -> None:
    """As a hook it runs before any of it is there."""
    job = the("Job", "churnguard-migrate", objects(EVERYTHING))
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    made = {each["metadata"]["name"] for each in objects(EVERYTHING) if each["kind"] in ("ConfigMap", "ServiceAccount")}
    used = re.findall(r'"(?:name|serviceAccountName)": "([^"]+)"', json.dumps(job["spec"]["template"]["spec"]))
    assert not made & (set(used) - {"churnguard"}), "churnguard is the Secret here, by its user's choice"
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]


def test_owners_url_may_be_in_a_secret_of_its_own() -> None:
    job = the(
        "Job", "churnguard-migrate", objects({"migrate": {"existingSecret": "owner", "ownerDatabaseUrlKey": "url"}})
    )
    (container,) = job["spec"]["template"]["spec"]["containers"]
    sources = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
    assert sources["CHURNGUARD_OWNER_DATABASE_URL"] == {"name": "owner", "key": "url"}
    assert sources["CHURNGUARD_DATABASE_URL"] == {"name": "churnguard", "key": "CHURNGUARD_DATABASE_URL"}


def test_names_of_keys_hold_for_every_pod() -> None:
    keys = {"databaseUrl": "db", "encryptionKey": "key", "redisUrl": "redis", "oidcClientSecret": "oidc"}
    for name, pod in pods(objects({"secretKeys": keys})).items():
        for container in pod["containers"]:
            used = {
                each["valueFrom"]["secretKeyRef"]["key"] for each in container.get("env", []) if "valueFrom" in each
            }
            assert name == "Pod churnguard-test" or used >= set(keys.values())


def test_without_a_secret_it_says_how_to_make_one() -> None:
    with pytest.raises(helm.HelmRenderError, match="kubectl --namespace churnguard create secret generic churnguard"):
        rendered({"existingSecret": ""})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gatewy": {}}, "additional properties 'gatewy' not allowed"),
        ({"gateway": {"replica": 3}}, "additional properties 'replica' not allowed"),
        ({"gateway": {"replicas": "three"}}, "at '/gateway/replicas': got string, want integer"),
        ({"config": {"WEBHOOK_RATE_LIMIT": 1}}, "invalid propertyName 'WEBHOOK_RATE_LIMIT'"),
        ({"config": {"INTEGRATION_ENCRYPTION_KEY": "…"}}, "invalid propertyName 'INTEGRATION_ENCRYPTION_KEY'"),
        ({"image": {"digest": "latest"}}, "at '/image/digest'"),
        ({"gateway": {"ingress": {"enabled": True}}}, "gateway.ingress.host is not set"),
    ],
    ids=["part", "setting", "type", "variable", "secret", "digest", "host"],
)
def test_value_that_is_none_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmError, match=re.escape(said)):
        rendered(values)


def test_settings_are_those_of_the_product() -> None:
    """Every variable of the product is either `config`'s, a secret's, or the chart's own business."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    config = set(schema["properties"]["config"]["propertyNames"]["enum"])
    (gateway,) = pods(objects(EVERYTHING))["Deployment churnguard-gateway"]["containers"]
    (dashboard,) = pods(objects(EVERYTHING))["Deployment churnguard-dashboard"]["containers"]
    the_charts = {each["name"] for each in (*gateway["env"], *dashboard["env"])}
    of_a_machine = {
        "DASHBOARD_TLS_CERT",
        "DASHBOARD_TLS_KEY",
        "DASHBOARD_PUBLISHED_ON_LOOPBACK",
        "CHURNGUARD_OWNER_DATABASE_URL",
    }
    known = {str(field.validation_alias.choices[0]) for field in Settings.model_fields.values()}  # type: ignore[union-attr]
    assert known - config - the_charts - of_a_machine == set()


def test_instance_is_the_products_own_and_what_differs_in_a_cluster() -> None:
    ours = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    theirs = instance(objects())
    assert theirs["run_coordinator"] == ours["run_coordinator"]
    assert set(theirs) - set(ours) == {"run_launcher", "compute_logs"}
    more = instance(objects({"dagster": {"run_coordinator": {"config": {"max_concurrent_runs": 7}}}}))
    assert more["run_coordinator"]["config"]["max_concurrent_runs"] == 7
    assert more["run_coordinator"]["config"]["dequeue_num_workers"] == 4


def test_instance_holds_no_secret() -> None:
    """A run's Job carries all of it in its arguments, for whoever may read Jobs."""
    assert "postgresql://" not in yaml.safe_dump(instance(objects(EVERYTHING)))


def test_run_has_its_own_resources_and_place() -> None:
    runs = {"resources": {"limits": {"memory": "8Gi"}}, "pod": {"nodeSelector": {"pool": "runs"}, "tolerations": []}}
    made = objects(EVERYTHING | {"runs": runs})
    pod = run_pod(made)
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "8Gi"}
    assert pod["nodeSelector"] == {"kubernetes.io/arch": "amd64", "pool": "runs"}
    assert pod.get("tolerations", []) == []
    assert pod["priorityClassName"] == "high"
    gateway = pods(made)["Deployment churnguard-gateway"]
    assert gateway["nodeSelector"] == {"kubernetes.io/arch": "amd64"}


def test_a_change_of_dagsters_instance_rolls_its_pods() -> None:
    def checksum(values: dict[str, Any]) -> str:
        daemon = the("Deployment", "churnguard-daemon", objects(values))
        return str(daemon["spec"]["template"]["metadata"]["annotations"]["checksum/dagster"])

    assert checksum({}) == checksum({"gateway": {"replicas": 5}})
    assert checksum({}) != checksum({"runs": {"startTimeoutSeconds": 60}})


def test_selectors_outlive_an_upgrade() -> None:
    """A Deployment cannot change its selector: nothing of a version or of a label that people choose is in it."""
    for each in objects(EVERYTHING):
        if each["kind"] == "Deployment":
            assert set(each["spec"]["selector"]["matchLabels"]) == {
                "app.kubernetes.io/name",
                "app.kubernetes.io/instance",
                "app.kubernetes.io/component",
            }


def test_whoever_selects_pods_finds_those_that_are_meant() -> None:
    """Kubernetes says nothing of a selector that finds nobody: no traffic, no budget, no policy."""
    made = objects(EVERYTHING)
    every = set(components(made))
    found: dict[str, dict[str, set[str]]] = {"Service": {}, "PodDisruptionBudget": {}, "NetworkPolicy": {}}
    for each in made:
        if each["kind"] in found:
            selector = each["spec"].get("podSelector") or each["spec"]["selector"]
            found[each["kind"]][each["metadata"]["name"].removeprefix("churnguard-")] = selected(selector, made)
    assert found == {
        "Service": {name: {name} for name in ("gateway", "dashboard", "code-server")} | {"metrics": every},
        "PodDisruptionBudget": {name: {name} for name in ("gateway", "dashboard")},
        "NetworkPolicy": {name: {name} for name in ("gateway", "dashboard", "code-server")}
        | {"all": every - {"gateway"}},
    }
    assert every == {"gateway", "dashboard", "code-server", "daemon", "worker", "run"}


def test_a_service_leads_to_a_port_that_its_pods_have() -> None:
    made = objects()
    for each in made:
        if each["kind"] == "Service":
            for name in selected(each["spec"]["selector"], made) - {"run"}:
                (container,) = components(made)[name]["spec"]["containers"]
                there = {port["name"] for port in container["ports"]}
                assert {port["targetPort"] for port in each["spec"]["ports"]} <= there, (each["metadata"]["name"], name)


def test_whoever_is_scaled_is_there() -> None:
    for values in ({}, EVERYTHING):
        made = objects(values)
        scaled = [each for each in made if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
        for each in scaled:
            deployment = the("Deployment", each["spec"]["scaleTargetRef"]["name"], made)
            assert "replicas" not in deployment["spec"], "an upgrade would undo what the autoscaler has chosen"
        assert len(scaled) == 2


def test_gateway_goes_on_while_it_is_replaced() -> None:
    deployment = the("Deployment", "churnguard-gateway", objects())
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    drain = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > drain + 10, "the server waits ten seconds for what it has begun"
    assert "tcpSocket" in container["livenessProbe"], "a database that is away restarts nobody"


def test_nobody_is_restarted_while_he_waits_for_his_database() -> None:
    """Until then a role listens nowhere, and its log says why; a restart would only make it wait longer afterwards."""
    for name, pod in pods(objects()).items():
        for container in pod["containers"]:
            if "livenessProbe" in container:
                startup = container["startupProbe"]
                assert startup["periodSeconds"] * startup["failureThreshold"] >= 3600, name


def test_a_busy_node_has_time_for_a_probe() -> None:
    for name, pod in pods(objects()).items():
        for container in pod["containers"]:
            for kind in ("startupProbe", "livenessProbe"):
                if probe := container.get(kind):
                    assert probe["timeoutSeconds"] >= (30 if "exec" in probe else 5), (name, kind)


def test_what_is_public_and_what_is_not_share_nothing() -> None:
    made = objects(EVERYTHING)
    public, internal = (the("Ingress", f"churnguard-{part}", made) for part in ("gateway", "dashboard"))
    (path,) = public["spec"]["rules"][0]["http"]["paths"]
    assert path["path"] == "/webhooks"
    assert public["spec"]["ingressClassName"] != internal["spec"]["ingressClassName"]


def test_nobody_reaches_a_cloud_s_metadata_by_either_family_of_addresses() -> None:
    policy = the("NetworkPolicy", "churnguard-all", objects())
    denied = {
        family["ipBlock"]["cidr"]: family["ipBlock"]["except"]
        for rule in policy["spec"]["egress"]
        for family in rule.get("to", [])
    }
    assert denied.keys() == {"0.0.0.0/0", "::/0"}
    for address in ("169.254.169.254", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe"):
        whole = "::/0" if ":" in address else "0.0.0.0/0"
        assert any(ip_address(address) in ip_network(each) for each in denied[whole]), address


def test_digest_wins_over_a_tag() -> None:
    digest = "sha256:" + "0" * 64
    image = {"registry": "registry.example.com", "tag": "1.2.3", "digest": digest}
    (container,) = pods(objects({"image": image}))["Deployment churnguard-gateway"]["containers"]
    assert container["image"] == f"registry.example.com/churnguard-pipelines@{digest}"


def test_version_of_the_chart_is_the_products() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    product = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert product is not None
    assert chart["version"] == str(chart["appVersion"]) == product[1]


def test_rendering_takes_no_second() -> None:
    began = time.process_time()
    rendered(EVERYTHING)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("name", ["churnguard.yaml", "migrate.yaml"])
def test_plain_manifests_are_the_chart(name: str) -> None:
    """`CHURNGUARD_UPDATE_SNAPSHOT=1` writes them anew."""
    folder = ROOT / "deploy" / "kubernetes"
    texts = rendered(yaml.safe_load((folder / "values.yaml").read_text()))
    wanted = [
        text
        for path, text in sorted(texts.items())
        if path.endswith(".yaml")
        and not path.startswith("tests/")
        and (path == "migrate.yaml") == (name == "migrate.yaml")
    ]
    written = "\n---\n".join(text.strip() for text in wanted if text.strip()) + "\n"
    target: Path = folder / name
    if os.environ.get("CHURNGUARD_UPDATE_SNAPSHOT"):
        target.write_text(written)
    assert target.read_text() == written
