"""Who gets in: by a key or by a cookie, over HTTP and over websockets; everybody else is told what to do."""

from __future__ import annotations

import json

import httpx
import pytest
import websockets
import websockets.sync.client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.api_keys import Role, revoke_key
from churnguard_pipelines.store.postgres.database import Store
from tests.webhook_gateway.dashboard.conftest import HTML, MakeKey, bearer, cookie, key_id
from webhook_gateway.dashboard import authentication

INFO = "/dashboard/server_info"


def test_health_needs_no_key(url: str) -> None:
    assert httpx.get(f"{url}/healthz").text == "ok"


@pytest.mark.parametrize(
    "path",
    [INFO, "/dashboard", "/dashboard/graphql", "/", "/api/docs", "/api/openapi.json", "/nowhere", "/login/", "/oidc",
     "/healthz/../dashboard/server_info", "//dashboard/server_info", "/dashboard/logs/a/b.out"],
)  # fmt: skip
def test_nothing_else_is_open(url: str, path: str) -> None:
    for headers in ({}, bearer("cg_00000000_wrong"), {"Authorization": "Bearer"}, {"Authorization": "Basic YTpi"}):
        answer = httpx.get(url + path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["status"] == 401


def test_a_browser_is_sent_to_the_login(url: str) -> None:
    answer = httpx.get(f"{url}/dashboard/runs?a=1&b=%2F", headers=HTML)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=/dashboard/runs%3Fa%3D1%26b%3D%252F"


def test_a_key_opens(url: str, make_key: MakeKey) -> None:
    key = make_key()
    assert "dagster_version" in httpx.get(url + INFO, headers=bearer(key)).json()
    assert httpx.get(url + INFO, headers={"Authorization": f"bearer  {key}"}).status_code == 200
    assert "<!doctype html>" in httpx.get(url, headers=bearer(key) | HTML, follow_redirects=True).text


def test_a_wrong_key_is_not_made_up_for_by_a_cookie(url: str, browser: httpx.Client, make_key: MakeKey) -> None:
    session = cookie(browser, make_key())
    assert httpx.get(url + INFO, headers=session | bearer("cg_00000000_wrong")).status_code == 401
    assert httpx.get(url + INFO, headers=bearer(session["Cookie"].partition("=")[2])).status_code == 401


def test_a_revoked_key_is_out_at_once(store: Store, url: str, make_key: MakeKey) -> None:
    key = make_key()
    assert httpx.get(url + INFO, headers=bearer(key)).status_code == 200
    revoke_key(store, key_id(key), actor="test")
    assert httpx.get(url + INFO, headers=bearer(key)).status_code == 401


@pytest.mark.parametrize(
    "said",
    [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
     {"Sec-Fetch-Site": "none"}],
)  # fmt: skip
def test_a_cookie_changes_nothing_from_elsewhere(
    url: str, browser: httpx.Client, make_key: MakeKey, said: dict[str, str]
) -> None:
    key = make_key()
    session = cookie(browser, key)
    body = {"query": "{ version }"}
    target = f"{url}/dashboard/graphql"
    refused = httpx.post(target, json=body, headers=session | said)
    assert (refused.status_code, refused.json()["title"]) == (403, "The request comes from another site.")
    assert httpx.post(target, json=body, headers=session | {"Origin": url}).status_code == 200
    same_site = {"Origin": url, "Sec-Fetch-Site": "same-site"}
    assert httpx.post(target, json=body, headers=session | same_site).status_code == 403
    assert httpx.post(target, json=body, headers=bearer(key) | said).status_code == 200


def test_a_key_of_an_organization_does_not_see_dagster(
    url: str, browser: httpx.Client, make_key: MakeKey, organization: Organization
) -> None:
    key = make_key(organization_id="acme")
    for path in ("/dashboard", INFO, "/dashboard/graphql"):
        refused = httpx.get(url + path, headers=bearer(key))
        assert refused.status_code == 403
        assert "Dagster shows every organization" in refused.json()["title"]
    page = httpx.get(f"{url}/dashboard", headers=cookie(browser, key) | HTML)
    assert (page.status_code, page.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert httpx.get(f"{url}/api/openapi.json", headers=bearer(key)).status_code == 200
    with pytest.raises(InvalidStatus), socket(url, bearer(key)):
        pass


def test_without_the_database_nobody_gets_in(
    url: str, browser: httpx.Client, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key()

    def broken(_: Store) -> None:
        raise DatabaseUnavailable("it is gone.")

    monkeypatch.setattr(Store, "operator", broken)
    assert httpx.get(url + INFO, headers=bearer(key)).status_code == 503
    assert browser.post("/login", data={"key": key}).status_code == 503


def test_every_answer_has_the_security_headers(url: str, make_key: MakeKey) -> None:
    for answer in (httpx.get(f"{url}/login"), httpx.get(url + INFO), httpx.get(url + INFO, headers=bearer(make_key()))):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "strict-transport-security" not in answer.headers


def test_the_log_has_no_queries(
    url: str, make_key: MakeKey, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key()
    with caplog.at_level("INFO", "webhook_gateway"):
        httpx.get(f"{url}{INFO}?secret=canary", headers=bearer(key))
        httpx.get(f"{url}/a%0Ab?secret=canary")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("webhook_gateway")]
    assert [line.rsplit(" ", 2)[0] for line in lines] == [f"{key_id(key)} GET {INFO} 200", "- GET /a%0Ab 401"]


def socket(url: str, headers: dict[str, str]) -> websockets.sync.client.ClientConnection:
    """Dagster's GraphQL."""
    address = url.replace("http://", "ws://") + "/dashboard/graphql"
    protocols = [websockets.Subprotocol("graphql-ws")]
    return websockets.sync.client.connect(address, additional_headers=headers, subprotocols=protocols)


def greet(opened: websockets.sync.client.ClientConnection) -> None:
    opened.send(json.dumps({"type": "connection_init"}))
    assert json.loads(opened.recv(timeout=20)) == {"type": "connection_ack"}


def test_websockets_have_the_same_door(url: str, browser: httpx.Client, make_key: MakeKey) -> None:
    key = make_key(Role.VIEWER)
    session = cookie(browser, key)
    for headers in (bearer(key), session | {"Origin": url}):
        with socket(url, headers) as opened:
            greet(opened)
    evil = {"Origin": "https://evil.example"}
    for headers in ({}, bearer("cg_00000000_wrong"), session, session | evil):
        with pytest.raises(InvalidStatus), socket(url, headers):
            pass


def test_a_websocket_ends_with_its_key(
    store: Store, url: str, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "RECHECK_SECONDS", 0.1)
    key = make_key()
    with socket(url, bearer(key)) as opened:
        greet(opened)
        with pytest.raises(TimeoutError):
            opened.recv(timeout=0.5)
        revoke_key(store, key_id(key), actor="test")
        with pytest.raises(ConnectionClosed) as closed:
            opened.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
