"""Where alerts arrive: an SMTP server, and, behind a proxy, one that stands for every HTTPS host."""

from __future__ import annotations

import datetime as dt
import json
import socketserver
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.serving import HttpServer, QuietHandler, serving

HOSTS = ("hooks.slack.com", "events.pagerduty.com", "prod-1.westus.logic.azure.com")


@dataclass
class Mailbox:
    port: int
    received: list[EmailMessage] = field(default_factory=list)


@contextmanager
def mail_server() -> Iterator[Mailbox]:
    """Takes every message, by RFC 5321, without TLS."""

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 here")
            while line := self.rfile.readline():
                command = line.split(None, 1)[0].upper() if line.strip() else b""
                if command == b"DATA":
                    self._say("354 go on")
                    body = b""
                    while (part := self.rfile.readline()) not in (b".\r\n", b""):
                        body += part
                    box.received.append(message_from_bytes(body, policy=policy.default))
                if command == b"QUIT":
                    self._say("221 bye")
                    return
                self._say("250 fine")

        def _say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session)
    server.daemon_threads = True
    box = Mailbox(server.server_address[1])
    with serving(server):
        yield box


@contextmanager
def dripping_server() -> Iterator[str]:
    """Its address: it never comes to the end of an answer, and never leaves a client without a byte for long."""
    ended = Event()

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the client is gone
                self.request.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while not ended.wait(0.05):
                    self.request.sendall(b"x")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    with serving(server):
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            ended.set()


@dataclass
class Internet:
    """``received``: host, path and JSON of what was posted; ``answers``: the status of what follows."""

    received: list[tuple[str, str, Any]] = field(default_factory=list)
    answers: int = 200


@contextmanager
def internet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    """What this process asks of :data:`HOSTS` by HTTPS arrives here."""
    authority, chain = _certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    there = Internet()

    class Proxy(QuietHandler):
        def do_CONNECT(self) -> None:
            host = self.path.partition(":")[0]
            self.send_response(200)
            self.end_headers()
            with context.wrap_socket(self.connection, server_side=True) as encrypted, encrypted.makefile("rb") as read:
                path = read.readline().split()[1].decode()
                headers = {}
                while line := read.readline().strip():
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = read.read(int(headers["content-length"]))
                there.received.append((host, path, json.loads(body)))
                status = f"HTTP/1.1 {there.answers} said\r\n"
                encrypted.sendall(f"{status}Content-Length: 2\r\nConnection: close\r\n\r\nok".encode())
            self.close_connection = True

    server = HttpServer(Proxy)
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with serving(server):
        yield there


def _certificates(folder: Path) -> tuple[Path, Path]:
    """An authority's, and a server's for all hosts with its key."""
    now, key = dt.datetime.now(dt.UTC), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority, chain = folder / "authority.pem", folder / "chain.pem"
    certificate = made.public_bytes(serialization.Encoding.PEM)
    authority.write_bytes(certificate)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain.write_bytes(certificate + private)
    return authority, chain
