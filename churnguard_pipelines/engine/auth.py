"""Authentication schemes: small generators that see each request before it is sent and its answer afterwards.

Static credentials (:class:`ApiKey`, :class:`Basic`, :class:`Bearer`) only add a header or a parameter. The OAuth 2
ones keep a token that all threads and processes of an integration share through a :class:`TokenKeeper`: it is renewed
shortly before it expires and when the provider answers 401, once, whoever notices first.
"""

from __future__ import annotations

import base64
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any, Protocol, TypeGuard
from urllib.parse import urlsplit

import httpx
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.errors import AuthenticationFailed, InvalidConfiguration, ProviderUnavailable

DEFAULT_LIFETIME = 3600.0
"""Seconds, where the token endpoint does not say (RFC 6749 only recommends ``expires_in``); a 401 corrects it."""

LONGEST_LIFETIME = 10 * 365 * 24 * 3600.0
"""Seconds; whatever claims more says nothing."""

LONGEST_TOKEN = 16_384
"""Characters; servers take heads of 8 to 64 kB."""

RECONNECT = (
    "Authorize the integration again by `churnguard integrations authorize PROVIDER`, or put new tokens into its file "
    "and store it with `churnguard integrations add FILE.yaml --replace`."
)

_NOT_NOW = ("server_error", "temporarily_unavailable", "unknown_error")
"""The first two are RFC 6749's, the third Salesforce's ("retry your request")."""

AuthFlow = Generator[httpx.Request, httpx.Response, None]


class Credential(httpx.Auth, ABC):
    """An ``httpx.Auth`` that knows what must never be shown. Its ``repr`` is only its class's name.

    ``token_url``: where it asks for tokens, if it does.
    """

    token_url: str | None = None

    @property
    def token(self) -> Token | None:
        """The access token of the latest call, for a protocol beside HTTP that takes it too; None for credentials that
        are none, and before the first call."""
        return None

    @abstractmethod
    def secrets(self) -> tuple[str, ...]:
        """Every secret this credential holds now, for redaction."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class ApiKey(Credential):
    """A key in a header (``prefix`` before it, e.g. ``"Bearer "``) or, where ``param`` is given, in the query."""

    def __init__(self, key: str, *, header: str = "X-API-Key", prefix: str = "", param: str | None = None) -> None:
        self._key, self._header, self._prefix, self._param = key, header, prefix, param

    def secrets(self) -> tuple[str, ...]:
        return (self._key,)

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        if self._param is not None:
            request.url = request.url.copy_set_param(self._param, self._key)
        else:
            request.headers[self._header] = self._prefix + self._key
        yield request


class Bearer(ApiKey):
    def __init__(self, token: str) -> None:
        super().__init__(token, header="Authorization", prefix="Bearer ")

    @property
    def token(self) -> Token | None:
        return Token(self._key)


class Basic(Credential):
    def __init__(self, username: str, password: str) -> None:
        self._password = password
        self._encoded = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")

    def secrets(self) -> tuple[str, ...]:
        return (self._encoded, self._password)

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        request.headers["Authorization"] = f"Basic {self._encoded}"
        yield request


class LockedToken(Protocol):
    """The stored token while nobody else can change it."""

    token: Token | None

    def save(self, token: Token) -> None: ...


class TokenKeeper(Protocol):
    """Where an integration's token lives, sealed, for all threads and processes."""

    def load(self) -> Token | None: ...

    def locked(self) -> AbstractContextManager[LockedToken]:
        """Excludes every other holder, in any process, until it is left. Held over one call to the token endpoint:
        that is what makes the renewal happen once."""
        ...


