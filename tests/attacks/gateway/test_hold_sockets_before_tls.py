"""The dashboard speaks TLS itself; an attacker opens sockets on it and says nothing, or something else."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from churnguard_pipelines.ports import free_port
from tests.waiting import wait_for
from webhook_gateway import http_server

MOST = 20
BODY = b"x" * 300_000


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 30.0)
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    pem = tmp_path / "both.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(private + builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    chosen = free_port()
    server = http_server.server(
        echo, most_connections=MOST, host="127.0.0.1", port=chosen, lifespan="off", ssl_certfile=pem, ssl_keyfile=pem
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield chosen
    finally:
        server.should_exit = True
        thread.join(20)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert scope["scheme"] == "https"
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message.get("body", b"")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def connect(port: int, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))


def asked(port: int) -> bytes:
    """What is answered to somebody who sends a body along with the end of the handshake, twice on one connection."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    got = b""
    with context.wrap_socket(connect(port, "127.0.0.1")) as spoken:
        for _ in range(2):
            spoken.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
            answer = b""
            while not answer.endswith(BODY):
                piece = spoken.recv(65_536)
                assert piece, answer[:200]
                answer += piece
            got += answer[:15]
    return got


def test_sockets_that_never_begin_keep_nobody_out(port: int) -> None:
    """They were not counted: eight hundred of one address took all files that the process may open, for a minute."""
    process = psutil.Process()
    before = process.num_fds()
    with ExitStack() as sockets:
        silent = [sockets.enter_context(connect(port, "127.0.0.66")) for _ in range(10 * MOST)]
        wait_for(lambda: process.num_fds() - len(silent) - before <= MOST)
        assert asked(port) == b"HTTP/1.1 200 OK" * 2
        assert silent[0].recv(1) == b""  # the oldest of whoever has most
    wait_for(lambda: process.num_fds() <= before)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" + b"\xff" * 1000, b""])
def test_what_is_no_tls_ends_at_once(port: int, said: bytes) -> None:
    with connect(port, "127.0.0.66") as stranger:
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(4096):
            pass
    assert asked(port) == b"HTTP/1.1 200 OK" * 2
