"""A tenant's feed is encrypted, its certificate is of its name, and its address the one that the guard has checked."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from churnguard_pipelines.engine.transport import trust
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.settings import AllowedAddress
from tests.sources.websocket_server import WebSocketServer, closes, says, serve_websocket
from tests.streams.websocket.conftest import reading, stream_of


@pytest.fixture
def encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebSocketServer]:
    """Its certificate is for feed.example, by an authority that we trust here."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("feed.example")]), critical=True)
        .sign(key, SHA256())
    )
    certificate, private = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    trust.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    with serve_websocket(ssl=context) as server:
        yield server
    trust.cache_clear()


def _port(server: WebSocketServer) -> int:
    return int(server.url.rsplit(":", 1)[1].split("/")[0])


def _leads(*answers: list[str]) -> Any:
    given = iter(answers)
    return lambda host, port: next(given)


def test_the_name_is_asked_for_at_every_connect_and_its_answer_connected_to(encrypted: WebSocketServer) -> None:
    """It first leads where it may, then inside."""
    encrypted.scripts = [says("x" * 100_000, then=closes(1001))]
    url = f"wss://feed.example:{_port(encrypted)}/feed"
    allowed = (AllowedAddress.parse(f"127.0.0.1:{_port(encrypted)}"),)
    with (
        reading(
            stream_of(url, data_format="text"),
            restricted=True,
            allowed=allowed,
            look_up=_leads(["127.0.0.1"], ["10.0.0.1"]),
        ) as reader,
        pytest.raises(InvalidConfiguration, match="no host with a public address"),
    ):
        reader.read(lambda it: False)
    assert reader.values == [b"x" * 100_000]
    assert encrypted.asked[0].headers["Host"] == f"feed.example:{_port(encrypted)}"


def test_a_certificate_of_another_name_is_refused(encrypted: WebSocketServer) -> None:
    url = f"wss://other.example:{_port(encrypted)}/feed"
    with (
        reading(stream_of(url), look_up=lambda host, port: ["127.0.0.1"]) as reader,
        pytest.raises(ProviderUnavailable, match="certificate that is not trusted"),
    ):
        reader.source.check()
    assert encrypted.connections == 0
