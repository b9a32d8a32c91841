"""An organization has us ask a server and reads the server's answer out of our errors, reports and statuses.

The operator has permitted the address here, so that there is an answer at all; nothing of it may come back.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from threading import Event

import pytest

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import OAuth2Refresh
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.errors import AuthenticationFailed, ProviderError
from churnguard_pipelines.settings import AllowedAddress
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.engine.hostile import hostile, request_of
from tests.engine.loopback import Answer, Api, as_json, serve
from tests.engine.test_auth import MemoryKeeper
from tests.webhook_gateway.api import conftest as api
from tests.webhook_gateway.api.conftest import Call, integration, key_of, nowhere_in_the_database

call, settings = api.call, api.settings

CANARY = "canary-0123456789"
HTML = {"Content-Type": f"text/html; {CANARY}"}
ANSWERS = {
    **{f"error {status}": as_json({"error": {"message": f"AKIA {CANARY}"}}, status)
       for status in (400, 401, 402, 403, 404, 409, 418, 429, 500, 503)},
    "a bare text": Answer(200, f"AKIA {CANARY}".encode(), {"Content-Type": f"text/{CANARY}"}),
    "a page": Answer(200, f"<title>{CANARY}</title>".encode(), HTML),
    "a page of an error": Answer(500, f"<title>{CANARY}</title>".encode(), HTML),
    "cut JSON": Answer(200, f'{{"a": "{CANARY}"'.encode()),
    "a list": as_json([{"message": CANARY}], 400),
    "a redirect": Answer(302, headers={"Location": f"http://{CANARY}.example.com/{CANARY}"}),
    "a redirect that is no address": Answer(302, headers={"Location": f"http://[{CANARY}/"}),
    "a pause": as_json({"message": CANARY}, 429, Retry_After=f"{CANARY}"),
    "a bad encoding": Answer(200, CANARY.encode(), {"Content-Encoding": "gzip"}),
}  # fmt: skip
RAW = {
    "a status line": f"{CANARY}\r\n\r\n",
    "a header": f"HTTP/1.1 200 OK\r\n{CANARY} {CANARY}\r\n\r\n",
    "a length": f"HTTP/1.1 200 OK\r\nContent-Length: {CANARY}\r\n\r\n",
    "a chunk": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{CANARY}\r\n\r\n",
    "a reason": f"HTTP/1.1 500 {CANARY}\r\nContent-Length: 0\r\n\r\n",
    "another protocol": f"220 {CANARY} ESMTP\r\n",
}


@pytest.fixture
def server() -> Iterator[Api]:
    with serve() as served:
        yield served


def nothing_is_repeated(call: Call, store: Store, key: str, name: str, syncs: int = 1) -> None:
    """Neither in what is asked directly, nor in what a sync leaves behind."""
    tested = call("POST", "/system/test-connections", key)
    assert tested.status_code == 200
    assert CANARY not in tested.text
    for number in range(syncs):
        said = ""
        try:
            sync_integration(store, name, sync_id=f"sync-{number}", objects=["customers"])
        except ProviderError as error:
            said = str(error)
        assert CANARY not in said
    for path in (f"/integrations/{name}/sync/status", f"/dashboard/integration/{name}", "/dashboard/alerts"):
        shown = call("GET", path, key)
        assert shown.status_code == 200, shown.text
        assert CANARY not in shown.text
    nowhere_in_the_database(store, CANARY)


def register(call: Call, store: Store, address: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setenv("CHURNGUARD_TENANT_ADDRESSES", address.removeprefix("http://"))
    fast = {"retry_attempts": 0, "requests_per_minute": 100_000}
    key = key_of(store, "acme")
    made = call("POST", "/integrations", key, json=integration("acme", base_url=address, sync_config=fast))
    assert made.status_code == 201, made.text
    return key, made.json()["integration_id"]


@pytest.mark.parametrize("kind", ANSWERS)
def test_by_an_answer(
    call: Call, store: Store, server: Api, monkeypatch: pytest.MonkeyPatch, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [ANSWERS[kind]]
    key, name = register(call, store, server.url, monkeypatch)
    nothing_is_repeated(call, store, key, name, syncs=6 if kind == "error 500" else 1)  # then the circuit is open
    if kind.startswith("error "):
        assert CANARY in caplog.text, "the operator sees it in the log"


@pytest.mark.parametrize("kind", RAW)
def test_by_what_is_no_answer(call: Call, store: Store, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def behave(connection: socket.socket, over: Event) -> None:
        request_of(connection)
        connection.sendall(RAW[kind].encode())

    with hostile(behave) as port:
        key, name = register(call, store, f"http://127.0.0.1:{port}", monkeypatch)
        nothing_is_repeated(call, store, key, name)


def test_by_a_token_endpoint(server: Api, caplog: pytest.LogCaptureFixture) -> None:
    server.answers = [as_json({"error": "invalid_grant", "error_description": CANARY}, 400)]

    def message(guard: AddressGuard) -> str:
        auth = OAuth2Refresh(MemoryKeeper(Token("", "refresh")), f"{server.url}/token", client_id="app")
        with (
            HttpClient(guard, auth=auth, retry=RetryPolicy(attempts=0)) as http,
            pytest.raises(AuthenticationFailed) as raised,
        ):
            http.request("GET", f"{server.url}/v1")
        return str(raised.value)

    listed = AllowedAddress.parse(server.url.removeprefix("http://"))
    assert CANARY not in message(AddressGuard("acme", True, (listed,)))
    assert CANARY in caplog.text
    assert f"gave no token (400): invalid_grant: {CANARY}." in message(AddressGuard("acme", restricted=False))


class TestWhatMayBeSaidAloud:
    """An organization needs to hear what the provider itself says about its account."""

    def ask(self, server: Api, own_hosts: set[str], answer: Answer, guard: AddressGuard | None = None) -> str:
        server.answers = [answer]
        listed = AllowedAddress.parse(server.url.removeprefix("http://"))
        guard = guard or AddressGuard("acme", True, (listed,))
        with (
            HttpClient(guard, own_hosts=own_hosts, retry=RetryPolicy(attempts=0)) as http,
            pytest.raises(ProviderError) as raised,
        ):
            http.request("GET", f"{server.url}/v1")
        return str(raised.value)

    def test_the_words_of_the_provider_s_own_host_by_an_encrypted_connection(self, server: Api) -> None:
        with HttpClient(AddressGuard("acme", True), own_hosts={"api.stripe.com"}) as http:
            shown: Callable[[str], bool] = http._may_be_shown
            assert shown("https://api.stripe.com/v1/account")
            for other in ("http://api.stripe.com/", "https://api.stripe.com.evil.example/", "https://x@evil.example/"):
                assert not shown(other)
        assert CANARY not in self.ask(server, {"127.0.0.1"}, ANSWERS["error 403"]), "not encrypted"

    def test_they_are_one_short_printable_line(self, server: Api, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        wild = as_json({"message": "a\x1b[2Jb\r\n\x00\u202e" + "c" * 100_000}, 403)
        said = self.ask(server, set(), wild, AddressGuard("acme", restricted=False))
        assert r"a\x1b[2Jb \x00\u202eccc" in said
        assert said.isprintable()
        assert len(said) < 1000
        self.ask(server, set(), wild)
        assert all(len(line) < 1000 and "\x1b" not in line for line in caplog.text.splitlines())
