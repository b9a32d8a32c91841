"""Who may ask: private-app tokens with their scopes, and apps signed in by OAuth.
https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/oauth/working-with-oauth
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlencode, urlsplit

from churnguard_pipelines.sandbox.hubspot import errors
from churnguard_pipelines.sandbox.hubspot.instants import iso

LIFE = 1800  # seconds of an access token
CODE_LIFE = 60
# What the edge takes for a token: a private app's, or one of OAuth
_TOKEN = re.compile(r"pat-[a-z]{2}\d-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|C[A-Za-z0-9_-]{15,}")


SCOPES = (
    "oauth",
    "crm.objects.contacts.read",
    "crm.objects.companies.read",
    "crm.objects.deals.read",
    "crm.objects.line_items.read",
    "crm.objects.owners.read",
    "crm.objects.custom.read",
    "crm.objects.marketing_events.read",
    "crm.schemas.contacts.read",
    "crm.schemas.companies.read",
    "crm.schemas.deals.read",
    "crm.schemas.custom.read",
    "crm.lists.read",
    "tickets",
    "e-commerce",
    "forms",
    "content",
    "marketing.campaigns.read",
)


@dataclass
class App:
    """What asks: a private app of one portal, or a public one's grant there. `expires`: in milliseconds, or never."""

    name: str
    portal: int
    scopes: set[str]
    oauth: bool = False
    expires: int | None = None

    def need(self, *scopes: str) -> None:
        """Refusal unless one of the scopes is granted."""
        if self.scopes.isdisjoint(scopes):
            raise errors.missing_scopes(*scopes)


@dataclass
class Grant:
    """What a refresh token stands for; it stays the same until it is revoked."""

    refresh_token: str
    portal: int
    scopes: set[str]
    client: str


@dataclass
class Client:
    """A public app. `redirects`: where its users may be sent back to, beside anywhere on their own machine."""

    id: str
    secret: str
    app_id: int
    redirects: set[str] = field(default_factory=set)


@dataclass
class _Code:
    portal: int
    scopes: set[str]
    redirect: str
    challenge: str | None
    expires: int


