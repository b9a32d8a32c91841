"""Signing in with an identity provider (OpenID Connect, code flow with PKCE), for those whose addresses are listed."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration, SecretsUnreadable
from churnguard_pipelines.settings import LOOPBACK, Settings
from webhook_gateway.dashboard.principal import Principal

if TYPE_CHECKING:
    from churnguard_pipelines.store.secrets import Vault
    from webhook_gateway.dashboard.login import Login

COOKIE = "churnguard_oidc"
PATH = "/oidc"
SECONDS = 600  # to sign in at the provider
MOST_CHARACTERS = 254  # of an e-mail address, by RFC 5321
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""By the provider's key pair: none that is void, none by a shared secret."""

_log = logging.getLogger(__name__)


class Allowlist:
    """Whom we let in by their address, and as what. Empty unless the identity provider is configured."""

    def __init__(self, settings: Settings) -> None:
        """Raises ``InvalidConfiguration`` if something of it is set and something else is missing."""
        addresses = settings.oidc_admin_emails, settings.oidc_viewer_emails
        given = {
            "OIDC_ISSUER": settings.oidc_issuer,
            "OIDC_CLIENT_ID": settings.oidc_client_id,
            "OIDC_CLIENT_SECRET": settings.oidc_client_secret,
            "OIDC_ADMIN_EMAILS or OIDC_VIEWER_EMAILS": addresses[0] or addresses[1],
        }
        missing = [name for name, value in given.items() if not value]
        if missing and len(missing) < len(given):
            raise InvalidConfiguration(
                f"the identity provider is configured in part: {', '.join(missing)} is missing.",
                remedy="Set all of it, or nothing.",
            )
        self.configured = not missing
        issuer = urlsplit(settings.oidc_issuer or "")
        if self.configured and issuer.scheme != "https" and issuer.hostname not in LOOPBACK:
            raise InvalidConfiguration("OIDC_ISSUER must be an https:// URL.", remedy="Correct it and start again.")
        self.provider = issuer.hostname if self.configured else None
        admins, viewers = (_listed(each or "") for each in addresses)
        self._may_write = dict.fromkeys(viewers, False) | dict.fromkeys(admins, True)

    def principal(self, address: str) -> Principal | None:
        """Asked with each request: who is taken off the lists is out after a restart, whatever cookie they have."""
        may_write = self._may_write.get(_spelled(address)) if self.configured else None
        return None if may_write is None else Principal(address, address, None, may_write)


class Oidc:
    """The two routes. The state of a sign-in travels in a sealed cookie: nothing is kept here."""

    def __init__(self, settings: Settings, vault: Vault, allowlist: Allowlist, login: Login, *, secure: bool) -> None:
        from authlib.integrations.starlette_client import OAuth  # late: most installations have no provider

        assert settings.oidc_issuer is not None
        assert settings.oidc_client_secret is not None
        self._issuer = settings.oidc_issuer.rstrip("/")
        self._client_id = settings.oidc_client_id
        self._client = OAuth().register(
            "provider",
            client_id=settings.oidc_client_id,
            client_secret=settings.oidc_client_secret.get_secret_value(),
            server_metadata_url=f"{self._issuer}/.well-known/openid-configuration",
            client_kwargs={"scope": "openid email", "code_challenge_method": "S256", "timeout": 10},
        )
        self._vault = vault.for_purpose("sign-in")
        self._allowlist = allowlist
        self._login = login
        self._secure = secure

    @property
    def routes(self) -> list[Route]:
        return [Route(f"{PATH}/login", self.begin), Route(f"{PATH}/callback", self.callback)]

    async def begin(self, request: Request) -> Response:
        from webhook_gateway.dashboard.login import own_path

        wanted = own_path(request)
        request.scope["session"] = state = {"next": wanted, "until": time.time() + SECONDS}
        back = f"{'https' if self._secure else 'http'}://{request.headers.get('host', '')}{PATH}/callback"
        try:
            answer: Response = await self._client.authorize_redirect(request, back)
        except httpx.HTTPError as error:
            _log.warning("the identity provider does not answer: %s", error)
            return self._login.form(wanted, "The identity provider does not answer.", 502)
        sealed = self._vault.seal(json.dumps(state))
        answer.set_cookie(
            COOKIE, sealed, max_age=SECONDS, path=PATH, httponly=True, samesite="lax", secure=self._secure
        )
        return answer

    async def callback(self, request: Request) -> Response:
        request.scope["session"] = state = self._state(request)
        wanted = str(state.get("next", "/"))
        if too_many := self._login.too_many(request, wanted):
            return too_many
        try:
            address = await self._address(request)
        except Exception as error:  # what providers and attackers send here fails in many ways of three libraries
            _log.warning("an answer of the identity provider was not accepted: %s: %s", type(error).__name__, error)
            answer = self._login.form(wanted, "The identity provider's answer was not accepted. Try again.", 401)
        else:
            answer = await asyncio.to_thread(self._let_in, wanted, address)
        answer.delete_cookie(COOKIE, path=PATH, secure=self._secure, httponly=True, samesite="lax")
        return answer

    async def _address(self, request: Request) -> str:
        metadata = await self._client.load_server_metadata()
        if str(metadata.get("issuer")).rstrip("/") != self._issuer:
            raise ChurnGuardError(f"the provider calls itself {metadata.get('issuer')!r}")
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        metadata["id_token_signing_alg_values_supported"] = [each for each in offered if each in ALGORITHMS] or [
            "RS256"
        ]
        options = {
            "iss": {"essential": True, "value": metadata["issuer"]},
            "aud": {"essential": True, "value": self._client_id},
        }
        token = await self._client.authorize_access_token(request, claims_options=options)
        claims = token["userinfo"]
        address, verified = claims.get("email"), claims.get("email_verified")
        if verified is not True and verified != "true":  # the word is Amazon's
            raise ChurnGuardError("the provider does not say that the address is verified")
        if not isinstance(address, str) or not address.isascii() or len(address) > MOST_CHARACTERS:
            raise ChurnGuardError("the provider gives no address that could be listed")
        return address

    def _let_in(self, wanted: str, address: str) -> Response:
        if self._allowlist.principal(address) is None:
            self._login.note_refusal(address)
            return self._login.form(wanted, f"{address} may not sign in here.", 403)
        return self._login.let_in(wanted, person=address)

    def _state(self, request: Request) -> dict[str, object]:
        try:
            state: dict[str, object] = json.loads(self._vault.open(request.cookies.get(COOKIE, "")))
        except SecretsUnreadable:
            return {}
        return state if float(str(state["until"])) > time.time() else {}


def _listed(addresses: str) -> list[str]:
    found = [_spelled(each.strip()) for each in addresses.split(",") if each.strip()]
    if any(not each.isascii() for each in found):
        raise InvalidConfiguration(
            "OIDC_ADMIN_EMAILS and OIDC_VIEWER_EMAILS hold letters beyond ASCII, whose likes others could register.",
            remedy="List addresses in ASCII.",
        )
    return found


def _spelled(address: str) -> str:
    """Small and capital letters are the same, of ASCII only: Unicode folds others onto them, and `ſ` is no `s`."""
    return "".join(each.lower() if each.isascii() else each for each in address)
