"""The chart, installed: what people do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import helm_python as helm
import httpx
import psycopg

from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from tests.deploy.kubernetes.cluster import Cluster, Object
from tests.deploy.kubernetes.node import Node, until
from tests.deploy.kubernetes.pod import Pod
from tests.deploy.kubernetes.rendering import CHART, NEEDED

NAMESPACE = "churnguard"
RELEASE = "churnguard"
WAIT_SECONDS = 600
LAUNCH = """
mutation ($job: String!, $tags: [ExecutionTag!]!, $config: RunConfigData!) {
  launchRun(executionParams: {
    selector: {repositoryName: "__repository__", repositoryLocationName: "churnguard", pipelineName: $job},
    mode: "default", runConfigData: $config, executionMetadata: {tags: $tags}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}"""
TERMINATE = "mutation ($run: String!) { terminateRun(runId: $run) { __typename } }"


@dataclass
class Installation:
    cluster: Cluster
    node: Node
    store: Store
    sandbox: Sandbox
    environment: dict[str, str]
    """Of a shell with kubectl and helm."""
    owner_url: str

    @contextmanager
    def helm(self) -> Iterator[helm.Config]:
        with helm.Config(kubeconfig_path=self.cluster.kubeconfig, namespace=NAMESPACE) as config:
            yield config

    def upgrade(self, **values: Any) -> None:
        """Returns when all is ready again."""
        with self.helm() as config:
            self.patiently(
                lambda: config.upgrade(CHART, RELEASE, NEEDED | values, wait="watcher", timeout=WAIT_SECONDS)
            )

    def patiently(self, act: Callable[[], object]) -> None:
        """Helm does not wait for an API server that is slow to shake hands."""

        def acted() -> bool:
            try:
                act()
            except helm.HelmKubeError as error:
                if "unreachable" not in str(error):
                    raise
                return False
            return True

        until(acted, self.node, NAMESPACE)

    def objects(self, path: str) -> list[Object]:
        """Those of the namespace: ``apis/batch/v1/jobs``."""
        group, _, kind = path.rpartition("/")
        found: list[Object] = self.cluster.get(f"/{group}/namespaces/{NAMESPACE}/{kind}")["items"]
        return found

    def one(self, component: str) -> Pod:
        """A pod that serves."""
        until(lambda: self.node.serving(NAMESPACE, component), self.node, NAMESPACE)
        return self.node.serving(NAMESPACE, component)[0]

    @cached_property
    def key(self) -> str:
        """What an operator signs in with, made as NOTES say."""
        made = self.one("dashboard").execute("churnguard", "api-keys", "create", "ada")
        assert made.returncode == 0, made.stderr
        return next(word for word in made.stdout.split() if word.startswith("cg_"))

    def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """A request to the dashboard, signed in."""
        url = f"http://{self.one('dashboard').address}:8090{path}"
        return httpx.request(method, url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60, **arguments)

    def launch(self, job: str, **tags: str) -> str:
        """From Dagster's pages; the run's id."""
        given = [{"key": name.replace("__", "/"), "value": value} for name, value in tags.items()]
        answer = self._dagster(LAUNCH, job=job, tags=given, config={})["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def launch_sync(self, **tags: str) -> str:
        """Of Acme's Stripe."""
        return self.launch(
            "stripe_sync",
            dagster__partition="acme",
            churnguard__integration="acme",
            churnguard__organization="acme",
            **tags,
        )

    def terminate(self, run: str) -> str:
        """From Dagster's pages; its answer's type."""
        return str(self._dagster(TERMINATE, run=run)["terminateRun"]["__typename"])

    def status(self, run: str) -> str:
        """Of a run of Dagster's, as its database says."""
        with psycopg.connect(self.store.dagster_database_url.replace("+psycopg2", "")) as connection:
            row = connection.execute("SELECT status FROM runs WHERE run_id = %s", [run]).fetchone()
        return str(row[0]) if row else "UNKNOWN"

    def becomes(self, run: str, status: str) -> None:
        """Waits until it ends so."""
        ended = {"SUCCESS", "FAILURE", "CANCELED"}
        until(lambda: self.status(run) in ended, self.node, NAMESPACE)
        assert self.status(run) == status, self.words_of(run)

    def pod_of(self, run: str) -> Pod:
        """Waits for it."""

        def found() -> list[Pod]:
            return [pod for pod in self.node.pods(NAMESPACE) if pod.labels.get("dagster/run-id") == run]

        until(found, self.node, NAMESPACE)
        return found()[0]

    def words_of(self, run: str) -> str:
        """What Dagster has on record of it."""
        with psycopg.connect(self.store.dagster_database_url.replace("+psycopg2", "")) as connection:
            rows = connection.execute("SELECT event FROM event_logs WHERE run_id = %s ORDER BY id", [run]).fetchall()
        return "\n".join(str(event) for (event,) in rows)

    def _dagster(self, query: str, **variables: Any) -> Object:
        answer = self.ask("POST", "/dashboard/graphql", json={"query": query, "variables": variables})
        assert answer.is_success, answer.text
        told: Object = answer.json()
        assert "errors" not in told, told
        data: Object = told["data"]
        return data