class OAuth2(Credential):
    """Adds a bearer token and renews it. Subclasses say what to ask the token endpoint for.

    Raises ``AuthenticationFailed`` if the endpoint refuses, ``ProviderUnavailable`` if it is in trouble.
    """

    def __init__(self, keeper: TokenKeeper, token_url: str, *, now: Callable[[], float] = time.time) -> None:
        self._keeper = keeper
        self.token_url: str = token_url
        self._now = now
        self._lock = Lock()  # one thread of this process asks the keeper at a time
        self._token: Token | None = None

    @abstractmethod
    def _grant(self, token: Token | None) -> Mapping[str, str]:
        """The form fields of the token request."""

    @property
    def token(self) -> Token | None:
        return self._token

    def secrets(self) -> tuple[str, ...]:
        token = self._token
        return (token.access_token, token.refresh_token or "") if token else ()

    def sync_auth_flow(self, request: httpx.Request) -> AuthFlow:
        token = self._token
        if token is None:
            token = self._token = self._keeper.load()
        if token is None or not token.fresh(self._now()):
            token = yield from self._renew(request, token)
        self._sign(request, token)
        answer = yield request
        if answer.status_code == 401:
            answer.read()  # gives its connection back before we wait for the others
            token = yield from self._renew(request, token)
            self._sign(request, token)
            yield request

    def received(self, status: int, content: bytes) -> Token:
        """What the token endpoint answered to a grant that was sent apart. Raises what a renewal does."""
        return self._parse(httpx.Response(status, content=content), None)

    @staticmethod
    def _sign(request: httpx.Request, token: Token) -> None:
        request.headers["Authorization"] = f"Bearer {token.access_token}"
        if token.api_url is not None:
            place = httpx.URL(token.api_url)
            request.url = request.url.copy_with(scheme=place.scheme, host=place.host, port=place.port)
            request.headers["Host"] = place.netloc.decode("ascii")

    def _renew(self, request: httpx.Request, useless: Token | None) -> Generator[httpx.Request, httpx.Response, Token]:
        """A token other than ``useless``: somebody else's newer one if there is one, else one fetched now."""
        with self._lock:
            if self._token is not None and self._token != useless and self._token.fresh(self._now()):
                return self._token
            with self._keeper.locked() as stored:
                token = stored.token
                if token is None or token == useless or not token.fresh(self._now()):
                    answer = yield self._token_request(request, token)
                    token = self._parse(answer, token)
                    stored.save(token)
            self._token = token
            return token

    def _token_request(self, request: httpx.Request, token: Token | None) -> httpx.Request:
        return httpx.Request(
            "POST",
            self.token_url,
            data=dict(self._grant(token)),
            headers={"accept": "application/json"},
            extensions=request.extensions,  # the time-outs; without them this call could hang for ever
        )

    def _parse(self, answer: httpx.Response, previous: Token | None) -> Token:
        host, status = urlsplit(self.token_url).netloc.rpartition("@")[2], answer.status_code
        try:
            body: Any = orjson.loads(answer.read())
        except orjson.JSONDecodeError:
            body = None
        told = isinstance(body, dict)
        body = body if told else {}
        # A page instead of an answer, whatever its status, is of a server under maintenance or of a proxy before it.
        if status >= 500 or status in (408, 429) or body.get("error") in _NOT_NOW or (status < 400 and not told):
            raise ProviderUnavailable(f"the token endpoint at {host} is in trouble ({status}).", status=status)
        # Some endpoints report an error with status 200.
        if status >= 400 or not is_token(body.get("access_token")):
            reason = ": ".join(str(body[name]) for name in ("error", "error_description") if body.get(name))
            raise AuthenticationFailed(
                f"the token endpoint at {host} gave no token ({status}).",
                remedy=RECONNECT,
                status=status,
                server_message=reason,
            )
        now = self._now()
        kept = previous.refresh_token if previous else None
        renewed = body.get("refresh_token")
        return Token(
            access_token=body["access_token"],
            refresh_token=renewed if is_token(renewed) else kept,  # rotated only by some providers
            obtained_at=now,
            expires_at=now + lifetime_of(body.get("expires_in")),
            api_url=self._api_url(body),
        )

    def _api_url(self, told: Mapping[str, Any]) -> str | None:
        """Out of the token endpoint's answer, of a provider that says it there."""
        return None


