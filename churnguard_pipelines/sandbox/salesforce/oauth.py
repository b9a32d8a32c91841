"""Signing in: refresh tokens (some good for one use), client credentials, JWT bearer, authorization code."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any
from urllib.parse import urlencode

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from churnguard_pipelines.sandbox.answers import Answer
from churnguard_pipelines.sandbox.provider import Request
from churnguard_pipelines.sandbox.salesforce import ids
from churnguard_pipelines.sandbox.salesforce.errors import OAuthRefusal, invalid_session
from churnguard_pipelines.sandbox.salesforce.org import User, user
from churnguard_pipelines.sandbox.world import World

SESSION, REFRESH, ROTATING = "00Dsandbox_", "5Aepsandbox_", "5Aeprotating_"
CLIENT, SECRET, AT = "3MVGsandbox_", "secret_", "@sandbox.example.com"
LASTS = 7200  # seconds
SCOPE = "refresh_token api"
EXPIRED = ("invalid_grant", "expired access/refresh token")


@dataclass
class Grants:
    """Which tokens hold. `session_seconds`: how long those live that are given out."""

    world: World
    session_seconds: int = LASTS
    revoked: set[str] = field(default_factory=set)  # users whose every token is refused
    _sessions: dict[str, float] = field(default_factory=dict)  # given access tokens, and until when
    _ended: set[str] = field(default_factory=set)
    _used: set[str] = field(default_factory=set)  # rotating refresh tokens
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=lambda: count(1))

    @property
    def private_key(self) -> str:
        """The PEM whose certificate every connected app of the sandbox has."""
        kinds = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self._key.private_bytes(*kinds).decode()

    @cached_property
    def _key(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(65537, 2048)

    def clear(self) -> None:
        self.revoked.clear()
        self._ended.clear()

    def end(self, token: str) -> None:
        """This access token is refused from now on; a refresh token still gives another."""
        self._ended.add(token)

    def revoke(self, name: str) -> None:
        """The user took the app's access away: no token holds any more."""
        self.revoked.add(name)

    def who(self, token: str | None) -> User:
        """The user of an access token. Refusal where it holds no longer, or never did."""
        name = (token or "").removeprefix(SESSION).partition("!")[0]
        found = user(self.world, name) if token and token.startswith(SESSION) else None
        if token is None or found is None or name in self.revoked or token in self._ended:
            raise invalid_session()
        if "!" in token and self._sessions.get(token, 0) <= self._now(found):
            raise invalid_session()
        return found

    def _now(self, of: User) -> int:
        return self.world.now(self.world.businesses[of.account])

    # The endpoints

    def token(self, request: Request) -> Answer:
        form = request.form
        grants = {
            "refresh_token": self._refresh,
            "client_credentials": self._client_credentials,
            "urn:ietf:params:oauth:grant-type:jwt-bearer": self._jwt,
            "authorization_code": self._code,
        }
        grant = grants.get(form.get("grant_type", ""))
        if grant is None:
            raise OAuthRefusal("unsupported_grant_type", "grant type not supported")
        answer = grant(request, form)
        return Answer(200, orjson.dumps(answer))

    def authorize(self, request: Request) -> Answer:
        """The user agrees at once: back to where the app asked, with a code or with a refusal."""
        asked = request.parameters
        client = self._client(asked)
        back = asked.get("redirect_uri", "")
        if not back.startswith(("http://", "https://")):
            raise OAuthRefusal("redirect_uri_mismatch", "redirect_uri must match configuration")
        state = {"state": asked["state"]} if "state" in asked else {}
        if asked.get("response_type") != "code":
            gone = {"error": "unsupported_response_type", "error_description": "response type not supported"}
        else:
            code = f"aPrx{next(self._numbers):06d}{client.name}"
            self._codes[code] = asked
            gone = {"code": code}
        return Answer(302, b"", {"location": back + ("&" if "?" in back else "?") + urlencode({**gone, **state})})

    def take_back(self, request: Request) -> Answer:
        """/services/oauth2/revoke: an access token ends, a refresh token ends with all that it gave."""
        token = request.form.get("token") or request.parameters.get("token", "")
        if token.startswith(SESSION):
            self.end(token)
        elif owner := self._refreshes(token):
            self.revoke(owner.name)
        else:
            raise OAuthRefusal("unsupported_token_type", "this token type is not supported")
        return Answer(200, b"")

    def _given(self, request: Request, to: User) -> dict[str, Any]:
        token = f"{SESSION}{to.name}!{next(self._numbers):06d}"
        self._sessions[token] = self._now(to) + self.session_seconds
        here = "http://" + request.headers.get("host", "127.0.0.1")
        org = ids.long("00D5g0" + to.account.ljust(9, "0")[:9])
        return {
            "access_token": token,
            "signature": base64.b64encode(hashlib.sha256(token.encode()).digest()).decode(),
            "scope": SCOPE,
            "instance_url": here,
            "id": f"{here}/id/{org}/{ids.make('005', 1)}",
            "token_type": "Bearer",
            "issued_at": str(self._now(to) * 1000),
        }

    def _client(self, form: dict[str, str]) -> User:
        id = form.get("client_id", "")
        found = user(self.world, id.removeprefix(CLIENT)) if id.startswith(CLIENT) else None
        if found is None:
            raise OAuthRefusal("invalid_client_id", "client identifier invalid")
        return found

    def _secret(self, client: User, form: dict[str, str]) -> None:
        if not hmac.compare_digest(form.get("client_secret", "").encode(), (SECRET + client.name).encode()):
            raise OAuthRefusal("invalid_client", "invalid client credentials")

    def _refreshes(self, token: str) -> User | None:
        for begins in (REFRESH, ROTATING):
            if token.startswith(begins):
                return user(self.world, token.removeprefix(begins).partition("!")[0])
        return None

    def _refresh(self, request: Request, form: dict[str, str]) -> dict[str, Any]:
        client = self._client(form)
        if "client_secret" in form:
            self._secret(client, form)
        token = form.get("refresh_token", "")
        owner = self._refreshes(token)
        if owner is None or owner.account != client.account or owner.name in self.revoked or token in self._used:
            raise OAuthRefusal(*EXPIRED)
        given = self._given(request, owner)
        if token.startswith(ROTATING):
            self._used.add(token)
            given["refresh_token"] = f"{ROTATING}{owner.name}!{next(self._numbers):06d}"
        return given

    def _client_credentials(self, request: Request, form: dict[str, str]) -> dict[str, Any]:
        scheme, _, basic = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            id, _, secret = base64.b64decode(basic).decode().partition(":")
            form = {**form, "client_id": id, "client_secret": secret}
        client = self._client(form)
        self._secret(client, form)
        if client.name in self.revoked:
            raise OAuthRefusal("invalid_grant", "no client credentials user enabled")
        return self._given(request, client)

    def _jwt(self, request: Request, form: dict[str, str]) -> dict[str, Any]:
        head, _, signature = form.get("assertion", "").rpartition(".")
        try:
            header, claims = (orjson.loads(_decoded(part)) for part in head.split("."))
            signed = _decoded(signature)
        except ValueError:
            raise OAuthRefusal("invalid_grant", "invalid assertion") from None
        client = self._client({"client_id": str(claims.get("iss", ""))})
        if header.get("alg") != "RS256":
            raise OAuthRefusal("invalid_grant", "algorithm not supported")
        try:
            self._key.public_key().verify(signed, head.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise OAuthRefusal("invalid_grant", "invalid assertion") from None
        audience = str(claims.get("aud", "")).rstrip("/")
        here = "http://" + request.headers.get("host", "")
        if audience not in ("https://login.salesforce.com", "https://test.salesforce.com", here):
            raise OAuthRefusal("invalid_grant", "audience is invalid")
        if not isinstance(claims.get("exp"), int) or claims["exp"] <= self._now(client):
            raise OAuthRefusal("invalid_grant", "expired access/refresh token")
        subject = user(self.world, str(claims.get("sub", "")).removesuffix(AT))
        if subject is None or subject.account != client.account or subject.name in self.revoked:
            raise OAuthRefusal("invalid_grant", "user hasn't approved this consumer")
        return self._given(request, subject)

    def _code(self, request: Request, form: dict[str, str]) -> dict[str, Any]:
        client = self._client(form)
        asked = self._codes.pop(form.get("code", ""), None)
        if asked is None or asked["client_id"] != form["client_id"]:
            raise OAuthRefusal("invalid_grant", "expired authorization code")
        if asked["redirect_uri"] != form.get("redirect_uri"):
            raise OAuthRefusal("redirect_uri_mismatch", "redirect_uri must match configuration")
        if challenge := asked.get("code_challenge"):
            made = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            if base64.urlsafe_b64encode(made).rstrip(b"=").decode() != challenge:
                raise OAuthRefusal("invalid_grant", "invalid code verifier")
        else:
            self._secret(client, form)
        return {**self._given(request, client), "refresh_token": REFRESH + client.name}


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
