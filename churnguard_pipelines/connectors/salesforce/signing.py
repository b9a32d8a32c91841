"""How an integration proves to Salesforce who it is, and where Salesforce is asked.

https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_flows.htm
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from churnguard_pipelines.connectors.salesforce.access import ACCESS
from churnguard_pipelines.connectors.sdk import SignIn
from churnguard_pipelines.connectors.sdk.access import fields_of
from churnguard_pipelines.engine.auth import (
    RECONNECT,
    Bearer,
    Credential,
    OAuth2,
    OAuth2ClientCredentials,
    OAuth2JwtBearer,
    OAuth2Refresh,
    TokenKeeper,
)
from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.errors import AuthenticationFailed, InvalidConfiguration
from churnguard_pipelines.model import CredentialType, IntegrationConfiguration

LOGIN, TEST = "login.salesforce.com", "test.salesforce.com"
TOKEN_PATH = "/services/oauth2/token"  # noqa: S105 - an address
AUTHORIZE_PATH = "/services/oauth2/authorize"
SCOPES = ("api", "refresh_token")
_PAGES_FOR_PEOPLE = (".lightning.force.com", ".my.salesforce-setup.com", ".visualforce.com", ".vf.force.com")
"""Hosts that a browser shows in its address line, and that answer no API."""
_WRONG_GRANT = (
    "If it is a sandbox, `base_url` must be https://test.salesforce.com or the sandbox's My Domain; else the "
    f"authorization has expired, or it was revoked at Salesforce. {RECONNECT}"
)
_WRONG_APP = "Check credentials.custom_fields.client_id and client_secret: the app is unknown there, or was blocked."
_REMEDIES = {"invalid_grant": _WRONG_GRANT, "invalid_client_id": _WRONG_APP, "invalid_client": _WRONG_APP}


def base_url(integration: IntegrationConfiguration) -> str:
    """Without a slash at its end. Raises ``InvalidConfiguration`` for an address that is made for browsers."""
    url = str(integration.base_url or f"https://{LOGIN}").rstrip("/")
    host = urlsplit(url).hostname or ""
    if pages := next((ending for ending in _PAGES_FOR_PEOPLE if host.endswith(ending)), None):
        raise InvalidConfiguration(
            f"base_url names {host}, where Salesforce shows pages but answers no API.",
            integration_id=integration.integration_id,
            remedy=f"Use the My Domain: https://{host.removesuffix(pages).partition('--c')[0]}.my.salesforce.com",
        )
    return url


def credential(integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
    """Raises ``InvalidConfiguration`` saying what is missing."""
    base, own = base_url(integration), integration.credentials
    kind = own.credential_type
    if kind is CredentialType.BEARER:
        if integration.base_url is None:
            raise _missing(integration, "base_url", "Give the instance's URL that belongs to the session.")
        if own.access_token is None:
            raise _missing(integration, "credentials.access_token", "Give the session's id.")
        return Bearer(own.access_token.get_secret_value())
    if kind is CredentialType.OAUTH2:
        client_id = _field(integration, "client_id")
        if own.access_token is None and own.refresh_token is None:
            raise _missing(integration, "credentials.refresh_token", RECONNECT)
        secret = own.custom_fields.get("client_secret")
        return _Refresh(
            tokens, base + TOKEN_PATH, client_id=client_id, client_secret=secret.get_secret_value() if secret else None
        )
    if kind is CredentialType.CLIENT_CREDENTIALS:
        if urlsplit(base).hostname in (LOGIN, TEST):
            raise _missing(
                integration, "base_url", "This flow works at the My Domain only: https://….my.salesforce.com"
            )
        return _ClientCredentials(
            tokens, base + TOKEN_PATH,
            client_id=_field(integration, "client_id"), client_secret=_field(integration, "client_secret"),
        )  # fmt: skip
    if kind is CredentialType.JWT_BEARER:
        if not own.username:
            raise _missing(integration, "credentials.username", "Name the user on whose behalf is read.")
        audience = own.custom_fields.get("audience")
        return _JwtBearer(
            tokens, base + TOKEN_PATH,
            issuer=_field(integration, "client_id"), subject=own.username,
            private_key=_field(integration, "private_key"),
            audience=audience.get_secret_value() if audience else _audience(base),
        )  # fmt: skip
    raise InvalidConfiguration(
        f"Salesforce takes no credentials of the type {kind}.",
        integration_id=integration.integration_id,
        remedy="Use oauth2, jwt_bearer, client_credentials, or bearer with a session's id.",
    )


def sign_in(integration: IntegrationConfiguration, tokens: TokenKeeper) -> SignIn:
    """The web server flow. Raises ``InvalidConfiguration`` saying what is missing."""
    base, secret = base_url(integration), integration.credentials.custom_fields.get("client_secret")
    client = _Refresh(
        tokens, base + TOKEN_PATH,
        client_id=_field(integration, "client_id"), client_secret=secret.get_secret_value() if secret else None,
    )  # fmt: skip
    return SignIn(base + AUTHORIZE_PATH, client, SCOPES)


class _Salesforce(OAuth2):
    """Its token says where the API is (``instance_url``)."""

    def _api_url(self, told: Mapping[str, Any]) -> str | None:
        """None for one that is not there where the token came from: it would get the token."""
        url = told.get("instance_url")
        if not isinstance(url, str):
            return None
        try:
            asked, place = httpx.URL(self.token_url), httpx.URL(url)
        except httpx.InvalidURL:
            return None
        same = (asked.scheme, asked.netloc) == (place.scheme, place.netloc)
        beside = place.scheme == "https" and asked.scheme == "https" and _domain(place.host) == _domain(asked.host)
        return f"{place.scheme}://{place.netloc.decode()}" if same or beside else None

    def _parse(self, answer: httpx.Response, previous: Token | None) -> Token:
        try:
            return super()._parse(answer, previous)
        except AuthenticationFailed as error:
            error.remedy = _REMEDIES.get(error.server_message.partition(":")[0], error.remedy)
            raise


class _Refresh(_Salesforce, OAuth2Refresh):
    pass


class _ClientCredentials(_Salesforce, OAuth2ClientCredentials):
    pass


class _JwtBearer(_Salesforce, OAuth2JwtBearer):
    pass


def _audience(base: str) -> str:
    """https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_jwt_flow.htm"""
    host = urlsplit(base).hostname or ""
    return f"https://{TEST if host == TEST or host.endswith('.sandbox.my.salesforce.com') else LOGIN}"


def _domain(host: str) -> str:
    return ".".join(host.split(".")[-2:])


def _field(integration: IntegrationConfiguration, name: str) -> str:
    found = integration.credentials.custom_fields.get(name)
    if found is None:
        raise _missing(integration, f"credentials.custom_fields.{name}", f"It is {fields_of(ACCESS)[name]}.")
    return found.get_secret_value()


def _missing(integration: IntegrationConfiguration, what: str, remedy: str) -> InvalidConfiguration:
    kind = integration.credentials.credential_type
    return InvalidConfiguration(
        f"Salesforce needs {what} with credentials of the type {kind}.",
        integration_id=integration.integration_id,
        remedy=remedy,
    )
