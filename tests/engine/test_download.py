"""Files of which an answer tells the address: fetched without our credentials, byte by byte, from nowhere inside."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator

import pytest

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import Bearer
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.errors import (
    InvalidConfiguration,
    PermissionMissing,
    ProviderError,
    ProviderMisbehaved,
    ProviderUnavailable,
)
from tests.engine.conftest import FakeClock
from tests.engine.loopback import Answer, Api, serve

KEY = "sk_canary_0123456789"


@pytest.fixture
def client(clock: FakeClock) -> Iterator[HttpClient]:
    retry = RetryPolicy(attempts=2, uniform=lambda _low, high: high)
    with HttpClient(AddressGuard("acme", restricted=False), auth=Bearer(KEY), retry=retry, clock=clock) as made:
        yield made


def test_a_file_comes_as_it_is_stored_and_our_key_stays_here(api: Api, client: HttpClient) -> None:
    packed = gzip.compress(b"a,b\n" * 1000)
    api.answers = [Answer(200, packed, {"Content-Encoding": "gzip"})]
    file = io.BytesIO()
    client.download(f"{api.url}/file?signature=s3cr3t", file, own=api.url)
    assert file.getvalue() == packed
    (asked,) = api.asked
    assert "authorization" not in asked.headers
    assert (asked.query, asked.headers["accept-encoding"]) == ({"signature": ["s3cr3t"]}, "identity")
    assert (client.metrics.calls, client.metrics.bytes_received) == (1, len(packed))


def test_an_attempt_that_breaks_off_leaves_nothing_behind(api: Api, client: HttpClient) -> None:
    api.answers = [Answer(200, b"first half", length=20), Answer(503), Answer(200, b"whole")]
    file = io.BytesIO()
    client.download(f"{api.url}/file", file, own=api.url)
    assert file.getvalue() == b"whole"


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, PermissionMissing), (404, ProviderError), (500, ProviderUnavailable), (204, ProviderUnavailable)],
    ids=str,
)
def test_what_is_no_file_is_an_error_without_the_signature(
    api: Api, client: HttpClient, status: int, error: type[Exception]
) -> None:
    api.answers = [Answer(status, b"")]
    with pytest.raises(error) as raised:
        client.download(f"{api.url}/file?signature=s3cr3t", io.BytesIO(), own=api.url)
    assert "s3cr3t" not in str(raised.value)


def test_it_is_not_followed_to_another_host(api: Api, client: HttpClient) -> None:
    api.answers = [Answer(302, b"", {"Location": "http://127.0.0.2/file"})]
    with pytest.raises(ProviderMisbehaved, match="not followed"):
        client.download(f"{api.url}/file", io.BytesIO(), own=api.url)


@pytest.mark.parametrize(
    "elsewhere",
    [
        "http://169.254.169.254/latest", "https://169.254.169.254/latest", "https://localhost/file",
        "file:///etc/passwd", "http://[", "//[", "https://h:99999/", "https://h/\r\nX: 1", f"https://h/{'x' * 70_000}",
    ],
    ids=lambda elsewhere: repr(elsewhere[:30]),
)  # fmt: skip
def test_an_answer_leads_nowhere_inside(api: Api, client: HttpClient, elsewhere: str) -> None:
    """Whoever configured the integration: the provider did not."""
    with pytest.raises(InvalidConfiguration):
        client.download(elsewhere, io.BytesIO(), own=api.url)


def test_another_server_of_this_machine_is_inside_as_well(api: Api, client: HttpClient) -> None:
    with serve() as other, pytest.raises(InvalidConfiguration):
        client.download(f"{other.url}/file", io.BytesIO(), own=api.url)
    assert other.asked == []


def test_a_file_has_a_limit_of_its_own(api: Api, client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("churnguard_pipelines.engine.http.FILE_BYTES", 3 << 20)
    api.answers = [Answer(200, b"x" * (5 << 20))]
    with pytest.raises(ProviderMisbehaved, match="more than 3 MiB"):
        client.download(f"{api.url}/file", io.BytesIO(), own=api.url)
