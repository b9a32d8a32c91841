"""What goes wrong between us and a cluster is said in one sentence, by the right error, and passes if it can."""

from __future__ import annotations

import base64
import gc
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
)
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams import kafka as kafka_streams
from churnguard_pipelines.streams.kafka import cluster
from churnguard_pipelines.streams.sdk import MessageBatch, Seek
from tests.sources.kafka import PASSWORD, USER, KafkaServer, running_kafka
from tests.streams.kafka.conftest import Sources, opened, stream
from tests.streams.kafka.reading import read
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("kafka")

WRONG = "canary-wrong-password"


@contextmanager
def token_endpoint(status: int = 200, expires_in: object = 600) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Sells tokens that this broker takes: unsigned, which it does as long as it is told of no keys."""
    asked: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["content-length"])).decode()
            asked.append({"form": form, "authorization": self.headers["authorization"]})
            now = int(time.time())
            parts = ({"alg": "none"}, {"sub": USER, "iat": now, "exp": now + 600})
            token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
            body = json.dumps({"access_token": f"{token}.", "expires_in": expires_in}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/token", asked
        server.shutdown()


def signing_in(mechanism: str, password: str = PASSWORD) -> dict[str, Any]:
    return {"sasl_mechanism": mechanism, "sasl_username": USER, "sasl_password": password}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_signed_in(kafka: KafkaServer, topic: str, source: Sources, protocol: str, mechanism: str) -> None:
    encrypted = {"ssl_ca_pem": kafka.authority} if protocol == "SASL_SSL" else {}
    reader = source(
        topic, servers=kafka.servers[protocol], security_protocol=protocol, **signing_in(mechanism), **encrypted
    )
    kafka.produce(topic, [b"x"])
    reader.check()
    assert read(reader, f"{topic}/0", lambda done: done.messages).values == [b"x"]


@pytest.mark.parametrize("expires_in", [600, "600", None], ids=["a number", "digits", "nobody says when"])
def test_signed_in_by_a_token(kafka: KafkaServer, topic: str, source: Sources, expires_in: object) -> None:
    kafka.produce(topic, [b"x"])
    with token_endpoint(expires_in=expires_in) as (url, asked):
        reader = source(topic, servers=kafka.servers["SASL_PLAINTEXT"], **by_token(url))
        reader.check()
        assert read(reader, f"{topic}/0", lambda done: done.messages).values == [b"x"]
    assert len(asked) == 1, "one token serves all clients of a cluster"
    assert asked[0]["form"] == "grant_type=client_credentials&scope=kafka"
    assert base64.b64decode(asked[0]["authorization"].removeprefix("Basic ")) == f"app:{PASSWORD}".encode()


def by_token(url: str) -> dict[str, Any]:
    return {
        "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauthbearer_client_id": "app", "sasl_oauthbearer_client_secret": PASSWORD,
        "sasl_oauthbearer_token_endpoint_url": url, "sasl.oauthbearer.scope": "kafka",
    }  # fmt: skip


def test_a_token_endpoint_that_refuses(kafka: KafkaServer, topic: str, source: Sources) -> None:
    with token_endpoint(status=401) as (url, _):
        reader = source(topic, servers=kafka.servers["SASL_PLAINTEXT"], **by_token(url))
        with pytest.raises(AuthenticationFailed) as raised:
            reader.check()
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password(kafka: KafkaServer, topic: str, source: Sources, mechanism: str) -> None:
    reader = source(
        topic, servers=kafka.servers["SASL_PLAINTEXT"], security_protocol="SASL_PLAINTEXT",
        **signing_in(mechanism, WRONG),
    )  # fmt: skip
    with pytest.raises(AuthenticationFailed, match="refused the credentials") as raised:
        reader.check()
    assert raised.value.integration_id == "usage"
    assert WRONG not in str(raised.value)


def test_tls_with_an_authority_that_is_not_ours(kafka: KafkaServer, topic: str, source: Sources) -> None:
    told = source(topic, servers=kafka.servers["SSL"], security_protocol="SSL")
    with pytest.raises(InvalidConfiguration, match="no TLS connection"):
        told.check()


def test_tls_with_a_name_that_is_not_the_brokers(kafka: KafkaServer, topic: str, source: Sources) -> None:
    port = kafka.servers["SSL"].rpartition(":")[2]
    told = source(topic, servers=f"localhost:{port}", security_protocol="SSL", ssl_ca_pem=kafka.authority)
    with pytest.raises(InvalidConfiguration, match="no TLS connection"):
        told.check()


def test_tls_where_there_is_none(kafka: KafkaServer, topic: str, source: Sources) -> None:
    with pytest.raises((InvalidConfiguration, ProviderUnavailable), match=r"no TLS connection|do not answer"):
        source(topic, servers=kafka.address, security_protocol="SSL").check()


def test_a_certificate_that_is_none(topic: str, source: Sources) -> None:
    with pytest.raises(InvalidConfiguration, match="PEM"):
        source(topic, security_protocol="SSL", ssl_ca_pem="-----BEGIN CERTIFICATE-----\ncanary").check()


def test_nobody_listens(topic: str, source: Sources) -> None:
    port = free_port()
    reader = source(topic, servers=f"127.0.0.1:{port}")
    began = time.monotonic()
    with pytest.raises(ProviderUnavailable, match=rf"the brokers 127.0.0.1:{port} do not answer"):
        reader.check()
    assert time.monotonic() - began < 60


def test_a_cluster_that_hangs_costs_no_thread_for_each_question(
    source: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Python seldom looks for garbage in circles, as it does in a session with little to do."""
    monkeypatch.setattr(cluster, "ANSWERS_WITHIN", 0.3)
    monkeypatch.setattr(cluster, "FAILED_FOR", 0.0)

    def asked() -> int:
        with pytest.raises(ProviderUnavailable):
            reader.check()
        return len(list(Path("/proc/self/task").iterdir()))

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        reader = source("events", servers=f"127.0.0.1:{deaf.getsockname()[1]}")
        gc.collect()
        gc.disable()
        try:
            first = asked()
            for _ in range(4):
                asked()
            wait_for(lambda: asked() <= first + 4, 20)
        finally:
            gc.enable()


