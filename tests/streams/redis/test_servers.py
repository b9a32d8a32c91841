"""Which server is read, as whom, and what is said where that cannot be."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from threading import Event

import pytest
import redis

from churnguard_pipelines.engine.addresses import AddressGuard, check_addresses
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
    Stopped,
)
from churnguard_pipelines.settings import AllowedAddress
from churnguard_pipelines.streams.redis import Redis, answers
from churnguard_pipelines.streams.redis import server as servers
from churnguard_pipelines.streams.redis.server import Server
from tests.sources.certificates import of_address
from tests.sources.homes import temporary_home
from tests.sources.redis import PASSWORD, RedisServer, Sentinel, TlsFront
from tests.streams.redis.conftest import Opened, parts
from tests.streams.redis.test_reading import added, drained, offsets
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def _no_redis_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture
def there(client: redis.Redis, topic: str) -> str:
    """A stream with three entries."""
    added(client, topic, 3)
    return topic


def test_what_is_configured_is_asked_for_and_nothing_is_changed(
    client: redis.Redis, there: str, opened: Opened
) -> None:
    opened().check()
    assert client.xinfo_groups(there) == []


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("redis://:wrong-canary@127.0.0.1:{port}/0", AuthenticationFailed, "refuses the credentials"),
        ("redis://127.0.0.1:{port}/0", AuthenticationFailed, "refuses the credentials"),
        ("redis://nobody:canary@127.0.0.1:{port}/0", AuthenticationFailed, "refuses the credentials"),
        ("redis://:{password}@127.0.0.1:{port}/99", ProviderUnavailable, "out of range"),
        ("redis://:{password}@127.0.0.1:{port}/1", InvalidConfiguration, "no Redis stream"),
        ("redis://:{password}@127.0.0.1:1/0", ProviderUnavailable, "refused"),
        ("redis://:{password}@nowhere.invalid/0", InvalidConfiguration, "no host"),
        ("redis://:{password}@127.0.0.1:{port}/zero", InvalidConfiguration, "no number"),
        ("redis://:{password}@127.0.0.1:{port}/0?db=2", InvalidConfiguration, "cannot be read"),
        ("redis://a:{password}@b@127.0.0.1:{port}/0", InvalidConfiguration, "cannot be read"),
        ("redis://127.0.0.1:1,127.0.0.1:2/0", InvalidConfiguration, "too many hosts"),
        ("sentinel://127.0.0.1:1", InvalidConfiguration, "no service"),
        ("unix://somewhere/redis.sock", InvalidConfiguration, "socket"),
    ],
)
def test_a_connection_that_cannot_be_says_why_and_repeats_no_password(
    server: RedisServer, there: str, opened: Opened, url: str, error: type[ChurnGuardError], says: str
) -> None:
    given = url.format(port=server.port, password=PASSWORD)
    with pytest.raises(error, match=says) as raised:
        opened({"url": given}).check()
    assert "canary" not in str(raised.value)


def test_topics_that_are_no_streams_are_said(client: redis.Redis, topic: str, opened: Opened) -> None:
    with pytest.raises(InvalidConfiguration, match="there is no Redis stream “events:"):
        opened().check()
    with pytest.raises(InvalidConfiguration, match="there is no Redis stream “not:1”, “not:2” in"):
        opened(topics=["not:1", "not:2"]).check()
    client.set(topic, "a text")
    with pytest.raises(InvalidConfiguration, match="no Redis stream"):
        opened().check()
    with pytest.raises(InvalidConfiguration, match="no Redis stream has a name like"):
        opened(topics=["nothing:*"]).check()


def test_a_user_needs_what_is_said_where_it_is_missing(
    server: RedisServer, client: redis.Redis, there: str, opened: Opened
) -> None:
    login = {"username": "reader", "password": "reader-canary"}
    client.execute_command("ACL SETUSER reader on >reader-canary ~events:* +@read +ping +multi +exec")
    with pytest.raises(PermissionMissing, match="ACL SETUSER reader") as raised:
        opened(login).check()
    rules = str(raised.value).split("`")[1].removeprefix("ACL SETUSER reader ").replace("~<key>", f"~{there}")
    client.execute_command(f"ACL SETUSER reader reset on >reader-canary {rules}")
    source = opened(login)
    source.check()
    batches, _ = drained(source, there)
    assert len(offsets(batches)) == 3
    assert "canary" not in str(raised.value)


def test_a_group_may_have_another_name(client: redis.Redis, there: str, opened: Opened) -> None:
    drained(opened({"group": "staging"}), there)
    assert [group["name"] for group in client.xinfo_groups(there)] == [b"staging"]


@pytest.mark.parametrize("connection", [{"user": "x"}, {"group": "a b"}, {"value_field": ""}, {"tls_ca": "x"}])
def test_options_that_are_not_known_or_cannot_be_are_named(opened: Opened, connection: dict[str, object]) -> None:
    with pytest.raises(InvalidConfiguration, match=next(iter(connection))):
        opened(connection)


def test_tenants_name_public_servers_that_encrypt(server: RedisServer, there: str) -> None:
    for url in (
        server.url, "rediss://10.0.0.7/0", "redis://redis.example.com/0", "unix:///run/redis.sock",
        "sentinel://s1.example.com,s2.example.com/events", "sentinels://s1.example.com,127.0.0.1:26379/events",
    ):  # fmt: skip
        stream, _, _ = parts(server, there, {"url": url}, configured_by="organization")
        with pytest.raises(InvalidConfiguration):
            check_addresses(stream)
    stream, _, _ = parts(
        server, there, {"url": "sentinels://a:b@s1.example.com,s2.example.com:5000/e"}, configured_by="organization"
    )
    check_addresses(stream)


def test_a_tenant_never_gets_the_installations_own_redis(
    server: RedisServer, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", server.url)
    stream, guard, cancelled = parts(server, there)
    stream = stream.model_copy(update={"connection_config": {}})
    assert drained(Redis(stream, guard, cancelled), there)[0]
    with pytest.raises(InvalidConfiguration, match="url is missing"):
        Redis(stream, AddressGuard("acme-events", restricted=True), cancelled)


def test_a_name_that_leads_inside_is_not_connected_to(server: RedisServer, there: str) -> None:
    stream, _, cancelled = parts(server, there, {"url": f"rediss://rebinding.example:{server.port}/0"})
    guard = AddressGuard("acme-events", restricted=True, look_up=lambda host, port: ["127.0.0.1"])
    with pytest.raises(InvalidConfiguration, match="no host with a public address"):
        Redis(stream, guard, cancelled).check()


def test_tls_verifies_the_name_of_whom_it_asks(server: RedisServer, there: str, tmp_path: Path, opened: Opened) -> None:
    authority, context = certificate(tmp_path, "127.0.0.1")
    front = TlsFront(server.port, context)
    try:
        url = f"rediss://:{PASSWORD}@127.0.0.1:{front.port}/0"
        source = opened({"url": url, "tls_ca": authority})
        source.check()
        assert len(offsets(drained(source, there)[0])) == 3
        with pytest.raises(InvalidConfiguration, match="tls_ca"):
            opened({"url": url}).check()
        with pytest.raises(InvalidConfiguration, match="TLS"):
            opened({"url": url.replace("127.0.0.1", "localhost"), "tls_ca": authority}).check()
    finally:
        front.close()


@pytest.mark.slow
def test_sentinels_say_who_leads_now(topic: str) -> None:
    """The leader dies, another one takes its place, and its stream goes on where it was."""
    with temporary_home() as one, temporary_home() as other, temporary_home() as third:
        first, second, sentinel = RedisServer(one), RedisServer(other), Sentinel(third)
        second.settings = ("--replicaof", "127.0.0.1", str(first.port))
        sentinel.knows(first)
        try:
            for each in (first, second, sentinel):
                each.start()
            with first.client as client, second.client as follower:
                added(client, topic, 3)
                wait_for(lambda: follower.exists(topic))
                url = f"sentinel://default:{PASSWORD}@127.0.0.1:1,127.0.0.1:{sentinel.port}/events/0"
                source = Redis(*parts(first, topic, {"url": url}))
                assert source.identity() == "events/0"
                batches, position = drained(source, topic)
                assert len(offsets(batches)) == 3
                wait_for(lambda: sentinel.client.sentinel_slaves("events"))
                wait_for(lambda: follower.info("replication")["master_link_status"] == "up")
                client.wait(1, 10_000)
                first.kill()

                def leads() -> bool:
                    return bool(follower.info("replication")["role"] == "master")

                wait_for(leads)
                added(follower, topic, 2, first=4)

                def found() -> bool:
                    with suppress(ProviderUnavailable):
                        return offsets(drained(Redis(*parts(first, topic, {"url": url})), topic, position)[0]) == [
                            "4-0", "5-0",
                        ]  # fmt: skip
                    return False

                wait_for(found)
        finally:
            for each in (first, second, sentinel):
                each.stop()


def test_what_a_sentinel_names_passes_the_guard(server: RedisServer, there: str) -> None:
    with talking(lambda connection: connection.sendall(b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n")) as port:
        guard = AddressGuard(
            "acme-events", restricted=True, allowed=(AllowedAddress.parse(f"127.0.0.1:{port}"),)
        )  # fmt: skip
        stream, _, cancelled = parts(server, there, {"url": f"sentinel://127.0.0.1:{port}/events"})
        with pytest.raises(InvalidConfiguration, match="no host with a public address"):
            Redis(stream, guard, cancelled).check()


HOSTILE = {
    "nothing": b"",
    "a text of an exabyte": b"$1152921504606846976\r\n" + b"x" * 100_000,
    "a billion parts": b"*1000000000\r\n" + b"$0\r\n\r\n" * 1_000_000,
    "lists in lists": b"*1\r\n" * 50_000,
    "a line without end": b"+" + b"x" * 1_000_000,
    "a false address": b"-MOVED here\r\n",
    "a long number": b":" + b"9" * 50_000 + b"\r\n",
    "another protocol": b"?\r\n",
    "less than nothing": b"$-2\r\n*-7\r\n",
    "an empty error": b"-\r\n",
    "an empty line": b"\r\n",
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_server_ends_the_question_and_nothing_else(
    server: RedisServer, topic: str, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(servers, "ANSWER_SECONDS", 1.0)

    def talk(connection: socket.socket) -> None:
        connection.sendall(answer)
        Event().wait(3)

    with talking(talk) as port:
        stream, guard, cancelled = parts(server, topic, {"url": f"redis://127.0.0.1:{port}/0"})
        with pytest.raises(ChurnGuardError) as raised:
            Redis(stream, guard, cancelled).watermarks({})
    assert isinstance(raised.value, ProviderUnavailable | InvalidConfiguration)


def test_a_server_that_drips_does_not_hold_us(server: RedisServer, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ANSWER_SECONDS", 1.0)

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"$1000\r\n")
        with suppress(OSError):
            while True:
                connection.sendall(b"x")
                Event().wait(0.1)

    with talking(talk) as port:
        stream, guard, cancelled = parts(server, topic, {"url": f"redis://127.0.0.1:{port}/0"})
        with pytest.raises(ProviderUnavailable, match="too slowly"):
            Redis(stream, guard, cancelled).watermarks({})


def test_a_server_that_drips_within_tls_does_not_hold_us_either(
    server: RedisServer, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something has come each time, and nothing that can be read: half a record."""
    monkeypatch.setattr(answers, "ANSWER_SECONDS", 1.0)
    authority, context = certificate(tmp_path, "127.0.0.1")

    def talk(connection: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        while tls.version() is None or outgoing.pending:
            with suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            if outgoing.pending:
                connection.sendall(outgoing.read())
            else:
                incoming.write(connection.recv(65_536))
        said, rest = b"$1000\r\n", b""
        while True:
            tls.write(said)
            record, said = outgoing.read(), b"x"
            connection.sendall(rest + record[:10])
            rest = record[10:]
            Event().wait(0.1)

    with talking(talk, listens=False) as port:
        connection: dict[str, object] = {"url": f"rediss://127.0.0.1:{port}/0", "tls_ca": authority}
        with pytest.raises(ProviderUnavailable, match="too slowly"):
            Redis(*parts(server, topic, connection)).watermarks({})


def test_nobody_waits_on_for_a_server_that_drips(server: RedisServer, topic: str) -> None:
    """Whoever gave up on it would have a thread less each time, for as long as its answers are let take."""
    drips, cancelled = list[int](), Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"$1000\r\n")
        while True:
            connection.sendall(b"x")
            drips.append(1)
            if len(drips) == 3:
                cancelled.set()
            Event().wait(0.1)

    with talking(talk) as port:
        stream, guard, _ = parts(server, topic, {"url": f"redis://127.0.0.1:{port}/0"})
        with pytest.raises(Stopped):
            Redis(stream, guard, cancelled).watermarks({})
    assert len(drips) < 100


