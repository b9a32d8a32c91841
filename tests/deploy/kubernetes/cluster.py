"""A real control plane on loopback: etcd, kube-apiserver and kube-controller-manager, as their projects built them."""

from __future__ import annotations

import datetime
import ipaddress
import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from churnguard_pipelines.ports import free_port
from tests.waiting import wait_for

CONTROLLERS = (
    "deployment-controller", "replicaset-controller", "job-controller", "ttl-after-finished-controller",
    "garbage-collector-controller", "namespace-controller", "disruption-controller", "serviceaccount-controller",
    "root-ca-certificate-publisher-controller", "horizontal-pod-autoscaler-controller",
)  # fmt: skip
_START_SECONDS = 120.0

Object = dict[str, Any]


class Cluster:
    """A control plane of its own, whose data are below ``folder``; a context, which it ends with. ``programs``: where
    its three are."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.folder = folder
        self._programs = programs
        self._ends = ExitStack()
        self._token = secrets.token_urlsafe(32)
        self.port = free_port()
        self.kubeconfig = folder / "kubeconfig"
        self.authority = folder / "ca.crt"

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self._ends)
            self._start()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def get(self, path: str, **parameters: str) -> Object:
        """Raises ``httpx.HTTPStatusError``."""
        return self.ask("GET", path, params=parameters)

    def ask(self, method: str, path: str, body: Object | None = None, **options: Any) -> Object:
        """A request to Kubernetes' API as an administrator. Raises ``httpx.HTTPStatusError``."""
        form = "strategic-merge-patch+json" if method == "PATCH" else "json"
        options["headers"] = {"Content-Type": f"application/{form}"}
        response = self.api.request(method, path, content=None if body is None else json.dumps(body), **options)
        response.raise_for_status()
        answer: Object = response.json()
        return answer

    def requests(self, account: str) -> Iterator[Object]:
        """What a ServiceAccount (``namespace:name``) has asked of the API, and how it was answered."""
        for line in (self.folder / "audit.log").read_text().splitlines():
            event = json.loads(line)
            if event["user"]["username"] == f"system:serviceaccount:{account}":
                yield event

    def _start(self) -> None:
        certify(self.folder)
        etcd, peers = free_port(), free_port()
        self._run(
            "etcd", f"--data-dir={self.folder / 'etcd'}", "--unsafe-no-fsync",
            f"--listen-client-urls=http://127.0.0.1:{etcd}", f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peers}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}",
            f"--initial-cluster=default=http://127.0.0.1:{peers}",
            "--experimental-watch-progress-notify-interval=1s",  # of ten minutes the API server's clients tire
        )  # fmt: skip
        (self.folder / "tokens").write_text(f'{self._token},admin,admin,"system:masters"\n')
        (self.folder / "tokens").chmod(0o600)
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata"}],
        }
        (self.folder / "audit.yaml").write_text(yaml.safe_dump(policy))
        key = self.folder / "tls.key"
        self._run(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1",
            f"--secure-port={self.port}", f"--cert-dir={self.folder}", f"--tls-cert-file={self.folder / 'tls.crt'}",
            f"--tls-private-key-file={key}", f"--token-auth-file={self.folder / 'tokens'}",
            f"--client-ca-file={self.authority}",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            f"--service-account-issuer=https://127.0.0.1:{self.port}", "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC", "--endpoint-reconciler-type=none",
            f"--audit-policy-file={self.folder / 'audit.yaml'}", f"--audit-log-path={self.folder / 'audit.log'}",
            "--enable-priority-and-fairness=false",
        )  # fmt: skip
        self.kubeconfig.write_text(yaml.safe_dump(self._configuration()))
        self.api = self._ends.enter_context(
            httpx.Client(
                base_url=f"https://127.0.0.1:{self.port}", timeout=60,
                verify=_trusting(self.authority), headers={"Authorization": f"Bearer {self._token}"},
            )
        )  # fmt: skip
        wait_for(self._ready, _START_SECONDS)
        self._run(
            "kube-controller-manager", f"--kubeconfig={self.kubeconfig}",
            f"--authentication-kubeconfig={self.kubeconfig}", f"--authorization-kubeconfig={self.kubeconfig}",
            "--bind-address=127.0.0.1", f"--secure-port={free_port()}", f"--cert-dir={self.folder}",
            "--leader-elect=false", f"--service-account-private-key-file={key}", f"--root-ca-file={self.authority}",
            f"--controllers={','.join(CONTROLLERS)}",
        )  # fmt: skip

    def _ready(self) -> bool:
        try:
            return self.api.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def _configuration(self) -> Object:
        server = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self.authority)}
        return {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
        }  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        self._ends.enter_context(_running([str(self._programs / program), *arguments], self.folder / f"{program}.log"))


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.kill()  # what it has to say is of no interest any more
        process.wait()


def _trusting(authority: Path) -> Any:
    import ssl

    return ssl.create_default_context(cafile=str(authority))


def certify(folder: Path) -> None:
    """``ca.crt``, and ``tls.crt`` with ``tls.key`` for 127.0.0.1."""
    now = datetime.datetime.now(datetime.UTC)
    authority = ec.generate_private_key(ec.SECP256R1())
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)  # signs tokens, too
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])

    def certificate(name: x509.Name, of: Any, extension: x509.ExtensionType) -> bytes:
        signed = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(of.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(authority, hashes.SHA256())
        )
        return signed.public_bytes(serialization.Encoding.PEM)

    (folder / "ca.crt").write_bytes(certificate(issuer, authority, x509.BasicConstraints(ca=True, path_length=0)))
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    (folder / "tls.crt").write_bytes(certificate(subject, key, here))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    (folder / "tls.key").chmod(0o600)
