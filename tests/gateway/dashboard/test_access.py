"""The door of the dashboard: keys, logins, cookies, and who is turned away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.api_keys import Role, authenticate, create_key, list_keys, revoke_key
from churnguard_pipelines.store.database import Store
from churnguard_pipelines.store.organizations import add_organization
from tests.conftest import settings_for
from webhook_gateway.dashboard.__main__ import refuse_plain
from webhook_gateway.dashboard.authentication import COOKIE, Authentication
from webhook_gateway.dashboard.login import ATTEMPTS_PER_MINUTE, Login
from webhook_gateway.dashboard.principal import SCOPE

OURS = "http://ours.example"
BROWSER = {"Accept": "text/html,*/*"}
Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(store: Store) -> Ask:
    """Requests of one browser, which keeps cookies, to an application that says who it takes the asker for."""

    async def who(request: Request) -> JSONResponse:
        principal = request.scope[SCOPE]
        return JSONResponse([principal.name, principal.organization_id, principal.may_write])

    login = Login(store, secure=False)
    pages = Starlette(
        routes=[
            Route("/login", login.page, methods=["GET"]),
            Route("/login", login.sign_in, methods=["POST"]),
            Route("/logout", login.sign_out, methods=["GET", "POST"]),
            Route("/{path:path}", who, methods=["GET", "POST"]),
        ]
    )
    transport = httpx.ASGITransport(Authentication(pages, store))
    cookies = httpx.Cookies()

    def asked(method: str, path: str, **arguments: Any) -> httpx.Response:
        async def go() -> httpx.Response:
            async with httpx.AsyncClient(transport=transport, base_url=OURS, cookies=cookies) as client:
                answer = await client.request(method, path, **arguments)
                cookies.clear()
                cookies.update(client.cookies)
                return answer

        return asyncio.run(go())

    return asked


def sign_in(ask: Ask, key: str, next: str = "/dashboard") -> httpx.Response:
    return ask("POST", f"/login?next={next}", data={"key": key}, headers={"Origin": OURS})


def test_a_key_opens_the_door_and_says_who_came(store: Store, ask: Ask) -> None:
    add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
    operator = create_key(store, "ada", actor="test")
    acme = create_key(store, "bob", actor="test", organization_id="acme", role=Role.VIEWER)
    assert ask("GET", "/api/x", headers=bearer(operator)).json() == ["ada", None, True]
    assert ask("GET", "/api/x", headers=bearer(acme)).json() == ["bob", "acme", False]


@pytest.mark.parametrize("key", ["", "nonsense", "cg_12345678_", "cg_12345678_wrong", "cg_\0_x", "ü" * 50])
def test_other_keys_do_not(store: Store, ask: Ask, key: str) -> None:
    create_key(store, "ada", actor="test")
    assert authenticate(store, key) is None
    refused = ask("GET", "/api/x", headers=bearer(key.encode("ascii", "replace").decode().replace("\0", "")))
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_key_ends_when_it_is_revoked_or_its_time_is_over(store: Store) -> None:
    revoked = create_key(store, "ada", actor="test")
    over = create_key(store, "bob", actor="test", expires_in=timedelta(seconds=-1))
    assert authenticate(store, over) is None
    assert authenticate(store, revoked) is not None
    revoke_key(store, list_keys(store)[0].key_id, actor="test")
    assert authenticate(store, revoked) is None


def test_a_key_is_nowhere_in_clear(store: Store) -> None:
    key = create_key(store, "ada", actor="test")
    with store.operator() as connection:
        for table in ("control.api_keys", "control.audit_log"):
            shown = connection.exec_driver_sql(f"SELECT t::text FROM {table} AS t").scalars().all()
            assert shown
            assert not any(key.rpartition("_")[2] in row for row in shown)


def test_a_browser_is_led_to_the_login_and_back(store: Store, ask: Ask) -> None:
    key = create_key(store, "ada", actor="test")
    led = ask("GET", "/dashboard/assets?x=1", headers=BROWSER)
    assert (led.status_code, led.headers["location"]) == (303, "/login?next=/dashboard/assets%3Fx%3D1")
    assert "Sign in with an API key" in ask("GET", led.headers["location"]).text
    back = sign_in(ask, key, "/dashboard/assets%3Fx%3D1")
    assert (back.status_code, back.headers["location"]) == (303, "/dashboard/assets?x=1")
    assert "HttpOnly" in back.headers["set-cookie"]
    assert ask("GET", "/dashboard/assets").json() == ["ada", None, True]
    ask("GET", "/logout")
    assert ask("GET", "/dashboard/assets").status_code == 401


def test_a_login_ends_with_its_key(store: Store, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook_gateway.dashboard.authentication._KNOWN_SECONDS", 0.0)
    sign_in(ask, create_key(store, "ada", actor="test"))
    assert ask("GET", "/dashboard").status_code == 200
    revoke_key(store, list_keys(store)[0].key_id, actor="test")
    assert ask("GET", "/dashboard").status_code == 401


def test_a_made_up_cookie_opens_nothing(ask: Ask) -> None:
    assert ask("GET", "/dashboard", headers={"Cookie": f"{COOKIE}=gAAAAABmadeup"}).status_code == 401


@pytest.mark.parametrize("next", ["https://evil.example", "//evil.example", "/%5Cevil.example", "evil", "/%0d%0ax"])
def test_a_login_leads_to_no_other_site(store: Store, ask: Ask, next: str) -> None:
    assert sign_in(ask, create_key(store, "ada", actor="test"), next).headers["location"] == "/dashboard"


def test_wrong_keys_are_refused_noted_and_limited(store: Store, ask: Ask) -> None:
    answers = [sign_in(ask, "cg_12345678_wrong").status_code for _ in range(ATTEMPTS_PER_MINUTE + 1)]
    assert answers == [401] * ATTEMPTS_PER_MINUTE + [429]
    with store.operator() as connection:
        noted = connection.exec_driver_sql("SELECT count(*) FROM control.audit_log WHERE action = 'login.refused'")
        assert noted.scalar() == ATTEMPTS_PER_MINUTE


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
        ({"Origin": OURS}, 200),
    ],
)
def test_other_sites_change_nothing_with_our_cookie(
    store: Store, ask: Ask, headers: dict[str, str], status: int
) -> None:
    sign_in(ask, create_key(store, "ada", actor="test"))
    assert ask("POST", "/api/x", headers=headers).status_code == status
    assert ask("GET", "/dashboard/graphql?query=mutation", headers=headers).status_code == status
    assert ask("POST", "/login", data={"key": "x"}, headers=headers).status_code == (403 if status == 403 else 401)


def test_a_key_in_the_header_needs_no_origin(store: Store, ask: Ask) -> None:
    assert ask("POST", "/api/x", headers=bearer(create_key(store, "ci", actor="test"))).status_code == 200


def test_dagster_is_for_operators_only(store: Store, ask: Ask) -> None:
    add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
    key = create_key(store, "bob", actor="test", organization_id="acme")
    assert ask("GET", "/dashboard", headers=bearer(key)).status_code == 403
    assert ask("GET", "/api/x", headers=bearer(key)).status_code == 200


def test_a_network_needs_https(tmp_path: Path) -> None:
    everywhere = settings_for(tmp_path).model_copy(update={"dashboard_host": "0.0.0.0"})
    with pytest.raises(InvalidConfiguration, match="would send keys over the network in clear"):
        refuse_plain(everywhere, secure=False)
    refuse_plain(everywhere, secure=True)
    refuse_plain(settings_for(tmp_path), secure=False)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
