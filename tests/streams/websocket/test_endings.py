"""Close codes and refusals are told apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
)
from churnguard_pipelines.streams.websocket import client
from churnguard_pipelines.streams.websocket.ending import closed
from tests.engine.loopback import Answer, Api, Asked, as_json, serve
from tests.sources.websocket_server import Talk, WebSocketServer, closes, says, serve_websocket
from tests.streams.websocket.conftest import reading, stream_of


@pytest.mark.parametrize(
    ("code", "kind", "connections"),
    [
        (1000, ProviderUnavailable, 4),
        (1006, ProviderUnavailable, 4),
        (1008, AuthenticationFailed, 1),
        (1009, InvalidConfiguration, 1),
        (1011, ProviderUnavailable, 4),
        (3000, AuthenticationFailed, 1),
        (4401, AuthenticationFailed, 1),
        (4403, PermissionMissing, 1),
        (4999, ProviderUnavailable, 4),
    ],
)
def test_a_close_code_says_whether_to_try_again(
    server: WebSocketServer, code: int, kind: type[ChurnGuardError], connections: int
) -> None:
    server.scripts = [Talk.reset if code == 1006 else closes(code, "no secrets")]
    with reading(stream_of(server.url)) as reader, pytest.raises(kind) as raised:
        reader.read(lambda it: False)
    assert server.connections == connections
    assert str(raised.value).startswith("ticks: the WebSocket's server")


@pytest.mark.parametrize("code", [1012, 1013])
def test_a_server_that_is_busy_is_left_alone_for_a_while(server: WebSocketServer, code: int) -> None:
    assert (closed(code, "").wait or 0) >= 5
    server.scripts = [closes(code), says("again")]
    with reading(stream_of(server.url, data_format="text")) as reader:
        reader.read(lambda it: it.stored)  # its retry policy caps the wait at 0.05 s
    assert reader.values == [b"again"]


@pytest.mark.parametrize(
    ("status", "headers", "kind", "words"),
    [
        (401, {}, AuthenticationFailed, "refused the credentials"),
        (403, {}, PermissionMissing, "refused the credentials"),
        (302, {"Location": "ws://127.0.0.1:1/"}, InvalidConfiguration, "redirects to another address"),
        (500, {}, ProviderUnavailable, "status 500"),
        (429, {"Retry-After": "1"}, ProviderUnavailable, "status 429"),
    ],
)
def test_a_refused_handshake_is_told_as_what_it_is(
    server: WebSocketServer, status: int, headers: dict[str, str], kind: type[ChurnGuardError], words: str
) -> None:
    server.refusals = [(status, headers)]
    with reading(stream_of(server.url)) as reader, pytest.raises(kind, match=words):
        reader.read(lambda it: False)
    with reading(stream_of(server.url)) as reader, pytest.raises(kind, match=words):
        reader.source.check()


def test_a_server_of_another_subprotocol_is_refused(server: WebSocketServer) -> None:
    with (
        reading(stream_of(server.url, subprotocol="v9.ticks")) as reader,
        pytest.raises(InvalidConfiguration, match=r"subprotocol v9\.ticks"),
    ):
        reader.source.check()
    with (
        serve_websocket(subprotocols=["v9.ticks"]) as other,
        reading(stream_of(other.url, subprotocol="v9.ticks")) as reader,
    ):
        reader.source.check()


class Tokens:
    """Sells tokens that hold for some seconds; the feed takes the latest only."""

    def __init__(self, lifetime: float = 3600) -> None:
        self.sold = 0
        self.lifetime = lifetime

    def sell(self, asked: Asked) -> Answer:
        assert asked.form["client_secret"] == "s3cret-of-acme"
        self.sold += 1
        return as_json({"access_token": f"t{self.sold}", "expires_in": self.lifetime})


@pytest.fixture
def endpoint() -> Iterator[Api]:
    with serve() as api:
        yield api


def with_tokens(server: WebSocketServer, endpoint: Api, **options: Any) -> Any:
    auth = {"token_url": f"{endpoint.url}/token", "client_id": "acme", "client_secret": "s3cret-of-acme"}
    return stream_of(server.url, data_format="text", auth=auth, **options)


def test_a_refused_token_is_bought_again_once(server: WebSocketServer, endpoint: Api) -> None:
    tokens = Tokens()
    endpoint.answers = [tokens.sell]

    def script(talk: Talk) -> None:
        if talk.request.headers["Authorization"] != "Bearer t2":
            talk.close(4401)
        talk.say("welcome")
        talk.stay()

    server.scripts = [script]
    stream = with_tokens(server, endpoint, headers={"Authorization": "Bearer {token}"})
    with reading(stream) as reader:
        reader.read(lambda it: it.stored)
    assert tokens.sold == 2

    server.scripts = [closes(4401)]
    with reading(stream) as reader, pytest.raises(AuthenticationFailed, match="4401") as raised:
        reader.read(lambda it: False)
    assert tokens.sold == 4
    assert "s3cret" not in str(raised.value)


def tokens_heard(server: WebSocketServer, endpoint: Api, count: int) -> list[str]:
    """The first ones that the server is told by messages."""
    heard: list[str] = []

    def script(talk: Talk) -> None:
        while len(heard) < count:
            heard.append(json.loads(talk.hear())["token"])
        talk.say("enough")
        talk.stay()

    server.scripts = [script]
    with reading(with_tokens(server, endpoint, subscribe=[{"op": "auth", "token": "{token}"}])) as reader:
        reader.read(lambda it: it.stored)
    return heard


def test_a_token_is_told_anew_before_it_ends(server: WebSocketServer, endpoint: Api) -> None:
    tokens = Tokens(lifetime=2)
    endpoint.answers = [tokens.sell]
    assert tokens_heard(server, endpoint, 3) == ["t1", "t2", "t3"]
    assert server.connections == 1


def test_a_connection_outlives_an_endpoint_of_tokens_that_is_away(
    server: WebSocketServer, endpoint: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token that was said last still holds; it is bought again when that can be."""
    monkeypatch.setattr(client, "ASK_AGAIN_SECONDS", 0.1)
    tokens = Tokens(lifetime=2)
    endpoint.answers = [tokens.sell, Answer(503), Answer(503), tokens.sell]
    assert tokens_heard(server, endpoint, 2) == ["t1", "t2"]
    assert server.connections == 1


def test_refused_client_credentials_are_told_as_that(server: WebSocketServer, endpoint: Api) -> None:
    endpoint.answers = [as_json({"error": "invalid_client", "error_description": "s3cret-of-acme is wrong"}, 401)]
    stream = with_tokens(server, endpoint, headers={"Authorization": "Bearer {token}"})
    for act in ("check", "read"):
        with reading(stream) as reader, pytest.raises(AuthenticationFailed, match="invalid_client") as raised:
            reader.source.check() if act == "check" else reader.read(lambda it: False)
        assert "s3cret" not in str(raised.value)
        assert "client_secret" in str(raised.value)
    assert server.connections == 0
