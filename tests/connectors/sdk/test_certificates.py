"""The authority's certificate comes as text; drivers that take nothing but a path are given a file of ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from churnguard_pipelines.connectors import connector
from churnguard_pipelines.connectors.sdk.database_credentials import certificate_file
from churnguard_pipelines.errors import InvalidConfiguration
from tests.attacks.workers.test_steal_our_credentials_by_a_driver import pointed_at


@pytest.fixture(scope="module")
def authority() -> str:
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ours")]),
    )
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("provider", ["postgresql", "mysql", "mongodb"])
def test_a_certificate_is_taken_and_a_path_is_not(provider: str, authority: str) -> None:
    kind = connector(provider)
    kind.check_fields(pointed_at(provider, 1, tls="verify-full", tls_ca=authority))
    for other in ("/etc/ssl/certs/ca-certificates.crt", "", authority[:100], "ü", authority * 2000):
        with pytest.raises(InvalidConfiguration, match="tls_ca is no certificate") as refused:
            kind.check_fields(pointed_at(provider, 1, tls="verify-full", tls_ca=other))
        assert "ca-certificates" not in str(refused.value)


def test_its_file_is_ours_alone_and_gone_at_the_end(authority: str) -> None:
    with certificate_file(authority) as path:
        assert Path(path).read_text() == authority
        assert Path(path).stat().st_mode & 0o777 == 0o600
    assert not Path(path).exists()
