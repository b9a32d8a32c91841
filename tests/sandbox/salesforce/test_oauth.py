"""Signing in to the simulated Salesforce, and how it says no."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.salesforce.conftest import DATA, refusal, salesforce

APP = {"client_id": "3MVGsandbox_acme", "client_secret": "secret_acme"}
JWT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def token(sandbox: Sandbox, **form: str) -> httpx.Response:
    return httpx.post(f"{sandbox.url}/services/oauth2/token", data=form)


def works(sandbox: Sandbox, access: str) -> bool:
    answer = httpx.get(f"{sandbox.url}{DATA}/limits", headers={"authorization": f"Bearer {access}"})
    return answer.status_code == 200


def test_a_refresh_token_gives_a_session_and_says_where(sandbox: Sandbox) -> None:
    given = token(sandbox, grant_type="refresh_token", refresh_token="5Aepsandbox_acme", **APP).json()
    assert given["instance_url"] == sandbox.url
    assert given["token_type"] == "Bearer"
    assert "refresh_token" not in given
    assert works(sandbox, given["access_token"])


def test_a_rotating_refresh_token_is_good_once(sandbox: Sandbox) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "5Aeprotating_acme", **APP}
    second = token(sandbox, **form).json()["refresh_token"]
    assert token(sandbox, **form).json() == {
        "error": "invalid_grant",
        "error_description": "expired access/refresh token",
    }
    assert token(sandbox, **{**form, "refresh_token": second}).status_code == 200


def test_a_session_ends_after_two_hours_and_by_force(sandbox: Sandbox) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "5Aepsandbox_acme", **APP}
    first, second = (token(sandbox, **form).json()["access_token"] for _ in range(2))
    sandbox.salesforce.grants.end(first)
    assert not works(sandbox, first)
    assert works(sandbox, second)
    sandbox.account("acme").advance(7200)
    assert not works(sandbox, second)
    answer = httpx.get(f"{sandbox.url}{DATA}/limits", headers={"authorization": f"Bearer {second}"})
    assert refusal(answer) == (401, "INVALID_SESSION_ID", "Session expired or invalid")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token", "client_id": "nobody"}, "invalid_client_id"),
        ({"grant_type": "client_credentials", **APP, "client_secret": "wrong"}, "invalid_client"),
        ({"grant_type": "refresh_token", "refresh_token": "5Aepsandbox_globex", **APP}, "invalid_grant"),
        ({"grant_type": JWT, "assertion": "a.b.c"}, "invalid_grant"),
    ],
    ids=["grant", "client", "secret", "another organization's token", "assertion"],
)
def test_refusals_have_oauths_words(sandbox: Sandbox, form: dict[str, str], error: str) -> None:
    answer = token(sandbox, **form)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_client_credentials(sandbox: Sandbox) -> None:
    given = token(sandbox, grant_type="client_credentials", **APP).json()
    assert works(sandbox, given["access_token"])


def assertion(sandbox: Sandbox, **claims: Any) -> str:
    now = sandbox.account("acme").now
    told = {"iss": "3MVGsandbox_acme", "sub": "acme@sandbox.example.com", "aud": sandbox.url, "exp": now + 180}
    return jwt.encode({**told, **claims}, sandbox.salesforce.grants.private_key, "RS256")


def test_a_jwt_bearer_signed_with_the_apps_key(sandbox: Sandbox) -> None:
    given = token(sandbox, grant_type=JWT, assertion=assertion(sandbox)).json()
    assert works(sandbox, given["access_token"])
    for claims, described in (
        ({"aud": "https://elsewhere.example.com"}, "audience is invalid"),
        ({"sub": "globex@sandbox.example.com"}, "user hasn't approved this consumer"),
    ):
        refused = token(sandbox, grant_type=JWT, assertion=assertion(sandbox, **claims)).json()
        assert refused == {"error": "invalid_grant", "error_description": described}
    head, _, _ = assertion(sandbox).rpartition(".")
    forged = head + "." + base64.urlsafe_b64encode(bytes(256)).rstrip(b"=").decode()
    assert token(sandbox, grant_type=JWT, assertion=forged).json()["error_description"] == "invalid assertion"


def test_an_authorization_code_with_pkce(sandbox: Sandbox) -> None:
    verifier = "a" * 64
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {"response_type": "code", "client_id": APP["client_id"], "redirect_uri": "http://localhost:1/back",
             "state": "s t", "code_challenge": challenge, "code_challenge_method": "S256"}  # fmt: skip
    answer = httpx.get(f"{sandbox.url}/services/oauth2/authorize", params=asked)
    assert answer.status_code == 302
    back = parse_qs(urlsplit(answer.headers["location"]).query)
    assert back["state"] == ["s t"]
    form = {"grant_type": "authorization_code", "code": back["code"][0], "client_id": APP["client_id"],
            "redirect_uri": asked["redirect_uri"], "code_verifier": verifier}  # fmt: skip
    given = token(sandbox, **form).json()
    assert given["refresh_token"] == "5Aepsandbox_acme"
    assert token(sandbox, **form).json()["error"] == "invalid_grant", "a code is good once"


def test_an_app_whose_access_was_taken_away(sandbox: Sandbox) -> None:
    with salesforce(sandbox) as api:
        sandbox.fault("revoke", "/services/data/*", key="acme", times=1)
        assert refusal(api.get(f"{DATA}/limits"))[:2] == (401, "INVALID_SESSION_ID")
        refused = token(sandbox, grant_type="refresh_token", refresh_token="5Aepsandbox_acme", **APP)
        assert refused.json()["error"] == "invalid_grant"
        sandbox.clear_faults()
        assert api.get(f"{DATA}/limits").status_code == 200
