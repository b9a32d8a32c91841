"""An attacker wants memory or time of a server that nobody has told yet who is there: heads, URLs, framing, sockets."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import psutil

from tests.attacks.gateway.strangers import MIB, Server, answer, connect, endless, head, pour
from tests.webhook_gateway.intake.conftest import Gateway
from webhook_gateway.http_server import HEAD_SECONDS, MOST_HEAD, MOST_HEADERS, MOST_URL

MOST_IN_SOCKETS = 16 * MIB  # what the kernel takes of a sender before the receiver has read it, generously


def test_what_never_ends_is_cut_off_while_it_arrives(server: Server) -> None:
    before = server.memory
    for name, pieces in endless(server).items():
        with connect(server) as connection:
            sent, _ = pour(connection, pieces, 100 * MIB)
        assert sent < MOST_IN_SOCKETS, name
        assert server.memory - before < 32 * MIB, name
    assert httpx.get(f"http://127.0.0.1:{server.port}{server.quick}").is_success


def test_who_asks_for_too_much_is_told_so(intake_server: Server) -> None:
    def told(request: bytes) -> bytes:
        with connect(intake_server) as connection:
            connection.sendall(request)
            return answer(connection)[:12]

    quick = intake_server.quick.encode()
    assert told(b"GET %b?%b HTTP/1.1\r\nHost: x\r\n\r\n" % (quick, b"x" * 900_000))[9:] in (b"414", b"")
    assert told(b"GET %b?%b HTTP/1.1\r\nHost: x\r\n\r\n" % (quick, b"x" * MOST_URL))[9:] == b"414"
    lines = b"X: 1\r\n" * (MOST_HEADERS + 1)
    assert told(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (quick, lines))[9:] == b"431"
    large = b"GET %b HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n"
    assert told(large % (quick, b"x" * MOST_HEAD))[9:] == b"431"
    assert told(large % (quick, b"x" * (MOST_HEAD - 1_000)))[9:] == b"200"


def test_what_a_proxy_calls_its_client_is_not_kept_whole(make_gateway: Callable[..., Gateway]) -> None:
    """Whoever comes is remembered by name for a while, and a proxy may pass on whatever it was told."""
    gateway = make_gateway(FORWARDED_ALLOW_IPS="*")
    assert gateway.process is not None
    server = Server(gateway.port, "/webhooks/stripe/acme", "/webhooks/health", psutil.Process(gateway.process.pid))
    before = server.memory
    with connect(server) as connection:
        for number in range(2_000):
            name = b"%d" % number + b"x" * (MOST_HEAD - 1_000)
            connection.sendall(
                head(server, b"Content-Type: application/json", b"Content-Length: 2", b"X-Forwarded-For: " + name)
                + b"{}"
            )
            seen = b""
            while not seen.endswith(b'"status":401}'):
                piece = answer(connection)
                assert piece, seen
                seen += piece
    assert server.memory - before < 32 * MIB


def test_a_head_that_drips_is_cut_off(server: Server) -> None:
    with connect(server) as connection:
        connection.settimeout(0.5)
        started = time.monotonic()
        connection.sendall(head(server)[:-2])
        while time.monotonic() - started < 3 * HEAD_SECONDS:
            try:
                connection.sendall(b"X: 1\r\n")
                if not connection.recv(100):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert time.monotonic() - started < 2 * HEAD_SECONDS


def test_a_pair_of_requests_in_one_piece_is_answered_twice(intake_server: Server) -> None:
    quick = f"GET {intake_server.quick} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with connect(intake_server) as connection:
        connection.sendall(quick * 2)
        seen = b""
        while seen.count(b"HTTP/1.1 200") < 2:
            piece = answer(connection)
            assert piece, seen
            seen += piece


def test_sockets_that_say_nothing_keep_nobody_out(intake_server: Server) -> None:
    """The 503 at once, or a close, goes to the one that has most of them."""
    before = intake_server.memory
    silent = []
    try:
        for _ in range(3_000):
            silent.append(connect(intake_server))
            silent[-1].sendall(b"POST /webhooks/stripe/acme HTTP/1.1\r\nHost: x\r\n")
        quick = httpx.get(f"http://127.0.0.1:{intake_server.port}{intake_server.quick}", timeout=10)
        assert quick.is_success
        assert intake_server.memory - before < 64 * MIB
        assert answer(silent[0]).startswith((b"HTTP/1.1 503", b""))
    finally:
        for connection in silent:
            connection.close()
