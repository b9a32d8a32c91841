"""A person lets us in at a provider: the authorization-code flow with PKCE, on their own machine or by our page.

RFC 6749 §4.1, RFC 7636 (S256 only) and RFC 8252. Authlib makes and reads the flow's texts; every call is the engine's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from churnguard_pipelines.connectors import api_connector, connector
from churnguard_pipelines.connectors.sdk import SignIn
from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.engine.callback import waiting_for_browser
from churnguard_pipelines.engine.http import MIB, HttpClient
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.engine.server_messages import quoted
from churnguard_pipelines.engine.tokens import HeldTokens, Token
from churnguard_pipelines.errors import AuthenticationFailed, InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration

PORT = 8976
"""Of the redirect URI on this machine, which has to be registered at the provider."""
SECONDS = 300.0
"""A person has to sign in and agree."""
AGAIN = "Nothing was stored. Sign in again."
_REFUSALS = range(400, 600)


@dataclass(frozen=True, slots=True)
class SigningIn:
    """A sign-in under way. ``url``: the provider's page, for a browser; the rest is what its end is told by."""

    url: str
    redirect_uri: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)


def signed_in(
    integration: IntegrationConfiguration,
    show: Callable[[str, str], None],
    *,
    port: int = PORT,
    seconds: float = SECONDS,
) -> Token:
    """The tokens that the provider gave for the person who signed in on this machine; nothing is stored.

    ``show``: is given the page that a browser has to open, and the redirect URI. Raises ``AuthenticationFailed`` if
    nobody signed in, and what :func:`begin` and :func:`end` raise.
    """
    sign_in_of(integration)
    with waiting_for_browser(port) as callback:
        begun = begin(integration, callback.uri)
        show(begun.url, callback.uri)
        answer = callback.answer(seconds)
        if answer is None:
            problem = (
                f"nobody came back from {connector(integration.provider_name).title}'s page within {seconds:.0f} s."
            )
            raise AuthenticationFailed(problem, integration_id=integration.integration_id, remedy=AGAIN)
        return end(integration, begun, answer)


def begin(integration: IntegrationConfiguration, redirect_uri: str, state: str | None = None) -> SigningIn:
    """``redirect_uri``: where the browser comes back to; ``state``: what it comes back with, made up if omitted. Raises
    ``InvalidConfiguration`` for a provider without such a page, or a missing field of the app."""
    page = sign_in_of(integration)
    state, verifier = state or secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    url = prepare_grant_uri(
        page.authorization_url,
        page.client.client_id,
        "code",
        redirect_uri,
        " ".join(page.scopes),
        state,
        code_challenge=create_s256_code_challenge(verifier),
        code_challenge_method="S256",
        **page.parameters,
    )
    return SigningIn(url, redirect_uri, state, verifier)


def end(integration: IntegrationConfiguration, begun: SigningIn, answer: Mapping[str, str]) -> Token:
    """The tokens for what the browser came back with; nothing is stored. Raises ``AuthenticationFailed`` if the person
    or the provider said no, or the answer is of another sign-in."""
    page = sign_in_of(integration)
    code = _code(integration, answer, begun.state)
    return _redeemed(integration, page, page.client.code_grant(code, begun.redirect_uri, begun.verifier))


def sign_in_of(integration: IntegrationConfiguration) -> SignIn:
    """Raises ``InvalidConfiguration`` for a provider without a page to sign in at, or a missing field of the app."""
    kind = api_connector(integration.provider_name)
    kind.check_fields(integration)
    page = kind.sign_in(integration, HeldTokens(integration))
    if page is None:
        raise InvalidConfiguration(
            f"{kind.title} has no page to sign in at.",
            integration_id=integration.integration_id,
            remedy="Write its key into the integration's file, and `churnguard integrations add` it.",
        )
    return page


def _code(integration: IntegrationConfiguration, answer: Mapping[str, str], state: str) -> str:
    title = connector(integration.provider_name).title
    if not secrets.compare_digest(answer.get("state", "").encode(), state.encode()):
        problem = "the browser came back with the answer to another sign-in (its state is not ours)"
    elif "code" in answer and "error" not in answer:
        return answer["code"]
    else:
        words = ": ".join(answer[name] for name in ("error", "error_description") if answer.get(name))
        problem = f"{title} did not let us in{quoted(integration, words)}"
    raise AuthenticationFailed(f"{problem}.", integration_id=integration.integration_id, remedy=AGAIN)


def _redeemed(integration: IntegrationConfiguration, page: SignIn, grant: Mapping[str, str]) -> Token:
    """Asked once: a code is good for one answer."""
    kind = api_connector(integration.provider_name)
    with HttpClient(
        guard_of(integration),
        provider_title=kind.title,
        own_hosts=kind.own_hosts,
        retry=RetryPolicy(attempts=0),
        max_body=MIB,
    ) as http:
        answer = http.request(
            "POST",
            str(page.client.token_url),
            headers={"accept": "application/json", "content-type": "application/x-www-form-urlencoded"},
            content=urlencode(grant).encode(),
            allow=_REFUSALS,
        )
    try:
        return page.client.received(answer.status, answer.content)
    except AuthenticationFailed as error:
        words = error.server_message
        for secret in (grant["code"], grant["code_verifier"], grant.get("client_secret")):
            words = words.replace(secret, "***") if secret else words  # whoever echoes what they were sent
        said = quoted(integration, words) if words else ""
        raise AuthenticationFailed(
            f"{error.message.removesuffix('.')}{said}.",
            integration_id=integration.integration_id,
            remedy=f"{AGAIN} If it is refused again, compare the app's id, secret and redirect URI.",
            status=error.status,
        ) from None