@pytest.mark.parametrize("login", ["", f":{PASSWORD}@"], ids=["a question", "the login"])
def test_whoever_is_told_to_stop_while_a_server_hangs_says_that_and_no_trouble(
    server: RedisServer, topic: str, login: str
) -> None:
    stopped = Event()

    def hang(_: socket.socket) -> None:
        stopped.set()
        Event().wait(3)

    with talking(hang) as port:
        stream, guard, _ = parts(server, topic, {"url": f"redis://{login}127.0.0.1:{port}/0"})
        with pytest.raises(Stopped):
            next(Redis(stream, guard, stopped).batches(topic, None))


def test_nobody_looks_on_through_a_database_without_end(
    server: RedisServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    stream, guard, cancelled = parts(server, topic, {})

    def ask(self: Server, *command: str | bytes | int, **_: int) -> object:
        asked.append(1)
        if len(asked) == 5:
            cancelled.set()
        return 1 if command == ("DBSIZE",) else [b"1", []]

    monkeypatch.setattr(Server, "ask", ask)
    with pytest.raises(Stopped):
        Redis(stream.model_copy(update={"topics": ["*"]}), guard, cancelled).partitions()
    assert len(asked) == 5


def test_tenants_are_not_read_out_what_a_server_says(server: RedisServer, topic: str) -> None:
    with talking(lambda connection: connection.sendall(b"-ERR secret-of-the-inside\r\n" * 10)) as port:
        guard = AddressGuard("acme-events", restricted=True, allowed=(AllowedAddress.parse("127.0.0.1"),))
        stream, _, cancelled = parts(server, topic, {"url": f"redis://127.0.0.1:{port}/0"})
        with pytest.raises(ProviderUnavailable) as raised:
            Redis(stream, guard, cancelled).watermarks({})
    assert "secret" not in str(raised.value)


class talking:  # noqa: N801 - reads as the function that it is
    """A server that says something to whoever connects, and as a rule has asked it something; its port."""

    def __init__(self, talk: Callable[[socket.socket], None], *, listens: bool = True) -> None:
        self._talk, self._listens = talk, listens
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> int:
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), closing(connection):
            if self._listens:
                connection.recv(65_536)
            self._talk(connection)


def certificate(folder: Path, address: str) -> tuple[str, ssl.SSLContext]:
    """Of an address, signed by itself: in PEM, and for who serves it."""
    key, public = of_address(address)
    file = folder / "server.pem"
    file.write_text(key + public)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return public, context
