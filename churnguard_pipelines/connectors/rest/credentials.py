"""What proves who a rule is: its `authentication`, and the headers that it sends."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from urllib.parse import parse_qsl, urlsplit

import httpx

from churnguard_pipelines.engine.auth import (
    ApiKey,
    Basic,
    Bearer,
    Credential,
    OAuth2ClientCredentials,
    OAuth2Refresh,
    TokenKeeper,
)
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import CredentialType, RuleIntegration
from churnguard_pipelines.store.control.masking import looks_secret

FIELDS: Mapping[str, str] = {
    "header": "the header of an API key, `X-API-Key` if omitted",
    "prefix": "what stands before the key in the header, e.g. `Token `",
    "parameter": "the query's parameter that has the API key, instead of a header",
    "token_url": "where OAuth 2 tokens are bought",
    "client_id": "of OAuth 2",
    "client_secret": "of OAuth 2",
    "scope": "of OAuth 2 client credentials",
}
"""Custom fields of a rule's credentials."""


class RuleCredential(Credential):
    """Sends the rule's headers with every request that it asks, and signs it; tokens are bought without them."""

    def __init__(self, integration: RuleIntegration, tokens: TokenKeeper) -> None:
        rule = integration.rule
        self._headers = rule.headers
        self._inner = _inner(integration, tokens)
        self.token_url = self._inner.token_url if self._inner else None
        query = dict(parse_qsl(urlsplit(str(rule.endpoint_url)).query))
        given = {**query, **rule.parameters}
        self._secrets = tuple(str(value) for name, value in given.items() if looks_secret(name, value))

    def secrets(self) -> tuple[str, ...]:
        return (*self._headers.values(), *self._secrets, *(self._inner.secrets() if self._inner else ()))

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.update(self._headers)
        if self._inner is None:
            yield request
        else:
            yield from self._inner.sync_auth_flow(request)


def _inner(integration: RuleIntegration, tokens: TokenKeeper) -> Credential | None:
    if integration.rule.authentication is None:
        return None
    own = integration.credentials
    fields = {name: value.get_secret_value() for name, value in own.custom_fields.items()}

    def needed(name: str, value: str | None) -> str:
        if not value:
            raise InvalidConfiguration(
                f"its authentication by {own.credential_type} has no {name}.",
                integration_id=integration.integration_id,
                remedy=f"Give `authentication.{name}`.",
            )
        return value

    def field(name: str) -> str:
        return needed(f"custom_fields.{name}", fields.get(name))

    api_key = own.api_key.get_secret_value() if own.api_key else None
    access = own.access_token.get_secret_value() if own.access_token else None
    match own.credential_type:
        case CredentialType.API_KEY:
            key, header = needed("api_key", api_key), fields.get("header", "X-API-Key")
            return ApiKey(key, header=header, prefix=fields.get("prefix", ""), param=fields.get("parameter"))
        case CredentialType.BEARER:
            return Bearer(needed("access_token", access or api_key))
        case CredentialType.BASIC_AUTH:
            password = own.password.get_secret_value() if own.password else ""
            return Basic(needed("username", own.username), password)
        case CredentialType.CLIENT_CREDENTIALS:
            return OAuth2ClientCredentials(
                tokens, field("token_url"), client_id=field("client_id"), client_secret=field("client_secret"),
                scope=fields.get("scope"),
            )  # fmt: skip
        case CredentialType.OAUTH2 if own.refresh_token is not None:
            return OAuth2Refresh(
                tokens, field("token_url"), client_id=field("client_id"), client_secret=fields.get("client_secret")
            )
        case CredentialType.OAUTH2:
            return Bearer(needed("refresh_token", access))
    raise InvalidConfiguration(
        f"a rule cannot authenticate by {own.credential_type}.",
        integration_id=integration.integration_id,
        remedy="Use api_key, bearer, basic_auth, oauth2 or client_credentials.",
    )