class OAuth2Refresh(OAuth2):
    """Authorization-code integrations: a refresh token buys access tokens (RFC 6749 §6)."""

    def __init__(
        self,
        keeper: TokenKeeper,
        token_url: str,
        *,
        client_id: str,
        client_secret: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(keeper, token_url, now=now)
        self.client_id, self._client_secret = client_id, client_secret

    def secrets(self) -> tuple[str, ...]:
        return (*super().secrets(), self._client_secret or "")

    def code_grant(self, code: str, redirect_uri: str, verifier: str) -> Mapping[str, str]:
        """The form fields that buy the first tokens, with the code that a person came back with (RFC 6749 §4.1.3)."""
        grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        return grant | {"code_verifier": verifier} | self._app

    def _grant(self, token: Token | None) -> Mapping[str, str]:
        if token is None or not token.refresh_token:
            raise AuthenticationFailed("the access token has ended and there is no refresh token.", remedy=RECONNECT)
        return {"grant_type": "refresh_token", "refresh_token": token.refresh_token} | self._app

    @property
    def _app(self) -> dict[str, str]:
        own = {"client_id": self.client_id}
        return own | ({"client_secret": self._client_secret} if self._client_secret else {})


class OAuth2ClientCredentials(OAuth2):
    """Server-to-server: client id and secret buy access tokens (RFC 6749 §4.4)."""

    def __init__(
        self,
        keeper: TokenKeeper,
        token_url: str,
        *,
        client_id: str,
        client_secret: str,
        scope: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(keeper, token_url, now=now)
        self._client_id, self._client_secret, self._scope = client_id, client_secret, scope

    def secrets(self) -> tuple[str, ...]:
        return (*super().secrets(), self._client_secret)

    def grant(self) -> dict[str, str]:
        """The form fields that buy a token."""
        own = {"client_id": self._client_id, "client_secret": self._client_secret}
        return {"grant_type": "client_credentials"} | own | ({"scope": self._scope} if self._scope else {})

    def _grant(self, token: Token | None) -> Mapping[str, str]:
        return self.grant()


class OAuth2JwtBearer(OAuth2):
    """Server-to-server with a key pair: a signed assertion (RS256) buys access tokens (RFC 7523).

    ``private_key``: RSA, PEM. ``audience``: who the assertion is for; most providers want the token endpoint itself
    or its host. Raises ``InvalidConfiguration`` if the key is not one.
    """

    ASSERTION_LIFETIME = 180.0

    def __init__(
        self,
        keeper: TokenKeeper,
        token_url: str,
        *,
        issuer: str,
        subject: str,
        private_key: str,
        audience: str | None = None,
        scope: str | None = None,
        key_id: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(keeper, token_url, now=now)
        self._claims = {"iss": issuer, "sub": subject, "aud": audience or token_url}
        self._claims |= {"scope": scope} if scope else {}
        self._headers = {"kid": key_id} if key_id else None
        self._key = _rsa_key(private_key)

    def _grant(self, token: Token | None) -> Mapping[str, str]:
        issued = int(self._now())
        claims = {**self._claims, "iat": issued, "exp": issued + int(self.ASSERTION_LIFETIME)}
        return {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": jwt.encode(claims, self._key, algorithm="RS256", headers=self._headers),
        }


def _rsa_key(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise InvalidConfiguration(
            "the private key is not an unencrypted RSA key in PEM form.",
            remedy="Give the whole file, with its BEGIN and END lines.",
        )
    return key


def is_token(told: object) -> TypeGuard[str]:
    """Whether it can be sent in a header (RFC 6750) and kept."""
    return isinstance(told, str) and 0 < len(told) <= LONGEST_TOKEN and told.isascii() and told.isprintable()


def lifetime_of(expires_in: object) -> float:
    """Seconds; providers send it as a number or as digits in a string, or not at all."""
    try:
        seconds = float(expires_in)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_LIFETIME
    return max(seconds, 1.0) if seconds < LONGEST_LIFETIME else DEFAULT_LIFETIME
