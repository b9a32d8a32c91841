"""Signing in with an identity provider: the real protocol against a small one on this machine."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import settings_for
from tests.webhook_gateway.dashboard.conftest import audit, engine_on, graphql, served
from webhook_gateway.dashboard.app import create_app
from webhook_gateway.dashboard.authentication import COOKIE
from webhook_gateway.dashboard.dagster_ui import PrincipalProcessContext
from webhook_gateway.dashboard.oidc import Allowlist

CLIENT, SECRET = "churnguard", "canary-of-the-client"


@dataclass
class Provider:
    """Whoever comes is ``claims``; ``overrule`` and ``sign_with`` make it lie."""

    url: str = ""
    claims: dict[str, Any] = field(default_factory=lambda: {"email": "Ada@example.com", "email_verified": True})
    overrule: dict[str, Any] = field(default_factory=dict)
    issuer: str | None = None
    algorithm: str = "RS256"
    sign_with: Any = None
    asked: dict[str, dict[str, str]] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1", "alg": "RS256", "use": "sig"}))

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.metadata),
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
                Route("/keys", self.keys),
            ]
        )

    async def metadata(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer or self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            }
        )

    async def authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        assert query["client_id"] == CLIENT
        self.asked["code"] = query
        return RedirectResponse(f"{query['redirect_uri']}?code=code&state={query['state']}")

    async def token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        asked = self.asked.pop(form["code"])
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        assert request.headers["authorization"] == f"Basic {basic}"
        assert form["redirect_uri"] == asked["redirect_uri"]
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
        assert challenge.decode().rstrip("=") == asked["code_challenge"]
        now = int(time.time())
        claims = {"iss": self.url, "sub": "1", "aud": CLIENT, "iat": now, "exp": now + 60, "nonce": asked["nonce"]}
        claims |= self.claims | self.overrule
        header = {"alg": self.algorithm, "kid": "1"}
        signed = jwt.encode(header, claims, self.sign_with or self.key, algorithms=[self.algorithm])
        return JSONResponse({"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": signed})

    async def keys(self, _: Request) -> Response:
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    with served(made.app()) as made.url:
        yield made


@pytest.fixture
def browser(store: Store, context: PrincipalProcessContext, provider: Provider) -> Iterator[httpx.Client]:
    """At a dashboard that knows the provider. Follows what leads elsewhere."""
    store.settings.oidc_issuer = provider.url
    store.settings.oidc_client_id = CLIENT
    store.settings.oidc_client_secret = SecretStr(SECRET)
    store.settings.oidc_admin_emails = " ada@EXAMPLE.com, root@example.com"
    store.settings.oidc_viewer_emails = "vera@example.com"
    with (
        served(create_app(engine_on(store), context, secure=False)) as address,
        httpx.Client(base_url=address, follow_redirects=True, timeout=20) as client,
    ):
        yield client


def sign_in(browser: httpx.Client) -> httpx.Response:
    return browser.get("/oidc/login", params={"next": "/dashboard/server_info"})


def test_who_is_listed_gets_in(store: Store, browser: httpx.Client) -> None:
    assert "Sign in with 127.0.0.1" in browser.get("/login").text
    answer = sign_in(browser)
    assert answer.url.path == "/dashboard/server_info"
    assert "dagster_version" in answer.json()
    assert list(browser.cookies) == [COOKIE]
    origin = str(browser.base_url).rstrip("/")
    session = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}", "Origin": origin}
    changed = graphql(origin, "mutation { reloadWorkspace { __typename } }", session).json()
    assert changed["data"]["reloadWorkspace"]["__typename"] == "Workspace"
    assert [(actor, action) for actor, action, _ in audit(store)] == [
        ("Ada@example.com", "login"),
        ("Ada@example.com", "dagster.change"),
    ]


def test_a_viewer_is_one(browser: httpx.Client, provider: Provider) -> None:
    provider.claims["email"] = "vera@example.com"
    sign_in(browser)
    origin = str(browser.base_url).rstrip("/")
    session = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}", "Origin": origin}
    changed = graphql(origin, "mutation { reloadWorkspace { __typename } }", session).json()
    assert changed["data"]["reloadWorkspace"]["__typename"] == "UnauthorizedError"


def test_who_is_not_listed_does_not(store: Store, browser: httpx.Client, provider: Provider) -> None:
    provider.claims["email"] = "<b>mallory@example.com"
    answer = sign_in(browser)
    assert answer.status_code == 403
    assert "&lt;b&gt;mallory@example.com may not sign in here." in answer.text
    assert COOKIE not in browser.cookies
    assert audit(store) == [("<b>mallory@example.com", "login.refused", "dashboard")]


@pytest.mark.parametrize(
    "lie",
    [{"email_verified": False}, {"email_verified": None}, {"aud": "another"}, {"iss": "https://evil.example"},
     {"nonce": "another"}, {"exp": 1}, {"aud": ["another"], "azp": CLIENT}],
    ids=str,
)  # fmt: skip
def test_claims_that_are_not_for_us_are_not_accepted(
    store: Store, browser: httpx.Client, provider: Provider, lie: dict[str, Any]
) -> None:
    provider.overrule = lie
    answer = sign_in(browser)
    assert answer.status_code == 401
    assert "was not accepted" in answer.text
    assert SECRET not in answer.text
    assert COOKIE not in browser.cookies
    assert audit(store) == []


def test_a_signature_of_somebody_else_is_not_accepted(browser: httpx.Client, provider: Provider) -> None:
    provider.sign_with = RSAKey.generate_key(2048, {"kid": "1"})
    assert sign_in(browser).status_code == 401
    provider.algorithm, provider.sign_with = "HS256", OctKey.import_key(SECRET)
    assert sign_in(browser).status_code == 401


def test_a_provider_of_another_name_is_not_accepted(browser: httpx.Client, provider: Provider) -> None:
    provider.issuer = "https://evil.example"
    assert sign_in(browser).status_code == 401


def test_an_answer_that_nobody_asked_for_is_not_accepted(browser: httpx.Client, provider: Provider) -> None:
    assert browser.get("/oidc/callback", params={"code": "code", "state": "x"}).status_code == 401
    browser.follow_redirects = False
    begun = sign_in(browser)
    asked = parse_qs(urlsplit(begun.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    back = httpx.get(begun.headers["location"]).headers["location"]
    assert httpx.get(back).status_code == 401  # in another browser, without the state's cookie
    assert browser.get(back.replace("state=", "state=x")).status_code == 401
    provider_said = browser.get("/oidc/callback", params={"error": "access_denied"})
    assert provider_said.status_code == 401


def test_a_provider_that_is_away_is_said_to_be(
    store: Store, browser: httpx.Client, context: PrincipalProcessContext, make_key: Any
) -> None:
    store.settings.oidc_issuer = "http://127.0.0.1:9"
    with served(create_app(engine_on(store), context, secure=False)) as address:
        assert httpx.get(f"{address}/oidc/login").status_code == 502
        right = httpx.post(f"{address}/login", data={"key": make_key()}, headers={"Origin": address})
        assert right.status_code == 303


def test_people_taken_off_the_list_are_out(
    store: Store, browser: httpx.Client, context: PrincipalProcessContext
) -> None:
    sign_in(browser)
    headers = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    assert httpx.get(browser.base_url.join("/dashboard/server_info"), headers=headers).status_code == 200
    store.settings.oidc_admin_emails = "root@example.com"
    with served(create_app(engine_on(store), context, secure=False)) as restarted:
        assert httpx.get(f"{restarted}/dashboard/server_info", headers=headers).status_code == 401


def test_half_a_configuration_stops_the_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    assert not Allowlist(settings).configured
    settings.oidc_issuer = "https://id.example"
    with pytest.raises(InvalidConfiguration, match="OIDC_CLIENT_ID, OIDC_CLIENT_SECRET, OIDC_ADMIN_EMAILS or"):
        Allowlist(settings)
    settings.oidc_client_id, settings.oidc_client_secret = CLIENT, SecretStr(SECRET)
    settings.oidc_viewer_emails = "vera@example.com"
    assert Allowlist(settings).provider == "id.example"
    settings.oidc_issuer = "http://id.example"
    with pytest.raises(InvalidConfiguration, match="https://"):
        Allowlist(settings)


def test_without_a_provider_its_library_is_not_loaded_and_its_routes_are_not_there(url: str) -> None:
    assert "Sign in with" not in httpx.get(f"{url}/login").text.replace("Sign in with an API key", "")
    assert httpx.get(f"{url}/oidc/login").status_code == 404
