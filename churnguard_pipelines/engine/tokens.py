"""OAuth 2 tokens of a stored integration: sealed with its credentials, renewed once over threads and processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from churnguard_pipelines.engine.auth import Token
from churnguard_pipelines.model import IntegrationCredentials
from churnguard_pipelines.store.control.integrations import LockedCredentials, get_integration, locked_credentials
from churnguard_pipelines.store.postgres.database import Store

OBTAINED_AT, EXPIRES_AT = "token_obtained_at", "token_expires_at"
"""Custom fields of the credentials that go with ``access_token``; seconds since the epoch, as text."""


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
        kept = self._held.credentials
        times = {OBTAINED_AT: SecretStr(repr(token.obtained_at))}
        if token.expires_at is not None:
            times[EXPIRES_AT] = SecretStr(repr(token.expires_at))
        others = {name: value for name, value in kept.custom_fields.items() if name not in (OBTAINED_AT, EXPIRES_AT)}
        self._held.save(
            kept.model_copy(
                update={
                    "access_token": SecretStr(token.access_token),
                    "refresh_token": SecretStr(token.refresh_token) if token.refresh_token else None,
                    "custom_fields": others | times,
                }
            )
        )
        self.token = token


def token_of(credentials: IntegrationCredentials) -> Token | None:
    """None where there is neither an access token nor a refresh token."""
    access, refresh = credentials.access_token, credentials.refresh_token
    if access is None and refresh is None:
        return None
    expires_at = credentials.custom_fields.get(EXPIRES_AT)
    obtained_at = credentials.custom_fields.get(OBTAINED_AT)
    return Token(
        access_token=access.get_secret_value() if access else "",
        refresh_token=refresh.get_secret_value() if refresh else None,
        obtained_at=float(obtained_at.get_secret_value()) if obtained_at else 0.0,
        expires_at=float(expires_at.get_secret_value()) if expires_at else None,
    )
