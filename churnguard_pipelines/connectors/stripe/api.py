"""Stripe's API through the official library, with our HTTP client under it.

The library builds the requests; authorization, quota, retries, breaker, metrics and errors are the engine's. Answers
are parsed once, by us: the library is given an empty object to look at.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import stripe

from churnguard_pipelines.engine.answers import common_description
from churnguard_pipelines.engine.http import HttpClient, Response
from churnguard_pipelines.engine.server_messages import repeated
from churnguard_pipelines.errors import InvalidConfiguration, PermissionMissing, RequestRefused
from churnguard_pipelines.model import IntegrationConfiguration

API_VERSION = "2026-05-27.dahlia"
HOST = "api.stripe.com"
PAGE = 100
MISSING = "resource_missing"
_REFUSALS = (400, 402, 404)
_FORWARDED = ("stripe-version", "stripe-account", "user-agent")

stripe.enable_telemetry = False  # the library would report our customers' latencies to Stripe


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the API. ``body``: empty for anything but a JSON object. ``version``: Stripe's clock when it
    answered, in milliseconds (its ``Date`` header has whole seconds)."""

    body: dict[str, Any]
    version: int
    missing: str | None = None
    """The parameter that names something that does not exist (any more); ``id`` for the object itself."""


class StripeApi:
    """One account, or one connected account (``custom_fields.stripe_account``). Thread safe."""

    def __init__(self, integration: IntegrationConfiguration, http: HttpClient) -> None:
        account = integration.credentials.custom_fields.get("stripe_account")
        self.integration_id = integration.integration_id
        self.version = integration.api_version or API_VERSION
        self._connected = account is not None
        self._http = http
        self._client = stripe.StripeClient(
            secret_key(integration),
            stripe_version=self.version,
            stripe_account=account.get_secret_value() if account else None,
            base_addresses={"api": str(integration.base_url or f"https://{HOST}").rstrip("/")},
            http_client=_Transport(http),
            max_network_retries=0,
        )

    def get(self, path: str, **parameters: Any) -> Answer:
        """Raises ``RequestRefused`` for a 4xx other than 401, 403, 404, 429; those are the engine's errors, but for
        a 404 (or Stripe's 400 for a vanished ``starting_after``), which is :attr:`Answer.missing`."""
        headers = self._client.raw_request("get", path, **parameters).headers
        assert isinstance(headers, _Headers)
        response = headers.response
        parsed = response.json()
        body = parsed if isinstance(parsed, dict) else {}
        version = int(response.answered_at) * 1000
        if response.status < 400:
            return Answer(body, version)
        error = body.get("error")
        if isinstance(error, dict) and error.get("code") == MISSING:
            return Answer({}, version, missing=error.get("param") or "id")
        quote = repeated(self.integration_id, common_description(response) or "", shown=response.shown)
        raise RequestRefused(
            f"Stripe refused the request ({response.status} on GET {path}{quote}).",
            integration_id=self.integration_id,
            remedy="Check the integration's settings; if they are right, this is our mistake.",
            status=response.status,
        )

    def page(self, path: str, **parameters: Any) -> Answer:
        return self.get(path, limit=PAGE, **parameters)

    def now(self) -> int:
        """Stripe's clock in epoch seconds, never ahead of it by more than ours is."""
        return int(time.time() + self._http.ahead)

    def identity(self) -> str | None:
        """The account's id; None for a restricted key that may not read it.

        Raises ``PermissionMissing`` for a connected account that the key has nothing to do with.
        """
        try:
            return str(self.get("/v1/account").body["id"])
        except PermissionMissing:
            if self._connected:
                raise
            return None


def secret_key(integration: IntegrationConfiguration) -> str:
    """Raises ``InvalidConfiguration`` if there is none."""
    secret = integration.credentials.api_key or integration.credentials.access_token
    if secret is None:
        raise InvalidConfiguration(
            "Stripe needs credentials.api_key.",
            integration_id=integration.integration_id,
            remedy="Give a restricted key (rk_live_…) with Read permissions.",
        )
    return secret.get_secret_value()


def should_retry(response: Response) -> bool | None:
    """Stripe's own hint, in a header that its libraries honour too."""
    return {"true": True, "false": False}.get(response.headers.get("stripe-should-retry", ""))


class _Headers(dict[str, str]):
    """The answer's headers, which the library hands through, and with them the answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.headers)
        self.response = response


class _Transport(stripe.HTTPClient):
    name = "churnguard"

    def __init__(self, http: HttpClient) -> None:
        super().__init__()
        self._http = http

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None, **_: Any
    ) -> tuple[str, int, Mapping[str, str]]:
        wanted = {name: value for name, value in (headers or {}).items() if name.lower() in _FORWARDED}
        response = self._http.request(method.upper(), url, headers=wanted, allow=_REFUSALS, expect_json=True)
        return "{}", 200, _Headers(response)

    def close(self) -> None:
        self._http.close()
