"""The HTTP client against servers that mean harm, and against its own surroundings."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import OAuth2Refresh
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    InvalidConfiguration,
    ProviderError,
    ProviderMisbehaved,
    ProviderUnavailable,
)
from churnguard_pipelines.settings import AllowedAddress
from tests.engine.hostile import hostile, nobody_comes, request_of
from tests.engine.loopback import Answer, Api, as_json, serve
from tests.engine.test_auth import MemoryKeeper

TIMEOUT = 0.5
LONGEST = 5.0
"""Seconds: generous, and far below what the server would take."""


def theirs(*allowed: str) -> AddressGuard:
    return AddressGuard("acme-stripe", True, tuple(map(AllowedAddress.parse, allowed)))


def ask(port: int, *, scheme: str = "http", timeout: float = TIMEOUT, max_body: int = 1 << 16) -> None:
    guard = AddressGuard("acme-stripe", restricted=False)
    with HttpClient(guard, timeout=timeout, max_body=max_body, retry=RetryPolicy(attempts=0)) as http:
        http.request("GET", f"{scheme}://127.0.0.1:{port}/")


def dripping(opening: bytes, drop: bytes, pause: float) -> Callable[[socket.socket, Event], None]:
    def behave(connection: socket.socket, over: Event) -> None:
        request_of(connection)
        connection.sendall(opening)
        while not over.wait(pause):
            connection.sendall(drop)

    return behave


@pytest.mark.parametrize(
    ("opening", "drop"),
    [
        (b"", b""),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    ],
    ids=["silence", "status line", "header value", "headers", "hints", "body", "chunks", "extension", "trailers"],
)
def test_what_drips_is_given_up_at_the_deadline_whatever_it_is(opening: bytes, drop: bytes) -> None:
    with hostile(dripping(opening, drop, pause=0.05)) as port:
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable, match=r"did not answer within 0\.5 s"):
            ask(port)
        assert time.monotonic() - began < LONGEST


@pytest.mark.parametrize(
    ("opening", "flood"),
    [
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"e" * 4000 + b"\r\nx\r\n"),
    ],
    ids=["hints", "header", "extensions"],
)
def test_bytes_count_whatever_they_are(opening: bytes, flood: bytes) -> None:
    """Without end, as fast as the network goes."""
    sent = 0

    def behave(connection: socket.socket, over: Event) -> None:
        nonlocal sent
        request_of(connection)
        connection.sendall(opening)
        while not over.is_set():
            connection.sendall(flood)
            sent += len(flood)

    with hostile(behave) as port, pytest.raises(ProviderError):
        ask(port, timeout=30)
    assert sent < 32 << 20, "what the sockets hold, and no more"


def test_a_handshake_that_drips_is_given_up_at_the_deadline() -> None:
    def behave(connection: socket.socket, over: Event) -> None:
        connection.recv(65536)
        connection.sendall(b"\x16\x03\x03\x40\x00")
        while not over.wait(0.05):
            connection.sendall(b"\x00")

    with hostile(behave) as port:
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            ask(port, scheme="https")
        assert time.monotonic() - began < LONGEST


def test_redirects_of_one_attempt_share_its_time() -> None:
    def behave(connection: socket.socket, over: Event) -> None:
        while not over.wait(0.2) and request_of(connection):
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")

    with hostile(behave) as port:
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable, match="did not answer within"):
            ask(port)
        assert time.monotonic() - began < LONGEST


def test_the_address_that_was_judged_is_the_one_connected_to_and_a_second_answer_gains_nothing() -> None:
    """The name server of ``rebind.test`` says a permitted address first and one inside afterwards."""
    hellos: list[bytes] = []
    asked: list[str] = []

    def behave(connection: socket.socket, over: Event) -> None:
        if hello := connection.recv(65536):
            hellos.append(hello)

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    with hostile(behave) as port, nobody_comes("127.0.0.2", port):
        guard = AddressGuard("acme", True, (AllowedAddress.parse("127.0.0.1"),), rebinding)
        with HttpClient(guard, timeout=5, retry=RetryPolicy(attempts=0)) as http:
            with pytest.raises(ProviderUnavailable):  # the server only listened
                http.request("GET", f"https://rebind.test:{port}/")
            with pytest.raises(InvalidConfiguration, match="no host with a public address"):
                http.request("GET", f"https://rebind.test:{port}/")
    assert asked == ["rebind.test", "rebind.test"], "once per connection"
    assert len(hellos) == 1
    assert b"rebind.test" in hellos[0], "the certificate is still checked for the name"


def test_an_organization_s_requests_go_nowhere_inside(api: Api) -> None:
    with HttpClient(theirs(), retry=RetryPolicy(attempts=0)) as http, nobody_comes() as port:
        for url in (f"https://127.0.0.1:{port}/", f"https://localhost:{port}/", f"http://[::ffff:127.0.0.1]:{port}/"):
            with pytest.raises(InvalidConfiguration, match="no host with a public address"):
                http.request("GET", url)


def test_keys_are_not_sent_in_clear_over_the_internet() -> None:
    with HttpClient(theirs()) as http, pytest.raises(InvalidConfiguration, match="without encryption"):
        http.request("GET", "http://api.example.com/")


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:{}/", "http://localhost:{}/", "//0.0.0.0:{}/", "http://[::1]:{}"]
)
def test_a_permitted_server_redirects_nobody_inside(api: Api, location: str) -> None:
    with nobody_comes() as port, HttpClient(theirs(api.url.removeprefix("http://"))) as http:
        api.answers = [Answer(302, headers={"Location": location.format(port)})]
        with pytest.raises(
            ProviderMisbehaved, match="redirects GET / to another host, which was not followed"
        ) as raised:
            http.request("GET", f"{api.url}/")
        assert str(port) not in str(raised.value)


def test_a_token_endpoint_is_guarded_and_redirects_nobody_inside(api: Api) -> None:
    def client(token_url: str) -> HttpClient:
        auth = OAuth2Refresh(MemoryKeeper(Token("", "refresh")), token_url, client_id="app")
        return HttpClient(theirs(api.url.removeprefix("http://")), auth=auth, retry=RetryPolicy(attempts=0))

    with nobody_comes() as port:
        with client(f"https://127.0.0.1:{port}/token") as http, pytest.raises(InvalidConfiguration):
            http.request("GET", f"{api.url}/")
        api.answers = [Answer(307, headers={"Location": f"http://127.0.0.1:{port}/token"})]
        with client(f"{api.url}/token") as http, pytest.raises(AuthenticationFailed):
            http.request("GET", f"{api.url}/")


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    """A proxy of the operator's, and passwords in a ``.netrc``."""
    with serve() as proxy:
        (tmp_path / ".netrc").write_text("default login operator password canary\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        yield proxy


def test_an_organization_s_requests_take_nothing_of_the_operator_s_surroundings(api: Api, surroundings: Api) -> None:
    with HttpClient(theirs(api.url.removeprefix("http://"))) as http:
        http.request("GET", f"{api.url}/v1")
    assert surroundings.asked == []
    (asked,) = api.asked
    assert "authorization" not in asked.headers


def test_an_operator_s_go_by_the_operator_s_proxy_and_without_passwords_of_others(surroundings: Api) -> None:
    surroundings.answers = [as_json({})]
    with HttpClient(AddressGuard("acme", restricted=False)) as http:
        http.request("GET", "http://provider.example/v1")
    (asked,) = surroundings.asked
    assert "authorization" not in asked.headers
