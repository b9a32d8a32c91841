"""HubSpot's API: where it answers, what its errors mean, and the clock by which records' versions go."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from churnguard_pipelines.connectors.hubspot.limits import SEARCH
from churnguard_pipelines.engine.answers import common_description
from churnguard_pipelines.engine.auth import Bearer, Credential, OAuth2Refresh, TokenKeeper
from churnguard_pipelines.engine.http import HttpClient, Response
from churnguard_pipelines.errors import InvalidConfiguration, ProviderMisbehaved, ProviderUnavailable
from churnguard_pipelines.model import CredentialType, IntegrationConfiguration

HOST = "api.hubapi.com"
SIGN_IN = "https://app.hubspot.com/oauth/authorize"
VERSION = "v3"
"""The default of ``api_version``; a dated one, e.g. ``2026-03``, changes the paths as HubSpot's overview says."""
PAGE = 100
_DATED = re.compile(r"20[0-9]{2}-[0-9]{2}")
_MALFORMED_TOKEN = 530
_SCOPES = ("requiredGranularScopes", "requiredScopes", "missingScopes")


@dataclass(frozen=True, slots=True)
class Answer:
    """``body``: empty for anything but a JSON object. ``asked``: HubSpot's clock when the call was made, milliseconds
    since the epoch: what the answer shows is as of then or later."""

    body: dict[str, Any]
    asked: int

    def results(self, what: str, integration_id: str, name: str = "results") -> list[Any]:
        """Raises ``ProviderMisbehaved`` if it is no list."""
        found = self.body.get(name)
        if not isinstance(found, list):
            raise misbehaved(integration_id, what, f"came without `{name}`")
        return found

    @property
    def after(self) -> str | None:
        """Where the next page begins."""
        paging = self.body.get("paging")
        following = paging.get("next") if isinstance(paging, dict) else None
        after = following.get("after") if isinstance(following, dict) else None
        return None if after is None or after == "" else str(after)


class HubSpotApi:
    """One account. Thread safe."""

    def __init__(self, integration: IntegrationConfiguration, http: HttpClient) -> None:
        self.integration_id = integration.integration_id
        self.connections = integration.sync_config.concurrent_requests
        self._http = http
        self._base = base_of(integration)
        self._version = version_of(integration)

    def path(self, family: str, api: str, *rest: str, legacy: str = VERSION) -> str:
        """``crm``, ``objects``, ``contacts`` -> ``/crm/v3/objects/contacts``, or ``/crm/objects/2026-03/contacts``.

        ``legacy``: its number where the version is not a date.
        """
        versioned = (api, self._version) if _DATED.fullmatch(self._version) else (legacy, api)
        return "/" + "/".join((family, *versioned, *rest))

    @property
    def schemas(self) -> str:
        """Of custom objects; the dated path has a name of its own."""
        dated = _DATED.fullmatch(self._version)
        return f"/crm-object-schemas/{self._version}/schemas" if dated else "/crm/v3/schemas"

    def get(self, path: str, **parameters: str | int) -> Answer:
        return self._ask("GET", path, parameters)

    def post(self, path: str, body: Mapping[str, Any], *, budget: str | None = None, archived: bool = False) -> Answer:
        """Only for what reads: it may be repeated."""
        return self._ask("POST", path, {"archived": "true"} if archived else {}, orjson.dumps(body), budget)

    def search(self, type_id: str, body: Mapping[str, Any]) -> Answer:
        return self.post(self.path("crm", "objects", type_id, "search"), body, budget=SEARCH)

    def account(self) -> Mapping[str, Any]:
        dated = _DATED.fullmatch(self._version)
        return self.get(f"/account-info/{self._version if dated else VERSION}/details").body

    def _ask(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str | int],
        content: bytes | None = None,
        budget: str | None = None,
    ) -> Answer:
        asked = time.time()
        response = self._http.request(
            method,
            f"{self._base}{path}",
            params=parameters or None,
            content=content,
            headers={"content-type": "application/json"} if content is not None else None,
            expect_json=True,
            budget=budget,
        )
        parsed = response.json()
        return Answer(parsed if isinstance(parsed, dict) else {}, int((asked + self._http.ahead) * 1000))