class Access:
    """Every token that is valid in this sandbox. `revoke` and `expire` work at once."""

    def __init__(self) -> None:
        self._private: dict[str, App] = {}
        self._tokens: dict[str, App] = {}
        self._grants: dict[str, Grant] = {}
        self._clients: dict[str, Client] = {}
        self._codes: dict[str, _Code] = {}
        self._numbers = count(1)

    # Set-up

    def private_app(self, portal: int, token: str, scopes: set[str]) -> None:
        self._private[token] = App(token, portal, scopes)

    def client(self, client: Client) -> None:
        self._clients[client.id] = client

    def install(self, client: str, portal: int, scopes: set[str]) -> str:
        """An app is signed in to a portal; gives its refresh token."""
        token = f"na1-{self._opaque('refresh')[:32]}"
        self._grants[token] = Grant(token, portal, scopes, client)
        return token

    def installed(self, client: str, portal: int) -> str:
        """The refresh token of an app at a portal, with every scope; signed in now where it was not yet."""
        for token, grant in self._grants.items():
            if (grant.client, grant.portal) == (client, portal):
                return token
        return self.install(client, portal, set(SCOPES))

    def revoke(self, token: str) -> None:
        """A private app's token is deleted, or an app uninstalled by its refresh token: none of its tokens counts."""
        self._private.pop(token, None)
        grant = self._grants.pop(token, None)
        if grant is not None:
            self._tokens = {each: app for each, app in self._tokens.items() if app.name != grant.refresh_token}

    def expire_all(self, now: int) -> None:
        """Every access token of OAuth ran out just now."""
        for app in self._tokens.values():
            app.expires = min(now, app.expires or now)

    # Asking

    def app(self, headers: Mapping[str, str], now: int) -> App:
        """Refusal 401 where nobody can be made out, 530 where the token is no token."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            raise errors.no_credentials()
        if not _TOKEN.fullmatch(token):
            raise errors.malformed_token()
        app = self._private.get(token) or self._tokens.get(token)
        if app is None:
            raise errors.no_credentials()
        if app.expires is not None and app.expires <= now:
            raise errors.expired(now - app.expires, iso(app.expires))
        return app

    # The authorization server

    def authorize(self, portal: int, query: dict[str, str], now: int) -> str:
        """A user has consented: where the browser goes next. Refusal where the app is none or the address not its."""
        client = self._clients.get(query.get("client_id", ""))
        if client is None:
            raise errors.bad_grant("BAD_CLIENT_ID", "missing or unknown client id")
        redirect = query.get("redirect_uri", "")
        if redirect not in client.redirects and urlsplit(redirect).hostname not in ("127.0.0.1", "localhost"):
            raise errors.bad_grant("BAD_REDIRECT_URI", "missing or invalid redirect uri")
        if query.get("code_challenge") and query.get("code_challenge_method") != "S256":
            raise errors.bad_grant("BAD_REQUEST", "code_challenge_method must be S256")
        scopes = set(query.get("scope", "").split())
        if not scopes or not scopes <= set(SCOPES):
            raise errors.bad_grant("BAD_SCOPES", "missing or invalid scopes")
        code = self._opaque("code")
        challenge = query.get("code_challenge")
        self._codes[code] = _Code(portal, scopes, redirect, challenge, now + CODE_LIFE * 1000)
        back = {"code": code, **({"state": query["state"]} if "state" in query else {})}
        return f"{redirect}{'&' if '?' in redirect else '?'}{urlencode(back)}"

    def token(self, form: dict[str, str], now: int) -> dict[str, Any]:
        """POST /oauth/…/token."""
        client = self._clients.get(form.get("client_id", ""))
        if client is None:
            raise errors.bad_grant("BAD_CLIENT_ID", "missing or unknown client id")
        if form.get("client_secret") != client.secret:
            raise errors.bad_grant("BAD_CLIENT_SECRET", "missing or invalid client secret")
        kind = form.get("grant_type")
        if kind == "authorization_code":
            grant = self._exchange(client, form, now)
        elif kind == "refresh_token":
            found = self._grants.get(form.get("refresh_token", ""))
            if found is None or found.client != client.id:
                raise errors.bad_grant("BAD_REFRESH_TOKEN", "missing or invalid refresh token")
            grant = found
        else:
            raise errors.bad_grant("BAD_GRANT_TYPE", "missing or unknown grant type")
        access = "C" + self._opaque("access")
        self._tokens[access] = App(grant.refresh_token, grant.portal, grant.scopes, True, now + LIFE * 1000)
        return {
            "token_type": "bearer",
            "refresh_token": grant.refresh_token,
            "access_token": access,
            "expires_in": LIFE,
            "hub_id": grant.portal,
            "scopes": sorted(grant.scopes),
        }

    def _exchange(self, client: Client, form: dict[str, str], now: int) -> Grant:
        code = self._codes.pop(form.get("code", ""), None)
        if code is None:
            raise errors.bad_grant("BAD_AUTH_CODE", "missing or unknown auth code")
        if code.expires <= now:
            raise errors.bad_grant("EXPIRED_AUTH_CODE", "auth code is expired")
        if form.get("redirect_uri") != code.redirect:
            raise errors.bad_grant("MISMATCH_REDIRECT_URI_AUTH_CODE", "redirect uri does not match the auth code's")
        if code.challenge is not None and _challenge(form.get("code_verifier", "")) != code.challenge:
            raise errors.bad_grant("BAD_CODE_VERIFIER", "missing or invalid code verifier")
        return self._grants[self.install(client.id, code.portal, code.scopes)]

    def about(self, token: str, now: int) -> dict[str, Any]:
        """GET /oauth/…/access-tokens/{token}."""
        app = self._tokens.get(token)
        if app is None or app.expires is None or app.expires <= now:
            raise errors.Refusal(404, "Not found")
        client = self._clients[self._grants[app.name].client]
        return {
            "token": token,
            "user": "admin@example.com",
            "hub_domain": f"portal-{app.portal}.example.com",
            "scopes": sorted(app.scopes),
            "hub_id": app.portal,
            "app_id": client.app_id,
            "expires_in": (app.expires - now) // 1000,
            "user_id": 1,
            "token_type": "access",
        }

    def _opaque(self, kind: str) -> str:
        return hashlib.sha256(f"{kind}/{next(self._numbers)}".encode()).hexdigest()


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
