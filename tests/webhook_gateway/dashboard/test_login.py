"""Signing in and out at the page, and what a session cookie is worth."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from churnguard_pipelines.store.control.api_keys import revoke_key
from churnguard_pipelines.store.postgres.database import Store
from tests.webhook_gateway.dashboard.conftest import HTML, MakeKey, audit, cookie, engine_on, key_id, sign_in
from webhook_gateway.dashboard.app import create_app
from webhook_gateway.dashboard.authentication import COOKIE
from webhook_gateway.dashboard.dagster_ui import PrincipalProcessContext
from webhook_gateway.dashboard.login import ATTEMPTS_PER_MINUTE

INFO = "/dashboard/server_info"


def test_a_key_becomes_a_session(store: Store, url: str, browser: httpx.Client, make_key: MakeKey) -> None:
    sent = browser.get("/dashboard/runs?status=failed", headers=HTML)
    assert sent.status_code == 303
    page = browser.get(sent.headers["location"])
    action = re.search(r'action="([^"]+)"', page.text)
    assert action
    key = make_key()
    answer = browser.post(action[1], data={"key": f" {key}\n"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/runs?status=failed")
    attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=lax", "Max-Age=43200", "Path=/"} <= set(attributes)
    assert "Secure" not in attributes
    assert key not in answer.headers["set-cookie"]
    assert browser.get(INFO).status_code == 200
    assert audit(store) == [(key_id(key), "login", "dashboard")]


@pytest.mark.parametrize("wrong", ["", "cg_00000000_wrong", "k" * 2000, "ÿ\0"])
def test_a_wrong_key_lets_nobody_in(store: Store, browser: httpx.Client, make_key: MakeKey, wrong: str) -> None:
    make_key()
    answer = sign_in(browser, wrong)
    assert answer.status_code == 401
    assert "not known" in answer.text
    assert COOKIE not in browser.cookies
    assert audit(store) == [("127.0.0.1", "login.refused", "dashboard")]


def test_who_guesses_has_to_wait(store: Store, browser: httpx.Client, make_key: MakeKey) -> None:
    answers = [sign_in(browser, "cg_00000000_wrong").status_code for _ in range(ATTEMPTS_PER_MINUTE + 3)]
    assert answers == [401] * ATTEMPTS_PER_MINUTE + [429] * 3
    assert sign_in(browser, make_key()).status_code == 429
    assert len(audit(store)) == ATTEMPTS_PER_MINUTE


@pytest.mark.parametrize(
    "elsewhere",
    ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "javascript:alert(1)", ""],
)
def test_the_way_on_never_leads_to_another_site(browser: httpx.Client, make_key: MakeKey, elsewhere: str) -> None:
    assert "evil" not in browser.get("/login", params={"next": elsewhere}).text
    assert sign_in(browser, make_key(), elsewhere).headers["location"] == "/"


def test_what_is_in_the_address_is_not_markup(browser: httpx.Client) -> None:
    page = browser.get("/login", params={"next": '/"><script>alert(1)</script>'}).text
    assert "<script" not in page


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}],
)
def test_another_site_signs_nobody_in_or_out(
    url: str, browser: httpx.Client, make_key: MakeKey, headers: dict[str, str]
) -> None:
    session = cookie(browser, make_key())
    assert httpx.post(f"{url}/login", data={"key": make_key()}, headers=headers).status_code == 403
    assert httpx.post(f"{url}/logout", headers=session | headers).status_code == 403
    assert httpx.get(f"{url}/logout", headers=session | headers).status_code == 200
    assert httpx.get(url + INFO, headers=session).status_code == 200


def test_a_cookie_is_worth_nothing_after_the_logout(
    store: Store, url: str, browser: httpx.Client, make_key: MakeKey
) -> None:
    key = make_key()
    session = cookie(browser, key)
    assert browser.post("/logout", headers=session).headers["location"] == "/login"
    assert httpx.get(url + INFO, headers=session).status_code == 401
    assert [action for _, action, _ in audit(store)] == ["login", "logout"]
    assert browser.post("/logout", headers=session).status_code == 303


def test_a_session_ends_with_its_key_and_with_its_time(
    store: Store, url: str, browser: httpx.Client, make_key: MakeKey
) -> None:
    key = make_key()
    revoked, expired = cookie(browser, key), cookie(browser, make_key())
    assert httpx.get(url + INFO, headers=revoked).status_code == 200
    revoke_key(store, key_id(key), actor="test")
    assert httpx.get(url + INFO, headers=revoked).status_code == 401
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE control.logins SET expires_at = clock_timestamp()")
    assert httpx.get(url + INFO, headers=expired).status_code == 401


def test_cookies_of_other_programs_on_this_machine_do_no_harm(
    url: str, browser: httpx.Client, make_key: MakeKey
) -> None:
    session = cookie(browser, make_key())["Cookie"]
    others = 'list=[1, "2"]; odd name=x; =; {"a":1}; bytes=\xff'
    headers = {"Cookie": f"{others}; {session}".encode("latin-1")}
    assert httpx.get(url + INFO, headers=headers).status_code == 200  # type: ignore[arg-type]


def test_by_https_the_cookie_goes_nowhere_else(
    store: Store, context: PrincipalProcessContext, make_key: MakeKey
) -> None:
    async def answers() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(engine_on(store), context, secure=True))
        async with httpx.AsyncClient(transport=transport, base_url="http://dashboard.example") as behind_a_proxy:
            return [
                await behind_a_proxy.post("/login", data={"key": make_key()}, headers={"Origin": origin})
                for origin in ("https://dashboard.example", "http://dashboard.example")
            ]

    right, wrong = asyncio.run(answers())
    assert (right.status_code, wrong.status_code) == (303, 403)
    assert "Secure" in right.headers["set-cookie"].split("; ")
    assert "set-cookie" not in wrong.headers
    assert "max-age" in wrong.headers["strict-transport-security"]
