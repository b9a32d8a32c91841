"""OAUTHBEARER: the token that brokers want, bought by our own HTTP client, which goes nowhere the guard forbids."""

from __future__ import annotations

import time
from threading import Lock
from urllib.parse import urlencode

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import DEFAULT_LIFETIME, Basic, is_token, lifetime_of
from churnguard_pipelines.engine.http import MIB, HttpClient
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.errors import AuthenticationFailed, ChurnGuardError
from churnguard_pipelines.streams.kafka.options import KafkaOptions

WITHIN = 10.0


class Tokens:
    """An ``oauth_cb``, called in librdkafka's own threads. ``failure``: why there is none."""

    def __init__(self, options: KafkaOptions, guard: AddressGuard) -> None:
        self._options, self._guard = options, guard
        self._lock = Lock()
        self._token: Token | None = None
        self.failure: ChurnGuardError | None = None

    def __call__(self, config: str) -> tuple[str, float]:
        with self._lock:
            if self._token is None or not self._token.fresh(time.time()):
                try:
                    self._token = self._bought()
                except ChurnGuardError as error:
                    self.failure = error
                    raise
                self.failure = None
            assert self._token.expires_at is not None
            return self._token.access_token, self._token.expires_at

    def _bought(self) -> Token:
        options = self._options
        assert options.sasl_oauthbearer_client_id and options.sasl_oauthbearer_client_secret  # noqa: PT018
        assert options.sasl_oauthbearer_token_endpoint_url
        app = Basic(options.sasl_oauthbearer_client_id, options.sasl_oauthbearer_client_secret.get_secret_value())
        form = {"grant_type": "client_credentials"}
        if options.sasl_oauthbearer_scope:
            form["scope"] = options.sasl_oauthbearer_scope
        with HttpClient(
            self._guard, provider_title="The token endpoint", auth=app, retry=RetryPolicy(attempts=1),
            timeout=WITHIN, max_body=MIB,
        ) as client:  # fmt: skip
            answer = client.request(
                "POST", options.sasl_oauthbearer_token_endpoint_url, content=urlencode(form).encode(),
                headers={"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
                expect_json=True,
            ).json()  # fmt: skip
        told = answer if isinstance(answer, dict) else {}
        token = told.get("access_token")
        if not is_token(token):
            raise AuthenticationFailed(
                "the token endpoint gave no token.",
                integration_id=self._guard.integration_id,
                remedy="Correct sasl.oauthbearer.client.id, its secret and the token endpoint's URL.",
            )
        now, lifetime = time.time(), lifetime_of(told.get("expires_in"))
        return Token(token, obtained_at=now, expires_at=now + min(lifetime, DEFAULT_LIFETIME * 24))
