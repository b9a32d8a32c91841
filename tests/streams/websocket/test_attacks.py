"""What a hostile server can cost: bounded time, bounded memory, and no step inside."""

from __future__ import annotations

import socket
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any

import pytest

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.streams.websocket.connecting import Handshake
from churnguard_pipelines.streams.websocket.connection import BUFFER_BYTES, Connection
from churnguard_pipelines.streams.websocket.ending import Ended, Kind
from tests.sources.websocket_server import Talk, WebSocketServer, says, serve_bare, shake_hands
from tests.streams.websocket.conftest import reading, stream_of
from tests.waiting import wait_for

MIB = 1 << 20


@contextmanager
def connected(url: str, *, largest: int = MIB, ping_seconds: float = 20.0) -> Iterator[Connection]:
    cancelled = Event()
    connection = Connection(
        AddressGuard("ticks", False),
        lambda: Handshake(url, {}),
        largest=largest,
        ping_seconds=ping_seconds,
        silence_seconds=None,
        heartbeat=None,
        cancelled=cancelled,
    )
    try:
        yield connection
    finally:
        cancelled.set()
        connection.close()


def ending(connection: Connection) -> Ended:
    try:
        while True:
            connection.take(1000, 60.0)
    except Ended as ended:
        return ended


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("wss://127.0.0.1:{port}/", "no host with a public address"),
        ("wss://169.254.169.254/", "no host with a public address"),
        ("ws://93.184.216.34/", "without encryption"),
        ("wss://93.184.216.34:25/", "none of the web"),
    ],
    ids=["itself", "metadata", "unencrypted", "mail"],
)
def test_a_tenant_reaches_nothing_inside(server: WebSocketServer, url: str, words: str) -> None:
    port = server.url.rsplit(":", 1)[1].split("/")[0]
    with reading(stream_of(url.format(port=port)), restricted=True) as reader:
        with pytest.raises(InvalidConfiguration, match=words):
            reader.source.check()
        with pytest.raises(InvalidConfiguration, match=words):
            reader.read(lambda it: False)
    assert server.connections == 0


def test_a_redirect_inside_is_not_followed(server: WebSocketServer) -> None:
    reached: list[Any] = []
    with serve_bare(reached.append) as inside:
        server.refusals = [(307, {"Location": inside})]
        with reading(stream_of(server.url)) as reader, pytest.raises(InvalidConfiguration, match="redirects"):
            reader.read(lambda it: False)
    assert reached == []


def test_a_compression_bomb_bursts_early(server: WebSocketServer) -> None:
    """200 MiB packed into 200 KiB: no more than the largest message is unpacked."""

    def script(talk: Talk) -> None:
        packer = zlib.compressobj(9, wbits=-15)
        packed = b"".join(packer.compress(bytes(MIB)) for _ in range(200)) + packer.flush(zlib.Z_SYNC_FLUSH)
        packed = packed[:-4]
        talk.connection.socket.sendall(b"\xc1\x7f" + struct.pack("!Q", len(packed)) + packed)
        talk.stay()

    server.scripts = [script]
    with connected(server.url) as connection:
        tracemalloc.start()
        try:
            assert ending(connection).kind is Kind.TOO_LARGE
            assert tracemalloc.get_traced_memory()[1] < 32 * MIB
        finally:
            tracemalloc.stop()


def test_a_message_beyond_the_limit_stops_the_stream_and_names_it(server: WebSocketServer) -> None:
    server.scripts = [says("x" * 2000)]
    stream = stream_of(server.url, data_format="text", largest_message=1024)
    with reading(stream) as reader, pytest.raises(InvalidConfiguration, match=r"1,024 bytes\. Raise"):
        reader.read(lambda it: False)
    assert server.connections == 2, "once may be the connection's fault"


@pytest.mark.parametrize("fragment", [b"", b"x" * 100], ids=["empty", "filled"])
def test_fragments_without_an_end_end(fragment: bytes) -> None:
    def handle(connection: socket.socket) -> None:
        shake_hands(connection)
        connection.sendall(b"\x01\x00")
        more = (b"\x00" + bytes([len(fragment)]) + fragment) * 500
        with suppress(OSError):
            while True:
                connection.sendall(more)

    with serve_bare(handle) as url, connected(url) as connection:
        assert ending(connection).kind is Kind.TOO_LARGE


def test_a_flood_waits_in_the_servers_socket_not_in_our_memory() -> None:
    """Nobody takes anything: the server is held back, and the connection lives on beyond its pings' time."""
    sent = 0

    def handle(connection: socket.socket) -> None:
        nonlocal sent
        shake_hands(connection)
        frame = b"\x82\x7e" + struct.pack("!H", 60_000) + bytes(60_000)
        while True:
            connection.sendall(frame)
            sent += len(frame)

    with serve_bare(handle) as url, connected(url, ping_seconds=0.2) as connection:
        assert connection.opened(60)
        wait_for(lambda: connection.buffered == 1.0)
        seen = -1
        while seen != sent:  # until it sends no more
            seen = sent
            Event().wait(0.7)
        taken = sum(map(len, connection.take(10_000, 0)))
        assert BUFFER_BYTES <= taken < BUFFER_BYTES + MIB
        wait_for(lambda: connection.buffered == 1.0)


def test_pings_without_end_whose_answers_are_not_read_end() -> None:
    def handle(connection: socket.socket) -> None:
        shake_hands(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while True:
            connection.sendall((b"\x89\x7d" + bytes(125)) * 500)

    with serve_bare(handle) as url, connected(url) as connection:
        assert "pings" in ending(connection).what


def test_a_server_that_does_not_answer_pings_is_left() -> None:
    def handle(connection: socket.socket) -> None:
        shake_hands(connection)
        Event().wait(60)

    with serve_bare(handle) as url, connected(url, ping_seconds=0.2) as connection:
        assert "ping" in ending(connection).what


def test_a_handshake_that_never_ends_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of a header every now and then."""
    monkeypatch.setattr("churnguard_pipelines.streams.websocket.connection.OPEN_SECONDS", 1.0)

    def handle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
        while not Event().wait(0.1):
            connection.sendall(b"x")

    with (
        serve_bare(handle) as url,
        reading(stream_of(url)) as reader,
        pytest.raises(ProviderUnavailable, match="did not open a connection within 1 s"),
    ):
        reader.source.check()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 x\r\nA: " + b"x" * 100_000,
        b"\0" * 10_000,
    ],
    ids=["http", "ssh", "long header", "zeros"],
)
def test_what_is_no_websocket_is_told_as_that(answer: bytes) -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    with (
        serve_bare(handle) as url,
        reading(stream_of(url)) as reader,
        pytest.raises((InvalidConfiguration, ProviderUnavailable), match="server"),
    ):
        reader.source.check()


def test_secrets_are_in_no_error(server: WebSocketServer) -> None:
    server.refusals = [(401, {})]
    stream = stream_of(
        server.url + "?key=k3y-of-acme", headers={"Authorization": "Bearer t0ken-of-acme"}, subscribe=[{"key": "k3y"}]
    )
    with reading(stream) as reader, pytest.raises(Exception) as raised:  # noqa: PT011 - whichever it is
        reader.read(lambda it: False)
    assert "acme" not in str(raised.value)
