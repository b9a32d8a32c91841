"""A customer's Kafka: a real broker on loopback ports that signs people in, encrypts, may be killed and comes back.

`make servers` puts its jars below `.venv`; KAFKA_JARS points at others.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (
    AdminClient,
    NewTopic,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from churnguard_pipelines.ports import free_port
from tests.sources.servers import Server, running
from tests.waiting import wait_for

USER, PASSWORD = "reader", "canary-kafka-password"
JARS = Path(os.environ.get("KAFKA_JARS", Path(sys.prefix) / "kafka"))
CLUSTER = "Y2h1cm5ndWFyZC10ZXN0cw"
_MEMORY = ("-Xmx256m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_LISTENERS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL", "CONTROLLER")
_LOGIN = "org.apache.kafka.common.security"


class KafkaServer(Server):
    """One node, its own controller. ``home``: a new folder; ``joins``: another node, whose cluster it is a broker of.
    Each security protocol has a port of its own: ``servers["SASL_SSL"]``. Nobody without an ACL is refused, except
    where a topic has one."""

    stops_by = signal.SIGKILL  # it has nothing that anybody wants to keep

    def __init__(self, home: Path, joins: KafkaServer | None = None) -> None:
        super().__init__(home / "server.log")
        self._home = home
        self._joins = joins
        self._ports = {name: free_port() for name in _LISTENERS}
        self.servers = {name: f"127.0.0.1:{port}" for name, port in self._ports.items()}
        self.authority, own = _certificates()
        (home / "server.pem").write_text(own)
        self._settings = home / "server.properties"
        self._write()
        alone = [] if joins else ["--standalone"]
        self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(self._settings), *alone)

    @property
    def address(self) -> str:
        return self.servers["PLAINTEXT"]

    def advertise(self, host: str | None) -> None:
        """From the next start on it tells its clients to connect to it there."""
        self._write(host or "127.0.0.1")

    def start(self) -> None:
        self._begin([*_java(), "kafka.Kafka", str(self._settings)], within=120)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self._ports["PLAINTEXT"])):
                return False
        try:  # whatever it advertises
            return bool(self.admin.list_topics(timeout=5).brokers)
        except KafkaException:
            return False

    def _java(self, *command: str) -> None:
        with self._log.open("ab") as log:
            ended = subprocess.run([*_java(), *command], check=False, stdout=log, stderr=log)
        assert ended.returncode == 0, self._log.read_text()[-3000:]

    def _write(self, host: str = "127.0.0.1") -> None:
        controller = self._joins or self
        ports = {name: port for name, port in self._ports.items() if name != "CONTROLLER" or controller is self}
        told = {
            "process.roles": "broker,controller" if controller is self else "broker",
            "node.id": "1" if controller is self else "2",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(
                f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in _LISTENERS
            ),
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller._ports['CONTROLLER']}",
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
            "advertised.listeners": ",".join(
                f"{name}://{'127.0.0.1' if name == 'CONTROLLER' else host}:{port}" for name, port in ports.items()
            ),
            "log.dirs": str(self._home / "data"),
            "inter.broker.listener.name": "PLAINTEXT",
            "num.partitions": "1",
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "log.retention.ms": "-1",  # whatever the times of messages are
            "log.message.timestamp.after.max.ms": str(2**63 - 1),
            "log.cleaner.backoff.ms": "200",
            "log.cleaner.dedupe.buffer.size": "2097152",
            "log.segment.delete.delay.ms": "100",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            "super.users": "User:ANONYMOUS",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._home / "server.pem"),
        }
        for listener in ("sasl_plaintext", "sasl_ssl"):
            users = f'username="admin" password="{PASSWORD}" user_admin="{PASSWORD}" user_{USER}="{PASSWORD}"'
            own = f"listener.name.{listener}"
            told[f"{own}.plain.sasl.jaas.config"] = f"{_LOGIN}.plain.PlainLoginModule required {users};"
            told[f"{own}.oauthbearer.sasl.jaas.config"] = (
                f'{_LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="admin";'
            )
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                told[f"{own}.{mechanism}.sasl.jaas.config"] = f"{_LOGIN}.scram.ScramLoginModule required;"
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in told.items()))

    # What an administrator and an application of the customer's do.

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def add_user(self) -> None:
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            change = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
            for future in self.admin.alter_user_scram_credentials([change]).values():
                future.result(30)

    def create(self, topic: str, partitions: int = 1, *, node: int = 1, **settings: str) -> str:
        """``node``: the one that has it."""
        named = {name.replace("_", "."): value for name, value in settings.items()}
        new = NewTopic(topic, partitions, replica_assignment=[[node]] * partitions, config=named)
        self.admin.create_topics([new])[topic].result(30)
        self._wait_for(topic, lambda count: count == partitions)
        return topic

    def delete(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(30)
        self._wait_for(topic, lambda count: count == 0)

    def _wait_for(self, topic: str, holds: Callable[[int], bool]) -> None:
        admin = self.admin

        def partitions() -> int:
            found = admin.list_topics(timeout=10).topics.get(topic)
            return len([each for each in found.partitions.values() if each.leader >= 0]) if found else 0

        wait_for(lambda: holds(partitions()))

    def producer(self, **settings: Any) -> Producer:
        named = {name.replace("_", "."): value for name, value in settings.items()}
        return Producer({"bootstrap.servers": self.address, "linger.ms": 2, "log_level": 0} | named)

    def produce(self, topic: str, values: Sequence[bytes | None], **options: Any) -> None:
        """``options``: of each message, e.g. ``key``, ``partition``, ``timestamp``, ``headers``."""
        producer = self.producer()
        for value in values:
            producer.produce(topic, value, on_delivery=_delivered, **options)
        assert producer.flush(60) == 0


def running_kafka(joins: KafkaServer | None = None) -> AbstractContextManager[KafkaServer]:
    return running(lambda home: KafkaServer(home, joins))


def _delivered(error: Any, message: Any) -> None:
    assert error is None, error


def _java() -> list[str]:
    java = shutil.which("java")
    assert java is not None, "java is not installed: `apt-get install openjdk-17-jre-headless`"
    assert JARS.is_dir(), f"Kafka is not at {JARS}: `make servers`"
    return [java, *_MEMORY, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{JARS}/*"]


def _certificates() -> tuple[str, str]:
    """An authority's certificate, and a server's key and certificate that it signed for 127.0.0.1; PEM."""
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, key: Any, issuer: str, signed_by: Any, *extensions: Any) -> x509.Certificate:
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
        )
        for extension in extensions:
            made = made.add_extension(extension, critical=False)
        return made.sign(signed_by, hashes.SHA256())

    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = certificate("authority", authority_key, "authority", authority_key, x509.BasicConstraints(True, None))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    own = certificate("broker", key, "authority", authority_key, names)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    return authority.public_bytes(pem).decode(), (
        private + own.public_bytes(pem) + authority.public_bytes(pem)
    ).decode()
