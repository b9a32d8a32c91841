"""Being let in as somebody one is not: by an address that looks alike, a cookie that was for something else, a page
of another site, a path or a host that the door reads in another way than what stands behind it."""

from __future__ import annotations

import socket
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from churnguard_pipelines.errors import InvalidConfiguration, SecretsUnreadable
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.api_keys import Role
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import settings_for
from tests.webhook_gateway.dashboard.conftest import HTML, MakeKey, audit, bearer, cookie, sign_in
from tests.webhook_gateway.dashboard.test_oidc import Provider
from webhook_gateway.dashboard import oidc
from webhook_gateway.dashboard.authentication import COOKIE
from webhook_gateway.dashboard.oidc import Allowlist


def through_provider(browser: httpx.Client) -> httpx.Response:
    return browser.get("/oidc/login", params={"next": "/dashboard/server_info"})


@pytest.mark.parametrize(
    "address",
    ["adA@example.com", "ADA@EXAMPLE.COM"],
)
def test_capital_letters_are_the_same_person(
    browser_with_provider: httpx.Client, provider: Provider, address: str
) -> None:
    provider.claims["email"] = address
    assert through_provider(browser_with_provider).url.path == "/dashboard/server_info"


@pytest.mark.parametrize(
    "address",
    ["vera@examplE.com".replace("E", "\u212e"), "ro\u1d0ft@example.com", "boſſ@example.com", "ada@example.com\n",
     " ada@example.com", "ada@example.com\0", "ａda@example.com", "ada@example.com,root@example.com",
     "İda@example.com", "a" * 300 + "@example.com", ["ada@example.com"], {"ada@example.com": 1}, None, "", 1],
    ids=str,
)  # fmt: skip
def test_an_address_that_looks_alike_is_another(
    store: Store, browser_with_provider: httpx.Client, provider: Provider, address: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.claims["email"] = address
    assert through_provider(browser_with_provider).status_code in (401, 403)
    assert COOKIE not in browser_with_provider.cookies


def test_the_long_s_of_a_boss_is_no_s(tmp_path: Path) -> None:
    settings = settings_for(tmp_path).model_copy(
        update={
            "oidc_issuer": "https://login.example",
            "oidc_client_id": "a",
            "oidc_client_secret": "b",
            "oidc_admin_emails": "Boss@example.com",
        }
    )
    people = Allowlist(settings)
    assert people.principal("boss@EXAMPLE.com") is not None
    for alike in (
        "boſſ@example.com",
        "boß@example.com",
        "ＢＯＳＳ@example.com",
        "boss@example.com ",
        "boss@example.com\n",
    ):
        assert people.principal(alike) is None
    settings.oidc_viewer_emails = "boſſ@example.com"
    with pytest.raises(InvalidConfiguration, match="beyond ASCII"):
        Allowlist(settings)


@pytest.mark.parametrize("verified", ["false", "True", 1, [True], None, {}], ids=str)
def test_an_address_that_is_not_verified_is_nobody_s(
    browser_with_provider: httpx.Client, provider: Provider, verified: Any
) -> None:
    provider.claims["email_verified"] = verified
    assert through_provider(browser_with_provider).status_code == 401
    assert COOKIE not in browser_with_provider.cookies


@pytest.mark.parametrize("secret", ['"whsec_a"', "[1]", "7", "null", "{}", '{"until": 9e99, "next": "/"}', "no json"])
def test_what_was_sealed_for_another_purpose_is_no_state_of_a_sign_in(
    store: Store, browser_with_provider: httpx.Client, secret: str
) -> None:
    """Whatever is sealed in our tables under the same key, and came to somebody's hands."""
    sealed = {"Cookie": f"{oidc.COOKIE}={store.vault.seal(secret)}"}
    answer = browser_with_provider.get("/oidc/callback?code=a&state=b", headers=sealed)
    assert answer.status_code == 401
    assert "was not accepted" in answer.text


def test_a_cookie_of_the_sign_in_opens_no_secret_and_no_door(store: Store, browser_with_provider: httpx.Client) -> None:
    begun = browser_with_provider.get("/oidc/login", follow_redirects=False)
    state = begun.cookies[oidc.COOKIE]
    with pytest.raises(SecretsUnreadable):
        store.vault.open(state)
    browser_with_provider.cookies.clear()
    entered = browser_with_provider.get("/dashboard/server_info", headers={"Cookie": f"{COOKIE}={state}"})
    assert entered.status_code == 401


@pytest.mark.parametrize("value", ["", "x", "gAAAAA==", "é", "a" * 3000, '"'], ids=ascii)
def test_a_cookie_that_is_none_of_ours_is_nothing(browser_with_provider: httpx.Client, value: str) -> None:
    for name, path, status in (
        (COOKIE, "/dashboard/server_info", 401),
        (COOKIE, "/api/integrations", 401),
        (oidc.COOKIE, "/oidc/callback?code=a&state=b", 401),
    ):
        answer = browser_with_provider.get(path, headers=[(b"Cookie", f"{name}={value}".encode("latin-1"))])
        assert answer.status_code == status


def test_the_session_cookie_is_out_of_reach_for_scripts_and_other_sites(
    url: str, browser: httpx.Client, make_key: MakeKey
) -> None:
    flags = sign_in(browser, make_key()).headers["set-cookie"].lower().split("; ")
    assert {"httponly", "samesite=lax", "path=/"} <= set(flags)
    assert not any(flag.startswith("domain") for flag in flags)


CHANGING = ("/login", "/logout", "/api/integrations", "/api/webhooks/endpoints", "/dashboard/graphql",
            "/dashboard/report_asset_materialization/a", "/api/system/test-connections")  # fmt: skip


def test_a_page_of_another_site_does_nothing_in_our_name(
    store: Store, url: str, browser: httpx.Client, make_key: MakeKey
) -> None:
    session = cookie(browser, make_key())
    for path, method in product(CHANGING, ("POST", "PUT", "PATCH", "DELETE")):
        for said in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site", "Origin": url}, {}):
            answer = httpx.request(method, url + path, headers=session | said, json={"query": "{ version }"})
            assert answer.status_code in (403, 404, 405), (path, method)
    assert [action for _, action, _ in audit(store)] == ["login"]
    assert httpx.get(f"{url}/dashboard/server_info", headers=session).status_code == 200


TRICKS = [
    "//dashboard/server_info", "/login/../dashboard/server_info", "/healthz/../dashboard/server_info",
    "/healthz/..%2fdashboard/server_info", "/healthz%2f..%2fdashboard/server_info",
    "/healthz;/../dashboard/server_info",
    "/login;a=b/../dashboard/graphql", "/dashboard%2fserver_info", "/%64ashboard/server_info", "/DASHBOARD/server_info",
    "/dashboard./server_info", "/dashboard/./server_info", "/dashboard//server_info", "/dashboard;x/server_info",
    "/oidc/../dashboard/server_info", "/oidc/..%2f..%2fdashboard/server_info", "/oidc/%2e%2e/dashboard/server_info",
    "/api/../dashboard/server_info", "/api/..%2fdashboard%2fserver_info", "/api%2f..%2fdashboard/server_info",
    "/\\dashboard/server_info", "/login%00/../dashboard/server_info", "/dashboard%20/server_info",
    "/dashboard/server_info%00", "/dashboard/server_info/", "/dashboard%C0%AFserver_info", "dashboard/server_info",
    "http://elsewhere/dashboard/server_info", "/healthz?/../dashboard/server_info", "/healthz#/dashboard/server_info",
]  # fmt: skip


def test_no_spelling_of_a_path_leads_around_the_door(url: str, make_key: MakeKey, organization: Organization) -> None:
    """Not for strangers, and not for an organization's key, which does not see Dagster. As sent: clients tidy paths."""
    for key in (None, make_key(organization_id="acme")):
        for path in TRICKS:
            head = bearer(key) if key else {}
            for accept in ("application/json", HTML["Accept"]):
                answer = raw(url, f"GET {path} HTTP/1.1", head | {"Accept": accept})
                assert b"dagster_version" not in answer, path
                assert b"initialization-data" not in answer, path
            posted = raw(url, f"POST {path.replace('server_info', 'graphql')} HTTP/1.1", head, b'{"query":"{version}"}')
            assert b'"data"' not in posted, path


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8090", "", "127.0.0.1@evil.example", "a\tb", "é"])
def test_the_host_of_a_request_opens_nothing(url: str, browser: httpx.Client, make_key: MakeKey, host: str) -> None:
    """A page of the host's name is what a browser would call the same origin; what it says of itself counts less."""
    session = cookie(browser, make_key())
    said = session | {"Sec-Fetch-Site": "cross-site", "Origin": f"http://{host}"}
    answer = raw(url, "POST /dashboard/graphql HTTP/1.1", said, b'{"query":"{version}"}', host=host)
    assert answer.split(b" ", 2)[1] in (b"400", b"403")
    assert raw(url, "GET /dashboard/server_info HTTP/1.1", {}, host=host).split(b" ", 2)[1] in (b"400", b"401")
    assert b"evil.example" not in raw(url, "GET /dashboard HTTP/1.1", HTML, host=host)


def test_a_header_said_twice_is_not_read_twice(url: str, make_key: MakeKey) -> None:
    viewer, wrong = make_key(Role.VIEWER), "cg_00000000_wrong"
    headers = [("Authorization", f"Bearer {wrong}"), ("Authorization", f"Bearer {viewer}")]
    assert httpx.get(f"{url}/dashboard/server_info", headers=headers).status_code == 401


def raw(url: str, line: str, headers: dict[str, str], body: bytes = b"", *, host: str | None = None) -> bytes:
    """The whole answer to a request that is sent as it is written."""
    where = urlsplit(url)
    head = {"Host": where.netloc if host is None else host, "Connection": "close"} | headers
    if body:
        head |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [line, *(f"{name}: {value}" for name, value in head.items()), "", ""]
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode("utf-8") + body)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


def test_who_tries_answers_of_the_provider_has_to_wait(browser_with_provider: httpx.Client, provider: Provider) -> None:
    """Each would have us ask the provider; half of an IPv6 network is one customer's, too."""
    browser_with_provider.get("/oidc/login", follow_redirects=False)
    answers = [browser_with_provider.get("/oidc/callback?code=a&state=b").status_code for _ in range(15)]
    assert set(answers) == {401, 429}
    assert answers[-1] == 429
    assert provider.asked == {}