def base_of(integration: IntegrationConfiguration) -> str:
    return str(integration.base_url or f"https://{HOST}").rstrip("/")


def version_of(integration: IntegrationConfiguration) -> str:
    """Raises ``InvalidConfiguration`` for what is no version of the API."""
    version = integration.api_version or VERSION
    if version != VERSION and not _DATED.fullmatch(version):
        raise InvalidConfiguration(
            f"HubSpot has no API version {version[:40]!r}.",
            integration_id=integration.integration_id,
            remedy="Set `api_version` to v3 or a date as 2026-03, or leave it out.",
        )
    return version


def credential_of(integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
    """Of a private app its token, of an app that people authorize the one that its refresh token buys."""
    given = integration.credentials
    if given.refresh_token is not None or given.credential_type == CredentialType.OAUTH2:
        return app_of(integration, tokens)
    token = given.access_token or given.api_key
    if token is None:
        raise InvalidConfiguration(
            "HubSpot needs credentials.access_token.",
            integration_id=integration.integration_id,
            remedy="Give a private app's token (pat-…), or an app's client_id, client_secret and refresh_token.",
        )
    return Bearer(token.get_secret_value())


def app_of(integration: IntegrationConfiguration, tokens: TokenKeeper) -> OAuth2Refresh:
    """HubSpot's access tokens live for thirty minutes. Raises ``InvalidConfiguration`` naming what is missing."""
    given = {name: value.get_secret_value() for name, value in integration.credentials.custom_fields.items()}
    if missing := [name for name in ("client_id", "client_secret") if not given.get(name)]:
        raise InvalidConfiguration(
            f"HubSpot needs credentials.custom_fields.{' and '.join(missing)}.",
            integration_id=integration.integration_id,
            remedy="The app's page in HubSpot has both, under Auth.",
        )
    return OAuth2Refresh(
        tokens,
        f"{base_of(integration)}/oauth/v1/token",
        client_id=given["client_id"],
        client_secret=given["client_secret"],
    )


def describe(response: Response) -> str | None:
    """HubSpot's words, and the scopes that it misses: they stand in the context only."""
    words = common_description(response)
    try:
        body = response.json()
    except ProviderUnavailable:
        return words
    scopes = sorted(_scopes(body)) if isinstance(body, dict) else []
    return f"{words or 'missing scopes'} Scopes: {', '.join(scopes)}" if scopes else words


def refused_credentials(response: Response) -> bool:
    """Cloudflare refuses a token that cannot be one before HubSpot sees it; an origin that is away is error 1xxx."""
    return response.status == _MALFORMED_TOKEN and b"error code: 1" not in response.content.lower()


def record_id(integration_id: str, what: str, row: Any, name: str = "id") -> str:
    """Raises ``ProviderMisbehaved`` for a row without one."""
    found = row.get(name) if isinstance(row, dict) else None
    if not isinstance(found, str | int) or isinstance(found, bool) or found == "":
        raise misbehaved(integration_id, what, "has a record without an id")
    return str(found)


def misbehaved(integration_id: str, what: str, how: str) -> ProviderMisbehaved:
    return ProviderMisbehaved(
        f"HubSpot's {what} {how}; it was not followed further.",
        integration_id=integration_id,
        remedy="The next sync tries again; if it lasts, tell HubSpot's support.",
    )


def _scopes(body: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    errors = body.get("errors")
    for part in (body, *(errors if isinstance(errors, list) else ())):
        context = part.get("context") if isinstance(part, dict) else None
        for name in _SCOPES:
            told = context.get(name) if isinstance(context, dict) else None
            found.update(str(scope)[:100] for scope in (told if isinstance(told, list) else ())[:20])
    return found
