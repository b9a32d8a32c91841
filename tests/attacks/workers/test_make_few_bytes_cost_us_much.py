"""A tenant's server answers with little that is to become much: a count to digest a password by, names to keep
connections to, packed bytes, the smallest of packets. What it may cost us is bounded by what comes of it."""

from __future__ import annotations

import base64
import gzip
import socket
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import bson
import pytest

from churnguard_pipelines.connectors.mongodb import connection as mongodb_connection
from churnguard_pipelines.connectors.mongodb.connection import Source as MongoDBSource
from churnguard_pipelines.connectors.postgresql.connection import connect as connect_to_postgresql
from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import OAuth2ClientCredentials
from churnguard_pipelines.engine.http import MIB, HttpClient
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.errors import AuthenticationFailed, ProviderError, ProviderUnavailable
from churnguard_pipelines.model import IntegrationConfiguration
from tests.attacks.workers.hostile import HostileServer, Treatment, Victim, message
from tests.attacks.workers.test_steal_our_credentials_by_a_driver import pointed_at

GENEROUS = 30.0


def mongodb_saying(more: Callable[[dict[str, Any], str], dict[str, Any]]) -> Treatment:
    """A primary that answers each question (and its own address) with ``more`` than the usual."""

    def treat(victim: Victim) -> None:
        me = f"127.0.0.1:{victim.connection.getsockname()[1]}"
        usual = {
            "ok": 1, "setName": "rs0", "isWritablePrimary": True, "helloOk": True, "hosts": [me], "me": me,
            "minWireVersion": 0, "maxWireVersion": 21, "setVersion": 1, "saslSupportedMechs": ["SCRAM-SHA-256"],
        }  # fmt: skip
        while True:
            request = victim.hear()
            body = bytes(5) + bson.encode(usual | more(bson.decode(request[21:]), me))
            number = int.from_bytes(request[4:8], "little")
            victim.say(struct.pack("<iiii", 16 + len(body), 1, number, 2013) + body)

    return treat


def scram(count: bytes) -> Callable[[dict[str, Any], str], dict[str, Any]]:
    def proof(start: dict[str, Any]) -> dict[str, Any]:
        nonce = start["payload"].split(b",r=")[1]
        payload = b"r=%sabc,s=%s,i=%s" % (nonce, base64.b64encode(bytes(28)), count)
        return {"conversationId": 1, "done": False, "payload": payload}

    def more(question: dict[str, Any], me: str) -> dict[str, Any]:
        if (start := question.get("speculativeAuthenticate")) is not None:
            return {"speculativeAuthenticate": proof(start)}
        return proof(question) if "saslStart" in question else {}

    return more


def asked(treatment: Treatment, userinfo: str = "") -> None:
    with HostileServer(treatment) as server:
        text = f"mongodb://{userinfo}127.0.0.1:{server.port}/product?replicaSet=rs0"
        source = MongoDBSource(pointed_at("mongodb", 1, connection_string=text))
        try:
            source.hello()
        finally:
            source.close()


TOO_MANY = pytest.mark.parametrize("iterations", [b"2147483647", b"500001", b"000000000002147483647", b"+2147483647"])


@TOO_MANY
def test_by_a_password_to_be_digested_two_milliard_times(iterations: bytes) -> None:
    """The driver would count for hours, in a thread that nothing ends."""
    began = time.monotonic()
    with pytest.raises(ProviderUnavailable, match="digested too often"):
        asked(mongodb_saying(scram(iterations)), "reader:secret@")
    assert time.monotonic() - began < GENEROUS


