"""The token of a stream, bought before it is needed (OAuth 2 client credentials) and again before it ends."""

from __future__ import annotations

import time
from threading import Event
from urllib.parse import urlencode

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import OAuth2ClientCredentials
from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.engine.http import MIB, HttpClient
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.engine.server_messages import repeated
from churnguard_pipelines.engine.tokens import ProcessToken, Token
from churnguard_pipelines.errors import AuthenticationFailed, ProviderUnavailable
from churnguard_pipelines.streams.websocket.options import Authentication

SECONDS = 10.0
_REFUSALS = range(400, 500)


class StreamToken:
    """Thread-safe."""

    def __init__(self, options: Authentication, guard: AddressGuard, cancelled: Event) -> None:
        self._options = options
        self._guard = guard
        self._cancelled = cancelled
        self._kept = ProcessToken()
        self._client = OAuth2ClientCredentials(
            self._kept,
            options.token_url,
            client_id=options.client_id,
            client_secret=options.client_secret.get_secret_value(),
            scope=options.scope,
        )

    @property
    def fresh(self) -> bool:
        """False shortly before it ends, and where there is none."""
        token = self._kept.load()
        return token is not None and token.fresh(time.time())

    def get(self) -> str:
        """One that is good for a while. Raises ``AuthenticationFailed``, ``ProviderUnavailable``, ``Stopped``."""
        with self._kept.locked() as kept:
            token = kept.token
            if token is None or not token.fresh(time.time()):
                token = self._bought()
                kept.save(token)
            return token.access_token

    def forget(self) -> None:
        """The server refuses it."""
        with self._kept.locked() as kept:
            kept.save(None)

    def _bought(self) -> Token:
        with HttpClient(
            self._guard,
            provider_title="The token endpoint",
            retry=RetryPolicy(attempts=1),
            timeout=SECONDS,
            max_body=MIB,
            clock=Clock(self._cancelled),
        ) as http:
            answer = http.request(
                "POST",
                self._options.token_url,
                headers={"accept": "application/json", "content-type": "application/x-www-form-urlencoded"},
                content=urlencode(self._client.grant()).encode(),
                allow=_REFUSALS,
            )
        try:
            return self._client.received(answer.status, answer.content)
        except AuthenticationFailed as error:
            words = error.server_message.replace(self._options.client_secret.get_secret_value(), "***")
            said = repeated(self._guard.integration_id, words, shown=not self._guard.restricted) if words else ""
            raise AuthenticationFailed(
                f"{error.message.removesuffix('.')}{said}.",
                integration_id=self._guard.integration_id,
                remedy="Correct client_id and client_secret in connection_config.auth.",
                status=error.status,
            ) from None
        except ProviderUnavailable as error:
            raise ProviderUnavailable(
                error.message,
                integration_id=self._guard.integration_id,
                remedy="It is tried again.",
                status=error.status,
            ) from None
