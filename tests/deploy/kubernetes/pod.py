"""A pod of the small node: its environment, its volumes, its one container, its probes, its end."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from tests.deploy.kubernetes import probes
from tests.deploy.kubernetes.cluster import Cluster, Object
from tests.deploy.machine import ROOT

ENTRYPOINT = ("churnguard",)
"""Of the image, but for tini, in whose place the node signals the whole group."""
MISSING = "missing"
"""A tag that no image has."""
TURN_SECONDS = 0.2
PROBE_EVERY = 1.0
READS = "dac_read_search"
"""The one right that a process here has and none in a cluster: this clone may lie where only its owner reads."""


class NotYet(Exception):
    """What the container needs is not there; the kubelet tries again."""


class Pod(threading.Thread):
    def __init__(self, cluster: Cluster, pod: Object, address: str, folder: Path, hosts: Path) -> None:
        metadata = pod["metadata"]
        self.namespace, self.pod_name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        super().__init__(name=self.pod_name)
        self.labels: dict[str, str] = metadata.get("labels", {})
        self.address = address
        self.specification: Object = pod["spec"]
        self.restarts = 0
        self.ready = self.gone = False
        self._cluster = cluster
        self._container: Object = pod["spec"]["containers"][0]
        self._folder: Path = folder / "pods" / self.uid
        self._hosts = hosts
        self._log = folder / "logs" / f"{self.namespace}_{self.pod_name}.log"
        self._ending = threading.Event()
        self._abandoned = threading.Event()
        self._grace = float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        self._process: subprocess.Popen[bytes] | None = None
        self._shown: Object | None = None
        self._began: str | None = None

    @property
    def ending(self) -> bool:
        return self._ending.is_set()

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def told(self, pod: Object) -> None:
        """What Kubernetes says of it now."""
        if "deletionTimestamp" in pod["metadata"]:
            self._grace = min(self._grace, float(pod["metadata"]["deletionGracePeriodSeconds"]))
            self._ending.set()

    def abandon(self) -> None:
        """It is no more, or the node ends."""
        self._abandoned.set()
        self._ending.set()

    @property
    def processor_seconds(self) -> float:
        """What its processes have used of one."""
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        used = [each.cpu_times() for each in (first, *first.children(recursive=True))]
        return sum(each.user + each.system for each in used)

    def kill(self) -> None:
        """As the kernel does for want of memory."""
        self._signal(signal.SIGKILL)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `kubectl exec` does: in the container, as its user, with its environment."""
        assert self._process is not None
        inside = ["nsenter", f"--target={self._process.pid}", "--mount", *self._as_user(), *command]
        return subprocess.run(inside, env=self._environment(), capture_output=True, text=True, check=False)

    def run(self) -> None:
        for folder in (self._folder, self._log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            while not self._ending.is_set():
                code = self._live()
                if self._ending.is_set() or self._is_over(code):
                    break
                self.restarts += 1
                self._ending.wait(min(2.0**self.restarts, 10))  # Kubernetes begins with 10 s
            self._ending.wait()
            if not self._abandoned.is_set():
                self._delete()
        finally:
            self._signal(signal.SIGKILL)
            self.ready, self.gone = False, True
            shutil.rmtree(self._folder, ignore_errors=True)

    def _live(self) -> int:
        """The container once; its exit code."""
        try:
            self._start()
        except NotYet as problem:
            self._show("Pending", {"waiting": {"reason": "CreateContainerConfigError", "message": str(problem)}})
            self._ending.wait(1)
            return -1
        if self._process is None:
            self._show("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
            self._ending.wait()
            return -1
        self._began = _now()
        probed = 0.0
        while self._process.poll() is None and not self._ending.is_set():
            if time.monotonic() - probed > PROBE_EVERY:
                probe = self._container.get("readinessProbe")
                self.ready = probe is None or probes.passes(probe, self._container, self.address)
                probed = time.monotonic()
            self._show("Running", {"running": {"startedAt": self._began}})
            self._ending.wait(TURN_SECONDS)
        if self._process.poll() is None:
            self._end()
        self.ready = False
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def _is_over(self, code: int) -> bool:
        """Whether it is not started again; its last state is told then."""
        if self._process is None or code < 0:
            return False
        policy = self.specification["restartPolicy"]
        if policy == "Always" or (policy == "OnFailure" and code):
            return False
        self._show_end(code)
        return True

    def _end(self) -> None:
        """As its specification says: a while in which it is found no more, then it is asked, then made to."""
        assert self._process is not None
        deadline = time.monotonic() + self._grace
        pause = self._container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        self._abandoned.wait(min(pause, self._grace))
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.1 if self._abandoned.is_set() else max(deadline - time.monotonic(), 0))
        self._signal(signal.SIGKILL)

    def _delete(self) -> None:
        if self._process is not None:
            code = self._process.wait()
            self._show_end(code if code >= 0 else 128 - code)
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        with suppress(httpx.HTTPStatusError):  # somebody else has done so
            self._cluster.ask("DELETE", self._path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})

    def _show_end(self, code: int) -> None:
        ended = {
            "exitCode": code,
            "startedAt": self._began,
            "finishedAt": _now(),
            "reason": "Error" if code else "Completed",
        }
        self._show("Failed" if code else "Succeeded", {"terminated": ended})

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.pod_name}"

    def _show(self, phase: str, state: Object) -> None:
        status = {
            "phase": phase,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self._began or _now(),
            "conditions": [
                {"type": kind, "status": str(self.ready)} for kind in ("Ready", "ContainersReady")
            ] + [{"type": "PodScheduled", "status": "True"}, {"type": "Initialized", "status": "True"}],
            "containerStatuses": [
                {
                    "name": self._container["name"], "image": self._container["image"], "imageID": "here",
                    "state": state, "ready": self.ready, "started": "running" in state, "restartCount": self.restarts,
                }
            ],
        }  # fmt: skip
        shown = {"phase": phase, "ready": self.ready, "state": state, "restarts": self.restarts}
        if shown == self._shown:
            return
        try:
            self._cluster.ask("PATCH", f"{self._path}/status", {"metadata": {"uid": self.uid}, "status": status})
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in (404, 409):  # it, or this one of its name, is no more
                raise
        self._shown = shown

    def _start(self) -> None:
        if self._container["image"].endswith(f":{MISSING}"):
            return
        environment = self._environment()
        command = [*self._container.get("command", ENTRYPOINT), *self._container.get("args", [])]
        if command[:3] == ["tini", "-g", "--"]:
            command = command[3:]
        inside = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", self._mounting(), "sh"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*inside, *self._as_user(), *command],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd="/", start_new_session=True,
            )  # fmt: skip

    def _signal(self, sign: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, sign)

    def _as_user(self) -> list[str]:
        wanted = self.specification["securityContext"]
        own = ["setpriv", f"--reuid={wanted['runAsUser']}", f"--regid={wanted['runAsGroup']}", "--clear-groups"]
        rights = [f"--{kind}=-all,+{READS}" for kind in ("inh-caps", "bounding-set")] + [f"--ambient-caps=+{READS}"]
        return [*own, *rights, "--no-new-privs", "--"]

    def _environment(self) -> dict[str, str]:
        """Raises ``NotYet`` for a Secret or a ConfigMap that is not there."""
        found = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8",
            "HOME": "/var/lib/churnguard", "TMPDIR": str(self._folder / "tmp"),
            "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self._cluster.port),
        }  # fmt: skip
        for source in self._container.get("envFrom", []):
            ((kind, reference),) = source.items()
            found |= self._data("secrets" if kind == "secretRef" else "configmaps", reference["name"])
        for variable in self._container.get("env", []):
            found[variable["name"]] = self._value(variable)
        return {name: self.address if value == "0.0.0.0" else value for name, value in found.items()}

    def _value(self, variable: Object) -> str:
        source = variable.get("valueFrom")
        if source is None:
            return str(variable.get("value", ""))
        ((kind, reference),) = source.items()
        held = self._data("secrets" if kind == "secretKeyRef" else "configmaps", reference["name"])
        if reference["key"] not in held:
            raise NotYet(f"couldn't find key {reference['key']} in {self.namespace}/{reference['name']}")
        return held[reference["key"]]

    def _data(self, kind: str, name: str) -> dict[str, str]:
        try:
            held = self._cluster.get(f"/api/v1/namespaces/{self.namespace}/{kind}/{name}").get("data", {})
        except httpx.HTTPStatusError:
            raise NotYet(f"{kind} {name} not found") from None
        return {key: base64.b64decode(value).decode() for key, value in held.items()} if kind == "secrets" else held

    def _mounting(self) -> str:
        """A shell's script that mounts the volumes where the container wants them, and becomes its command."""
        lines, covered = [], set[str]()
        mounts = {each["mountPath"]: each["name"] for each in self._container.get("volumeMounts", [])}
        sources = {name: self._volume(name) for name in mounts.values()}
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder / "over")
        for target, name in sorted(mounts.items()):
            if target == "/tmp":  # the clone may be below it
                continue
            path = Path(os.path.realpath(target))
            there = next(parent for parent in (path, *path.parents) if parent.exists())
            if there != path and str(there) not in covered:
                covered.add(str(there))
                upper, work = (self._folder / "over" / str(len(covered)) / kind for kind in ("upper", "work"))
                upper.mkdir(parents=True)
                work.mkdir()
                lines.append(f"mount -t overlay overlay -o lowerdir={there},upperdir={upper},workdir={work} {there}")
            lines += [f"mkdir -p {path}", f"mount --bind {sources[name]} {path}"]
        lines += [f"mount --bind {self._hosts} /etc/hosts", "mount -o remount,bind,ro /", 'exec "$@"']
        return "\n".join(lines)

    def _volume(self, name: str) -> Path:
        (volume,) = (each for each in self.specification["volumes"] if each["name"] == name)
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        sources = volume.get("projected", {}).get("sources", [volume])
        for source in sources:
            for file, text in self._files(source).items():
                (folder / file).write_text(text)
        user = self.specification["securityContext"]
        os.chown(folder, user["runAsUser"], user["runAsGroup"])
        folder.chmod(0o700 if "emptyDir" in volume else 0o555)
        return folder

    def _files(self, source: Object) -> dict[str, str]:
        if "configMap" in source:
            return self._data("configmaps", source["configMap"]["name"])
        if "serviceAccountToken" in source:
            account = self.specification["serviceAccountName"]
            asked = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 3600},
            }
            path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
            return {"token": self._cluster.ask("POST", path, asked)["status"]["token"]}
        return {"namespace": self.namespace} if "downwardAPI" in source else {}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