def test_a_host_that_there_is_not(topic: str, source: Sources) -> None:
    with pytest.raises((InvalidConfiguration, ProviderUnavailable), match=r"no-such-host\.invalid"):
        source(topic, servers="no-such-host.invalid:9092").check()


def test_a_topic_that_there_is_not(source: Sources) -> None:
    for ask in (lambda: source("no.such").check(), lambda: source("no.such").partitions()):
        with pytest.raises(InvalidConfiguration, match=r"there is no topic no\.such"):
            ask()
    with pytest.raises(InvalidConfiguration, match="matches 'no-such-"):
        source("no-such-*").check()


@pytest.fixture
def forbidden(kafka: KafkaServer, topic: str) -> str:
    """A topic that ``reader`` may see and nothing else."""
    allowed = AclBinding(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{USER}", "*", AclOperation.DESCRIBE,
        AclPermissionType.ALLOW,
    )  # fmt: skip
    for future in kafka.admin.create_acls([allowed]).values():
        future.result(30)
    return topic


def test_a_topic_that_may_not_be_read(kafka: KafkaServer, forbidden: str, source: Sources) -> None:
    kafka.produce(forbidden, [b"x"])
    own = {"servers": kafka.servers["SASL_PLAINTEXT"], "security_protocol": "SASL_PLAINTEXT"} | signing_in("PLAIN")
    with pytest.raises(PermissionMissing, match=rf"may not read {forbidden}.*ACLs"):
        source(forbidden, **own).check()
    with pytest.raises(PermissionMissing, match="READ"):
        read(source(forbidden, **own), f"{forbidden}/0", lambda done: done.messages)


def test_an_answer_that_is_larger_than_is_taken(kafka: KafkaServer, topic: str, source: Sources) -> None:
    """Nothing that a broker sends fills our memory, and the stream says which limit it was."""
    large = kafka.create(f"{topic}.large", max_message_bytes="20000000")
    producer = kafka.producer(message_max_bytes=20_000_000)
    producer.produce(large, bytes(17_000_000))
    assert producer.flush(60) == 0
    reader = source(large, largest_message=1024)
    with pytest.raises(InvalidConfiguration, match=r"sent more at once than is taken.*Raise largest_message"):
        read(reader, f"{large}/0", lambda done: done.messages)
    assert read(source(large), f"{large}/0", lambda done: done.messages).values == [bytes(17_000_000)]


@pytest.fixture
def mortal() -> Iterator[KafkaServer]:
    with running_kafka() as server:
        yield server


@pytest.mark.slow
def test_a_broker_that_is_killed_and_comes_back(mortal: KafkaServer) -> None:
    """Reading goes on by itself, or where it was as soon as it is begun again; who looks meanwhile is told."""
    topic = mortal.create("events")
    mortal.produce(topic, [b"before"])
    reader = opened(stream(topic, servers=mortal.address))
    got: list[bytes | None] = []
    position: Position | None = None
    batches = reader.batches(f"{topic}/0", None)

    def go_on() -> None:
        nonlocal batches, position
        try:
            batch = next(batches)
        except ProviderUnavailable:  # a session begins it once more, from the position that holds
            batches = reader.batches(f"{topic}/0", position)
            return
        if batch is not None:
            got.extend(values(batch))
            position = batch.position

    while b"before" not in got:
        go_on()
    mortal.kill()
    with pytest.raises(ProviderUnavailable, match="do not answer"):
        reader.watermarks({})
    for _ in range(3):
        go_on()
    mortal.start()
    mortal.produce(topic, [b"after"])
    deadline = time.monotonic() + 90
    while b"after" not in got:
        assert time.monotonic() < deadline
        go_on()
    batches.close()
    assert got == [b"before", b"after"]
    wait_for(lambda: _looks(reader))

    mortal.kill()
    mortal.advertise("broker.invalid")
    mortal.start()
    with pytest.raises(ChurnGuardError, match=r"broker\.invalid:\d+") as raised:
        opened(stream(topic, servers=mortal.address)).check()
    said = str(raised.value)  # by us, or by the client, which may be there first
    assert "advertised.listeners" in said or "Failed to resolve" in said


