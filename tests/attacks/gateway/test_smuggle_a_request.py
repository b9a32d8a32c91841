"""The attacker hides one request in another, so that what stands in front of us and we read different ones."""

from __future__ import annotations

from contextlib import suppress

from tests.attacks.gateway.strangers import Server, answer, connect

POST = b"POST /webhooks/stripe/acme HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HIDDEN = b"GET /webhooks/health HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(HIDDEN)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HEADS = {
    "a length and chunks": POST + LENGTH + CHUNKED,
    "chunks and a length": POST + CHUNKED + LENGTH,
    "two lengths": POST + b"Content-Length: 0\r\n" + LENGTH,
    "a list of lengths": POST + b"Content-Length: 0, %d\r\n" % len(HIDDEN),
    "a signed length": POST + b"Content-Length: +0\r\n",
    "a space before the colon": POST + b"Content-Length : 0\r\n",
    "chunks that are not last": POST + b"Transfer-Encoding: chunked, gzip\r\n",
    "a folded line": POST + b"Transfer-Encoding:\r\n chunked\r\n",
    "two hosts": POST + b"Host: y\r\n" + LENGTH,
    "an upgrade with a body": POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + LENGTH,
    "an upgrade with chunks": POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + CHUNKED,
    "a websocket with a body": POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + LENGTH,
}


def test_a_head_that_can_be_read_in_two_ways_is_refused(intake_server: Server) -> None:
    """Of an upgrade that we do not make, the body was read as the connection's next request."""
    for name, head in HEADS.items():
        with connect(intake_server) as attacker:
            attacker.sendall(head + b"\r\n")
            assert answer(attacker).startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")), name
            with suppress(OSError):
                attacker.sendall(HIDDEN)
            assert answer(attacker) == b"", name


def test_an_upgrade_without_a_body_is_a_request_like_any_other(intake_server: Server) -> None:
    with connect(intake_server) as client:
        client.sendall(
            HIDDEN[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"
        )
        assert answer(client).startswith(b"HTTP/1.1 200")