@TOO_MANY
@pytest.mark.parametrize("at", [1, 2])
def test_by_postgresql_s_password_to_be_digested_two_milliard_times(
    monkeypatch: pytest.MonkeyPatch, iterations: bytes, at: int
) -> None:
    """Nor if it asks so only the second time, when libpq listens."""
    monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", "127.0.0.1")
    connections = count(1)

    def treat(victim: Victim) -> None:
        victim.hear()
        victim.say(message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"))
        nonce = victim.hear().rpartition(b"r=")[2]
        asked_for = iterations if next(connections) == at else b"4096"
        challenge = b"r=%sabc,s=%s,i=%s" % (nonce, base64.b64encode(bytes(16)), asked_for)
        victim.say(message(b"R", struct.pack("!i", 11) + challenge))
        victim.hear()
        victim.connection.shutdown(socket.SHUT_RDWR)

    began = time.thread_time()
    with HostileServer(treat) as server, pytest.raises(ProviderError) as refused:
        connect_to_postgresql(by_an_organization(pointed_at("postgresql", server.port)))
    assert time.thread_time() - began < GENEROUS / 10
    assert at == 2 or "PostgreSQL" in str(refused.value)


@pytest.mark.parametrize("first", [0, 3, 5], ids=["nothing", "in clear", "md5"])
def test_by_postgresql_s_asking_for_another_proof_the_second_time(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """libpq would count for the better part of an hour."""
    monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", "127.0.0.1")
    connections = count(1)

    def treat(victim: Victim) -> None:
        victim.hear()
        if next(connections) == 1:
            victim.say(message(b"R", struct.pack("!i", first) + (b"salt" if first == 5 else b"")))
            victim.hear()
        victim.say(message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"))
        nonce = victim.hear().rpartition(b"r=")[2]
        victim.say(message(b"R", struct.pack("!i", 11) + b"r=%sabc,s=c2FsdA==,i=2147483647" % nonce))
        victim.hear()

    with HostileServer(treat) as server, pytest.raises(ProviderError):
        connect_to_postgresql(by_an_organization(pointed_at("postgresql", server.port)))


def by_an_organization(made: IntegrationConfiguration) -> IntegrationConfiguration:
    return made.model_copy(update={"configured_by": "organization"})


def test_by_a_set_of_thousands_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver would watch each of them in threads of its own."""
    monkeypatch.setattr(mongodb_connection, "CONNECT_SECONDS", 2.0)
    before = threading.active_count()
    most = [before]

    def more(question: dict[str, Any], me: str) -> dict[str, Any]:
        most.append(threading.active_count())
        return {"hosts": [me, *(f"10.0.{number // 256}.{number % 256}:27017" for number in range(3000))]}

    with pytest.raises(ProviderUnavailable, match="3001 members"):
        asked(mongodb_saying(more))
    assert max(most) - before < 50


def test_by_telling_of_itself_without_end() -> None:
    """In the driver's usual way of watching a server, that decides how often it is heard."""
    seen: list[dict[str, Any]] = []
    numbers = count()

    def more(question: dict[str, Any], me: str) -> dict[str, Any]:
        seen.append(question)
        return {"topologyVersion": {"processId": bson.ObjectId(), "counter": bson.Int64(next(numbers))}}

    asked(mongodb_saying(more))
    assert seen
    assert not any("topologyVersion" in each for each in seen)


@pytest.fixture(scope="module")
def much() -> bytes:
    return bytes(64 * MIB)


def answer(body: bytes, status: int = 200, **headers: str) -> bytes:
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} x\r\n{named}content-length: {len(body)}\r\n\r\n".encode() + body


def http_saying(*answers: bytes) -> Treatment:
    def treat(victim: Victim) -> None:
        for each in answers:
            victim.hear()
            victim.say(each)
        victim.silence()

    return treat


class Kept:
    """A token in memory."""

    token: Token | None = None

    def load(self) -> Token | None:
        return self.token

    @contextmanager
    def locked(self) -> Iterator[Kept]:
        yield self

    def save(self, token: Token) -> None:
        self.token = token


def got(port: int, kept: Kept | None = None) -> bytes:
    """What is answered, with a token if one is ``kept``."""
    base = f"http://127.0.0.1:{port}"
    auth = OAuth2ClientCredentials(kept, f"{base}/token", client_id="a", client_secret="canary") if kept else None
    guard, once = AddressGuard("acme", restricted=False), RetryPolicy(attempts=0)
    with HttpClient(guard, auth=auth, retry=once, max_body=MIB, timeout=10) as client:
        client.request("GET", f"{base}/1")
        return client.request("GET", f"{base}/2").content


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "gzip, gzip": lambda data: gzip.compress(gzip.compress(data)),
    "deflate, x, gzip": lambda data: gzip.compress(zlib.compress(data)),
}


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("place", ["answer", "token", "refusal"])
def test_by_packed_bytes(much: bytes, place: str, encoding: str) -> None:
    """In an answer, in one of a token endpoint's, or in one that is not even looked into."""
    bomb = answer(PACKED[encoding](much), 401 if place == "refusal" else 200, content_encoding=encoding)
    token = answer(b'{"access_token": "token-1"}')
    answers = {"answer": [bomb], "token": [bomb], "refusal": [token, bomb]}[place]
    with HostileServer(http_saying(*answers)) as server:
        tracemalloc.start()
        try:
            with pytest.raises(ProviderError):
                got(server.port, None if place == "answer" else Kept())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 16 * MIB


def test_by_cookies_that_are_kept() -> None:
    cookies = "\r\nset-cookie: ".join(f"name-{number}=value" for number in range(1000))
    with HostileServer(http_saying(answer(b"{}", set_cookie=cookies), answer(b"{}"))) as server:
        got(server.port)
        assert b"/2" in server.received
        assert b"cookie" not in server.received.lower()


@pytest.mark.parametrize("token", ["x" * 16_385, "tok\\r\\nen", "tok\\u2028en", "tok\\u0131n", ""])
def test_by_a_token_that_cannot_be_sent(token: str) -> None:
    kept = Kept()
    with HostileServer(http_saying(answer(b'{"access_token": "%s"}' % token.encode()))) as server:
        with pytest.raises(AuthenticationFailed):
            got(server.port, kept)
        assert kept.token is None


@pytest.mark.parametrize("lifetime", [b'"nan"', b'"inf"', b"1e308", b'"-inf"', b"[]"])
def test_by_a_token_that_lives_for_no_time_at_all(lifetime: bytes) -> None:
    """It would be renewed before each request, or never; nor is what is no text kept as what renews it."""
    said = b'{"access_token": "token-1", "refresh_token": ["a"], "expires_in": %s}' % lifetime
    kept = Kept()
    with HostileServer(http_saying(answer(said), answer(b"{}"), answer(b"{}"))) as server:
        got(server.port, kept)
    assert kept.token is not None
    assert kept.token.expires_at is not None
    assert kept.token.refresh_token is None
    assert 0 < kept.token.expires_at - kept.token.obtained_at <= 3600
