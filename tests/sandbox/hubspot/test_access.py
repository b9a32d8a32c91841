"""Who may ask what: OAuth's tokens and their end, private apps' scopes, tokens that are none."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from churnguard_pipelines.sandbox.hubspot.handle import PortalHandle
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.hubspot.conftest import hubspot

BACK = "http://127.0.0.1:8090/oauth/callback"


def ask(sandbox: Sandbox, portal: PortalHandle, **form: str) -> httpx.Response:
    given = {"client_id": portal.client_id, "client_secret": portal.client_secret, **form}
    return httpx.post(f"{sandbox.url}/oauth/v1/token", data=given)


def refreshed(sandbox: Sandbox, portal: PortalHandle, token: str) -> httpx.Response:
    return ask(sandbox, portal, grant_type="refresh_token", refresh_token=token)


def test_a_refresh_token_gives_an_access_token_for_half_an_hour(sandbox: Sandbox, portal: PortalHandle) -> None:
    refresh = portal.install()
    granted = refreshed(sandbox, portal, refresh).json()
    assert (granted["token_type"], granted["expires_in"], granted["refresh_token"]) == ("bearer", 1800, refresh)
    with hubspot(sandbox, granted["access_token"]) as api:
        assert api.get("/crm/v3/objects/contacts").status_code == 200
        about = api.get(f"/oauth/v1/access-tokens/{granted['access_token']}").json()
    assert (about["hub_id"], about["token_type"]) == (portal.id, "access")


def test_an_expired_access_token(sandbox: Sandbox, portal: PortalHandle) -> None:
    refresh = portal.install()
    with hubspot(sandbox, refreshed(sandbox, portal, refresh).json()["access_token"]) as api:
        portal.expire_tokens()
        refused = api.get("/crm/v3/objects/contacts")
    assert refused.status_code == 401
    assert refused.json()["category"] == "EXPIRED_AUTHENTICATION"
    assert refused.json()["message"].startswith("The OAuth token used to make this call expired ")
    assert refreshed(sandbox, portal, refresh).status_code == 200


def test_an_app_that_was_uninstalled(sandbox: Sandbox, portal: PortalHandle) -> None:
    refresh = portal.install()
    access = refreshed(sandbox, portal, refresh).json()["access_token"]
    portal.revoke(refresh)
    refused = refreshed(sandbox, portal, refresh)
    assert (refused.status_code, refused.json()["status"]) == (400, "BAD_REFRESH_TOKEN")
    with hubspot(sandbox, access) as api:
        assert api.get("/crm/v3/objects/contacts").json()["category"] == "INVALID_AUTHENTICATION"


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"client_id": "nobody"}, "BAD_CLIENT_ID"),
        ({"client_secret": "guess"}, "BAD_CLIENT_SECRET"),
        ({"grant_type": "password"}, "BAD_GRANT_TYPE"),
        ({"grant_type": "authorization_code", "code": "guess"}, "BAD_AUTH_CODE"),
        ({"grant_type": "refresh_token", "refresh_token": "guess"}, "BAD_REFRESH_TOKEN"),
    ],
)
def test_what_the_token_endpoint_refuses(
    sandbox: Sandbox, portal: PortalHandle, form: dict[str, str], status: str
) -> None:
    refused = ask(sandbox, portal, **form)
    assert (refused.status_code, refused.json()["status"]) == (400, status)


def test_signing_in_by_the_browser(sandbox: Sandbox, portal: PortalHandle) -> None:
    verifier = "v" * 64
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "client_id": portal.client_id,
        "redirect_uri": BACK,
        "scope": "oauth crm.objects.contacts.read",
        "state": "s1",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    sent = httpx.get(f"{sandbox.url}/oauth/authorize", params=query)
    where = parse_qs(urlsplit(sent.headers["location"]).query)
    assert (sent.status_code, where["state"]) == (302, ["s1"])
    form = {"grant_type": "authorization_code", "redirect_uri": BACK, "code": where["code"][0]}
    granted = ask(sandbox, portal, **form, code_verifier=verifier).json()
    with hubspot(sandbox, granted["access_token"]) as api:
        assert api.get("/crm/v3/objects/contacts").status_code == 200
        assert api.get("/crm/v3/objects/deals").status_code == 403
    again = ask(sandbox, portal, **form, code_verifier=verifier)
    assert again.json()["status"] == "BAD_AUTH_CODE"


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"redirect_uri": BACK + "2"}, "MISMATCH_REDIRECT_URI_AUTH_CODE"),
        ({"code_verifier": "another"}, "BAD_CODE_VERIFIER"),
    ],
)
def test_a_code_is_worth_something_only_to_who_asked_for_it(
    sandbox: Sandbox, portal: PortalHandle, wrong: dict[str, str], status: str
) -> None:
    query = {"client_id": portal.client_id, "redirect_uri": BACK, "scope": "oauth", "code_challenge": "x" * 43}
    sent = httpx.get(f"{sandbox.url}/oauth/authorize", params={**query, "code_challenge_method": "S256"})
    code = parse_qs(urlsplit(sent.headers["location"]).query)["code"][0]
    form = {"grant_type": "authorization_code", "redirect_uri": BACK, "code": code, **wrong}
    assert ask(sandbox, portal, **form).json()["status"] == status


def test_nobody_is_sent_to_a_strange_address(sandbox: Sandbox, portal: PortalHandle) -> None:
    query = {"client_id": portal.client_id, "redirect_uri": "https://evil.example", "scope": "oauth"}
    refused = httpx.get(f"{sandbox.url}/oauth/authorize", params=query)
    assert (refused.status_code, refused.json()["status"]) == (400, "BAD_REDIRECT_URI")


def test_a_private_app_names_the_scope_it_lacks(sandbox: Sandbox, portal: PortalHandle) -> None:
    with hubspot(sandbox, portal.token_without("crm.objects.deals.read")) as api:
        refused = api.get("/crm/v3/objects/deals")
        assert api.get("/crm/v3/objects/contacts").status_code == 200
    assert (refused.status_code, refused.json()["category"]) == (403, "MISSING_SCOPES")
    assert refused.json()["errors"][0]["context"] == {"requiredGranularScopes": ["crm.objects.deals.read"]}


@pytest.mark.parametrize(
    ("token", "status"),
    [
        ("pat-na1-00000000-0000-4000-8000-000000000000", 401),
        ("not a token", 530),
        ("hapikey-of-old", 530),
        ("", 401),
    ],
    ids=["unknown", "malformed", "an api key", "none"],
)
def test_tokens_that_are_none(sandbox: Sandbox, portal: PortalHandle, token: str, status: int) -> None:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    assert httpx.get(f"{sandbox.url}/crm/v3/objects/contacts", headers=headers).status_code == status


def test_a_token_sees_its_own_portal(sandbox: Sandbox, portal: PortalHandle) -> None:
    other = sandbox.hubspot("globex")
    for handle in (portal, other):
        with hubspot(sandbox, handle.token) as api:
            assert api.get("/account-info/v3/details").json()["portalId"] == handle.id
    assert portal.objects("contacts") != other.objects("contacts")