@pytest.mark.slow
def test_a_broker_that_is_away_is_told_later_and_holds_up_no_end(mortal: KafkaServer) -> None:
    """What is told is how far it is stored."""
    topic = mortal.create("events")
    reader = opened(stream(topic, servers=mortal.address))
    told = Consumer({"bootstrap.servers": mortal.address, "group.id": "churnguard-usage"})

    def tells() -> bool:
        next(batches)
        (found,) = told.committed([TopicPartition(topic, 0)], timeout=10)
        return int(found.offset) == 2

    with closing(told), closing(reader.batches(f"{topic}/0", None)) as batches:
        for number in range(2):
            mortal.produce(topic, [b"%d" % number])
            while not values(next(batches)):
                pass
        mortal.kill()
        go_on_for(4, batches)
        mortal.start()
        wait_for(tells)
    with closing(reader.batches(f"{topic}/0", None)) as batches:
        while not values(next(batches)):
            pass
        mortal.hang()
        go_on_for(14, batches)
        begun = time.monotonic()
    assert time.monotonic() - begun < 20


@pytest.mark.slow
def test_a_partition_that_nobody_leads_holds_up_no_other(mortal: KafkaServer) -> None:
    """Neither one of the same stream nor one of another stream of the cluster; who reads it says what it lacks."""
    with running_kafka(joins=mortal) as second:
        topics = [mortal.create("led"), mortal.create("lost", node=2)]
        for topic in topics:
            mortal.produce(topic, [b"x"])
        led, lost, both = (
            opened(stream(*each, servers=mortal.address)) for each in (["led"], ["lost"], ["led", "lost"])
        )
        assert {name: mark.behind for name, mark in both.watermarks({}).items()} == {"led/0": 1, "lost/0": 1}
        with closing(lost.batches("lost/0", None)) as reading:
            while not values(next(reading)):
                pass
            second.kill()
            with pytest.raises(
                ProviderUnavailable, match="partition 0 of lost has no leader: the brokers that have it"
            ):
                for _ in reading:
                    pass
        wait_for(lambda: both.watermarks({})["lost/0"].behind is None)
        assert led.watermarks({})["led/0"].behind == both.watermarks({})["led/0"].behind == 1
        assert read(led, "led/0", lambda done: done.messages).values == [b"x"]
        with pytest.raises(ProviderUnavailable, match="eader"):
            read(lost, "lost/0", lambda done: done.messages)


@pytest.mark.slow
def test_a_leader_that_hangs_says_nothing_and_holds_up_no_other(
    mortal: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does not say is no offset: a stream would be caught up, begin nowhere, or have lost what it has read."""
    with running_kafka(joins=mortal) as second:
        for topic, node in (("answers", 1), ("hangs", 2)):
            mortal.produce(mortal.create(topic, node=node), [b"x"])
        hangs, both = (opened(stream(*each, servers=mortal.address)) for each in (["hangs"], ["answers", "hangs"]))
        stored = read(hangs, "hangs/0", lambda done: done.messages).position
        assert stored is not None
        monkeypatch.setattr(cluster, "ANSWERS_WITHIN", 2.0)
        both.watermarks({})
        monkeypatch.setattr(kafka_streams, "QUIET_FOR", 0.5)
        with closing(hangs.batches("hangs/0", stored)) as reading:
            next(reading)
            second.hang()

            def behind() -> dict[str, int | None]:
                try:
                    return {name: mark.behind for name, mark in both.watermarks({"hangs/0": stored}).items()}
                except ProviderUnavailable:  # a client may ask the one that hangs what any broker knows, and is left
                    return {}

            wait_for(lambda: behind() == {"answers/0": 1, "hangs/0": None})
            for position in (None, stored):
                with pytest.raises(ProviderUnavailable):
                    next(hangs.batches("hangs/0", position))
            with pytest.raises(ProviderUnavailable):
                hangs.sought(Seek("latest"))
            with pytest.raises(ProviderUnavailable):
                for _ in reading:
                    pass


def go_on_for(seconds: float, batches: Iterator[MessageBatch | None]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        next(batches)


def values(batch: MessageBatch | None) -> list[bytes | None]:
    return [message.value for message in batch.messages] if batch else []


def _looks(reader: Any) -> bool:
    try:
        return bool(reader.watermarks({}))
    except ProviderUnavailable:
        return False
