"""Bodies without end to the port of people: cut off at their limit, before anybody's role is known, and in time."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from churnguard_pipelines.store.control.api_keys import Role
from tests.webhook_gateway.dashboard.conftest import MakeKey, bearer
from webhook_gateway.dashboard import bodies
from webhook_gateway.dashboard.bodies import MIB

HUGE = 300 * MIB
API, DAGSTER, LOGIN = "/api/integrations", "/dashboard/graphql", "/login"


@pytest.mark.parametrize("path", [API, DAGSTER, LOGIN, "/oidc/callback", "/healthz", "/logout", "/nowhere"])
def test_what_is_announced_as_too_large_is_refused_unread(url: str, make_key: MakeKey, path: str) -> None:
    head = {"Content-Length": str(HUGE)} | bearer(make_key(Role.VIEWER))
    status, answer = exchange(url, path, head, [])
    assert (status, answer["status"]) == (413, 413)
    assert "at most" in str(answer["title"])


@pytest.mark.parametrize("path", [API, DAGSTER, LOGIN])
def test_what_does_not_say_its_size_is_counted_as_it_arrives(url: str, make_key: MakeKey, path: str) -> None:
    before = psutil.Process().memory_info().rss
    piece = b"x" * MIB
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
    head = {"Transfer-Encoding": "chunked"} | bearer(make_key(Role.VIEWER))
    status, answer = exchange(url, path, head, (chunk for _ in range(HUGE // MIB)))
    assert (status, answer["status"]) == (413, 413)
    assert psutil.Process().memory_info().rss - before < 64 * MIB


def test_of_a_stranger_nothing_is_read(url: str) -> None:
    """The door answers before the body has come, and closes the connection behind itself."""
    for path in (API, DAGSTER):
        assert exchange(url, path, {"Content-Length": str(HUGE)}, [])[0] == 401


def test_who_drips_is_not_waited_for(url: str, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SECONDS", 0.3)
    for path in (API, DAGSTER, LOGIN):
        status, answer = exchange(url, path, {"Content-Length": "1000"} | bearer(make_key()), [b'{"a":'])
        assert (status, answer["title"]) == (408, "The body was not complete after 0 seconds.")


def test_many_unfinished_bodies_of_one_organization_take_nothing_from_others(
    url: str, make_key: MakeKey, organization: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "SHARE", 1000)
    greedy = bearer(make_key(organization_id="acme"))
    body = b'{"a": "' + b"x" * 500
    with (
        opened(url, API, greedy | {"Content-Length": "900"}, body) as first,
        opened(url, API, bearer(make_key(organization_id="acme")) | {"Content-Length": "900"}, body) as second,
    ):
        refused, _, _ = select.select([first, second], [], [], 20)
        assert [answer_of(each)[0] for each in refused] == [503], "whichever came later"
        assert httpx.post(url + API, content=body, headers=bearer(make_key())).status_code in (400, 422)
    assert httpx.post(url + API, content=body, headers=greedy).status_code in (400, 422), "it is free again"


def test_nobody_is_kept_from_signing_in_by_half_forms(
    url: str, browser: httpx.Client, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "STRANGERS_SHARE", 4096)
    head = {"Content-Length": "4000", "Origin": url}
    half = b"key=" + b"x" * 3900
    with opened(url, LOGIN, head, half) as first, opened(url, LOGIN, head, half) as second:
        refused, _, _ = select.select([first, second], [], [], 20)
        assert [answer_of(each)[0] for each in refused] == [503]
        assert httpx.get(url + API, headers=bearer(make_key())).status_code == 200


@pytest.mark.parametrize("size", [MIB - 100, MIB + 100])
def test_the_limit_is_where_it_is_said_to_be(url: str, make_key: MakeKey, size: int) -> None:
    answer = httpx.post(url + API, content=json.dumps({"x": "y" * size}), headers=bearer(make_key()))
    assert answer.status_code == (413 if size > MIB else 422)


def test_a_hundred_thousand_mistakes_are_not_a_hundred_thousand_answers(url: str, make_key: MakeKey) -> None:
    """Each unknown field is one, and its name comes back."""
    body = json.dumps({f"{number:x}": 1 for number in range(60_000)} | {"x" * 100_000: 1})
    answer = httpx.post(url + API, content=body, headers=bearer(make_key()))
    assert answer.status_code == 422
    assert len(answer.content) < 100_000


def opened(url: str, path: str, headers: dict[str, str], body: bytes) -> closing[socket.socket]:
    """A connection on which a request has begun."""
    where = urlsplit(url)
    connection = socket.create_connection((where.hostname, where.port), timeout=20)
    lines = [f"POST {path} HTTP/1.1", f"Host: {where.netloc}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return closing(connection)


def exchange(
    url: str, path: str, headers: dict[str, str], pieces: Iterator[bytes] | list[bytes]
) -> tuple[int, dict[str, object]]:
    """Status and body of what comes back, however little of the request has been taken."""
    with opened(url, path, headers, b"") as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer_of(connection)


def answer_of(connection: socket.socket) -> tuple[int, dict[str, object]]:
    received = b""
    while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < _length(received):
        piece = connection.recv(65536)
        assert piece, received
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), json.loads(body)


def _length(received: bytes) -> int:
    head = received.partition(b"\r\n\r\n")[0].lower()
    return int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
