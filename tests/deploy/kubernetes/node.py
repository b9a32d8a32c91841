"""A small node: it takes pods that nobody has taken and runs their containers as processes of this machine.

What a pod may see and write is as its specification says: its volumes are mounted where it wants them, the rest of the
file system is read only, and it is the specification's user, without a right but to read what is in this clone. What is
not there is a network of its own: a pod has an address of loopback, and what it would open on all of its addresses it
opens on that one. Names of Services lead to one of their pods that are ready.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Self

import httpx

from tests.deploy.kubernetes.cluster import Cluster, Object
from tests.deploy.kubernetes.pod import Pod

NAME = "node"
LOOK_EVERY = 0.2


class Node:
    """A context, which ends its pods."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self._hosts = folder / "hosts"
        self._pods: dict[str, Pod] = {}  # by UID
        self._addresses = (f"127.77.{number // 250}.{number % 250 + 2}" for number in count())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=NAME)

    def __enter__(self) -> Self:
        self._hosts.write_text("127.0.0.1 localhost\n")
        labels = {"kubernetes.io/hostname": NAME, "kubernetes.io/os": "linux"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME, "labels": labels}}
        self.cluster.ask("POST", "/api/v1/nodes", node)
        ready = {"type": "Ready", "status": "True", "reason": "Here", "message": ""}
        self.cluster.ask("PATCH", f"/api/v1/nodes/{NAME}/status", {"status": {"conditions": [ready]}})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for pod in self._pods.values():
            pod.abandon()
        for pod in self._pods.values():
            pod.join()

    def pods(self, namespace: str, **labels: str) -> list[Pod]:
        """Those that are there, the oldest first. ``labels``: e.g. ``component`` for app.kubernetes.io/component."""
        wanted = {f"app.kubernetes.io/{name}": value for name, value in labels.items()}
        return [
            pod
            for pod in list(self._pods.values())
            if pod.namespace == namespace and wanted.items() <= pod.labels.items() and not pod.gone
        ]

    def serving(self, namespace: str, component: str) -> list[Pod]:
        """The pods that a Service would lead to."""
        return [pod for pod in self.pods(namespace, component=component) if pod.ready and not pod.ending]

    def said(self, namespace: str) -> dict[str, str]:
        """What all that ever ran there have said, by the pod's name."""
        logs = sorted(self.folder.glob(f"logs/{namespace}_*.log"))
        return {log.stem.partition("_")[2]: log.read_text(errors="replace") for log in logs}

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_EVERY):
            with suppress(httpx.TransportError):
                self._look()

    def _look(self) -> None:
        told = {each["metadata"]["uid"]: each for each in self.cluster.get("/api/v1/pods")["items"]}
        for uid, pod in told.items():
            if uid in self._pods:
                self._pods[uid].told(pod)
            elif "deletionTimestamp" not in pod["metadata"]:
                self._take(uid, pod)
        for uid in self._pods.keys() - told.keys():
            self._pods[uid].abandon()
        self._name_services()

    def _take(self, uid: str, pod: Object) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if "nodeName" not in pod["spec"]:
            target = {"apiVersion": "v1", "kind": "Node", "name": NAME}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
            with suppress(httpx.HTTPStatusError):  # it was deleted meanwhile
                self.cluster.ask("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/binding", binding)
        self._pods[uid] = Pod(self.cluster, pod, next(self._addresses), self.folder, self._hosts)
        self._pods[uid].start()

    def _name_services(self) -> None:
        lines = ["127.0.0.1 localhost"]
        for service in self.cluster.get("/api/v1/services")["items"]:
            metadata, selector = service["metadata"], service["spec"].get("selector")
            ready = [
                pod
                for pod in self._pods.values()
                if selector
                and pod.namespace == metadata["namespace"]
                and selector.items() <= pod.labels.items()
                and pod.ready
                and not pod.ending
            ]
            if ready:
                name, namespace = metadata["name"], metadata["namespace"]
                lines.append(f"{ready[0].address} {name} {name}.{namespace} {name}.{namespace}.svc")
        text = "\n".join(lines) + "\n"
        if self._hosts.read_text() != text:
            self._hosts.write_text(text)  # in place: it is mounted in the pods


def until(condition: Callable[[], object], node: Node, namespace: str, seconds: float = 240) -> None:
    """Waits for it; if it does not happen, the pods' last words say why."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            words = last_words(node, namespace)
            raise AssertionError(f"it did not happen; the pods said:\n{words}")
        time.sleep(0.1)


def last_words(node: Node, namespace: str) -> str:
    return "\n".join(f"--- {name}\n{text[-1500:]}" for name, text in node.said(namespace).items())
