"""OAuth 2 tokens of an integration: sealed with its credentials, renewed once over threads and processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

from pydantic import SecretStr

from churnguard_pipelines.engine.auth import Token
from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationCredentials, revealed
from churnguard_pipelines.store.control.integrations import LockedCredentials, get_integration, locked_credentials
from churnguard_pipelines.store.postgres.database import Store

OBTAINED_AT, EXPIRES_AT, API_URL = "token_obtained_at", "token_expires_at", "token_api_url"
"""Custom fields of the credentials that go with ``access_token``; times in seconds since the epoch, as text."""
OF_TOKEN = frozenset((OBTAINED_AT, EXPIRES_AT, API_URL))


class StoredTokens:
    """Keeps the tokens of an integration with its credentials. A
    :class:`~churnguard_pipelines.engine.auth.TokenKeeper`; the lock is the integration's row."""

    def __init__(self, store: Store, integration_id: str) -> None:
        self._store = store
        self._integration_id = integration_id

    def load(self) -> Token | None:
        return token_of(get_integration(self._store, self._integration_id).credentials)

    @contextmanager
    def locked(self) -> Iterator[LockedStoredToken]:
        with locked_credentials(self._store, self._integration_id) as held:
            yield LockedStoredToken(held)


class LockedStoredToken:
    def __init__(self, held: LockedCredentials) -> None:
        self._held = held
        self.token = token_of(held.credentials)

    def save(self, token: Token) -> None:
        self._held.save(with_token(self._held.credentials, token))
        self.token = token


class HeldTokens:
    """Keeps the tokens of a configuration that is not stored (yet) in the configuration: if it is stored afterwards,
    it has the good ones, though the provider exchanged the refresh token for another."""

    def __init__(self, integration: IntegrationConfiguration) -> None:
        self._integration = integration
        self._lock = Lock()
        self.token = self.load()

    def load(self) -> Token | None:
        return token_of(self._integration.credentials)

    @contextmanager
    def locked(self) -> Iterator[HeldTokens]:
        with self._lock:
            yield self

    def save(self, token: Token) -> None:
        self._integration.credentials = with_token(self._integration.credentials, token)
        self.token = token


class ProcessToken:
    """Keeps a token that costs nothing but a call to buy: each process has its own."""

    def __init__(self) -> None:
        self.token: Token | None = None
        self._lock = Lock()

    def load(self) -> Token | None:
        return self.token

    @contextmanager
    def locked(self) -> Iterator[ProcessToken]:
        with self._lock:
            yield self

    def save(self, token: Token | None) -> None:
        self.token = token


def tokens_of(store: Store, integration: IntegrationConfiguration) -> StoredTokens | HeldTokens:
    """Where the tokens of a configuration are kept that may be stored, or be about to replace the stored one."""
    try:
        stored = get_integration(store, integration.integration_id).credentials == integration.credentials
    except NotFound:
        stored = False
    return StoredTokens(store, integration.integration_id) if stored else HeldTokens(integration)


def without_token(fields: Mapping[str, SecretStr]) -> dict[str, SecretStr]:
    """The custom fields that a person gave."""
    return {name: value for name, value in fields.items() if name not in OF_TOKEN}


def with_token(credentials: IntegrationCredentials, token: Token) -> IntegrationCredentials:
    told = {OBTAINED_AT: repr(token.obtained_at)}
    if token.expires_at is not None:
        told[EXPIRES_AT] = repr(token.expires_at)
    if token.api_url is not None:
        told[API_URL] = token.api_url
    sealed = {name: SecretStr(value) for name, value in told.items()}
    return credentials.model_copy(
        update={
            "access_token": SecretStr(token.access_token),
            "refresh_token": SecretStr(token.refresh_token) if token.refresh_token else None,
            "custom_fields": without_token(credentials.custom_fields) | sealed,
        }
    )


def token_of(credentials: IntegrationCredentials) -> Token | None:
    """None where there is neither an access token nor a refresh token."""
    access, refresh = credentials.access_token, credentials.refresh_token
    if access is None and refresh is None:
        return None
    told = {name: value.get_secret_value() for name, value in credentials.custom_fields.items() if name in OF_TOKEN}
    return Token(
        access_token=access.get_secret_value() if access else "",
        refresh_token=refresh.get_secret_value() if refresh else None,
        obtained_at=float(told.get(OBTAINED_AT, 0.0)),
        expires_at=float(told[EXPIRES_AT]) if EXPIRES_AT in told else None,
        api_url=told.get(API_URL),
    )


def quota_account(integration: IntegrationConfiguration) -> str:
    """Whose quota it is: everything that calls with the same credentials shares it. Of an app, which many accounts let
    in, each integration is an account's own."""
    own = integration.credentials
    lasting = without_token(own.custom_fields)
    if own.api_key is not None:
        known = own.api_key.get_secret_value()
    elif own.access_token is not None and own.refresh_token is None and lasting == own.custom_fields:
        known = own.access_token.get_secret_value()  # nobody renews it
    else:
        kept = own.model_copy(update={"custom_fields": lasting})
        known = repr(revealed(kept.model_dump(exclude={"access_token", "refresh_token"})))
        known += str(integration.base_url) + (integration.integration_id if own.refresh_token else "")
    return hashlib.sha256(known.encode()).hexdigest()[:16]
