"""A person signs in at a provider in a browser: the whole flow against a strict server, and what goes wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from threading import Thread
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from churnguard_pipelines.cli import app, authorize
from churnguard_pipelines.connectors.sdk import SignIn
from churnguard_pipelines.connectors.sdk.access import Access, Entry, app_entries
from churnguard_pipelines.engine.auth import OAuth2Refresh, TokenKeeper
from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    ProviderMisbehaved,
    ProviderUnavailable,
)
from churnguard_pipelines.model import CredentialType, IntegrationConfiguration, IntegrationStatus, Organization
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.control.integrations import get_integration, replace_integration, set_status
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.signing_in import signed_in
from tests.connectors.authorization import CLIENT_ID, CLIENT_SECRET, AuthorizationServer, authorization_server, visit
from tests.connectors.toy import Account, Toy, accounts
from tests.webhook_gateway.api.conftest import nowhere_in_the_database


class SigningToy(Toy):
    access = (
        Access(
            "sign_in", "Sign in at the toy", CredentialType.OAUTH2,
            (*app_entries("on its page"), Entry("sign_in_at", "its server")), signs_in=True,
        ),
    )  # fmt: skip

    @classmethod
    def sign_in(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> SignIn:
        own = {name: value.get_secret_value() for name, value in integration.credentials.custom_fields.items()}
        client = OAuth2Refresh(
            tokens, f"{own['sign_in_at']}/token", client_id=own["client_id"], client_secret=own["client_secret"]
        )
        return SignIn(f"{own['sign_in_at']}/authorize", client, ("contacts.read", "offline"), {"prompt": "consent"})


Visit = Callable[[str], object]
Try = Callable[..., Token]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(port: int) -> Iterator[AuthorizationServer]:
    with authorization_server(f"http://localhost:{port}/callback") as started:
        yield started


@pytest.fixture
def crm(
    store: Store, organization: Organization, server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Account]:
    """An integration that has an app, and no tokens."""
    with accounts(store, monkeypatch, SigningToy) as opened:
        account = opened()
        known = get_integration(store, account.integration_id)
        fields = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "sign_in_at": server.url}
        known.credentials.custom_fields = {name: SecretStr(value) for name, value in fields.items()}
        replace_integration(store, known, actor="test")
        yield account


@pytest.fixture
def sign_in(crm: Account, port: int) -> Try:
    """``browser``: what the person does with the page's URL."""

    def tried(browser: Visit = visit, seconds: float = 20.0) -> Token:
        visits: list[Thread] = []

        def show(url: str, redirect_uri: str) -> None:
            visits.append(Thread(target=browser, args=(url,)))
            visits[0].start()

        try:
            return signed_in(get_integration(crm.store, crm.integration_id), show, port=port, seconds=seconds)
        finally:
            for thread in visits:
                thread.join()

    return tried


def changed(url: str, **parameters: str) -> str:
    parts = urlsplit(url)
    query = {name: each[0] for name, each in parse_qs(parts.query).items()} | parameters
    return urlunsplit(parts._replace(query=urlencode(query)))


def refused(attempt: Callable[[], Token], kind: type[ChurnGuardError] = AuthenticationFailed) -> str:
    with pytest.raises(kind) as found:
        attempt()
    message = found.value.message
    assert "\n" not in message, "one line"
    for secret in (CLIENT_SECRET, "canary-access", "canary-refresh"):
        assert secret not in found.value.explanation
    return message


def test_a_person_signs_in_and_we_get_tokens(sign_in: Try, server: AuthorizationServer) -> None:
    pages: list[str] = []

    def browser(url: str) -> None:
        pages.append(url)
        assert "go back to the terminal" in visit(url).text

    token = sign_in(browser)
    assert (token.access_token, token.refresh_token) == ("canary-access", "canary-refresh")
    asked = {name: each[0] for name, each in parse_qs(urlsplit(pages[0]).query).items()}
    assert (asked["scope"], asked["prompt"], asked["code_challenge_method"]) == (
        "contacts.read offline", "consent", "S256",
    )  # fmt: skip
    assert len(asked["state"]) >= 32
    (form,) = server.asked
    assert 43 <= len(form["code_verifier"]) <= 128, "RFC 7636"
    assert form["redirect_uri"] == asked["redirect_uri"] == server.redirect_uri


def test_the_answer_to_another_sign_in_is_refused(sign_in: Try, server: AuthorizationServer) -> None:
    """Somebody else's code would have us read their account, and store it as ours (CSRF, RFC 6749 §10.12)."""
    message = refused(lambda: sign_in(lambda _: visit(f"{server.redirect_uri}?code=theirs&state=guessed")))
    assert "another sign-in" in message
    assert server.asked == [], "its code is not even tried"


def test_a_code_is_good_for_who_began_the_sign_in_only(sign_in: Try, server: AuthorizationServer) -> None:
    """The server has another challenge than our verifier's: the page's URL was changed on its way."""
    message = refused(lambda: sign_in(lambda url: visit(changed(url, code_challenge="of-somebody-else"))))
    assert "gave no token (400): invalid_grant" in message


def test_a_person_who_says_no_is_told(sign_in: Try, server: AuthorizationServer) -> None:
    server.agrees = False
    assert refused(sign_in) == "Toy CRM did not let us in: access_denied: no."


def test_nobody_is_waited_for_without_end(sign_in: Try) -> None:
    assert refused(lambda: sign_in(lambda _: None, seconds=0.2)) == "nobody came back from Toy CRM's page within 0 s."


def test_an_unregistered_redirect_uri_never_comes_back(sign_in: Try, server: AuthorizationServer) -> None:
    server.redirect_uri = "http://localhost:1/callback"
    assert "nobody came back" in refused(lambda: sign_in(seconds=0.5))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html>Sign in</html>", ProviderUnavailable),
        (200, b"[]", ProviderUnavailable),
        (200, b"{" * 10_000, ProviderUnavailable),
        (200, b'{"access_token": "a\\r\\nX-Evil: 1"}', AuthenticationFailed),
        (200, b'{"access_token": 7}', AuthenticationFailed),
        (200, json.dumps({"access_token": "x" * 20_000}).encode(), AuthenticationFailed),
        (200, b"x" * (2 << 20), ProviderMisbehaved),
        (401, b'{"error": "invalid_client", "error_description": "a\\nb"}', AuthenticationFailed),
        (400, b'{"error": "no", "error_description": "not %s"}' % CLIENT_SECRET.encode(), AuthenticationFailed),
        (503, b"", ProviderUnavailable),
    ],
    ids=["a page", "a list", "deep", "a header in it", "a number", "too long", "a flood", "refused", "an echo", "down"],
)  # fmt: skip
def test_whatever_the_token_endpoint_answers_is_one_clear_error(
    sign_in: Try, server: AuthorizationServer, status: int, body: bytes, kind: type[ChurnGuardError]
) -> None:
    server.answers = (status, body)
    refused(sign_in, kind)
    assert len(server.asked) == 1, "a code is not sent twice"


def test_what_else_comes_to_the_port_is_not_an_answer(sign_in: Try, port: int, server: AuthorizationServer) -> None:
    def browser(url: str) -> None:
        here = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{here}/favicon.ico").status_code == 404
        assert httpx.get(f"{here}/callback").status_code == 404
        many = urlencode({str(number): "x" for number in range(1000)})
        assert httpx.get(f"{here}/callback?{many}").status_code == 404
        evil = {"Host": f"evil.example:{port}"}
        assert httpx.get(f"{here}/callback?code=theirs&state=x", headers=evil).status_code == 404
        visit(url)

    assert sign_in(browser).access_token == "canary-access"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("shares", [False, True])
def test_a_port_that_is_taken_is_said(sign_in: Try, port: int, host: str, shares: bool) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shares)
        other.bind((host, port))
        other.listen()
        assert f"port {port}" in refused(sign_in, InvalidConfiguration)


def test_who_signs_in_twice_in_a_minute_finds_the_port_free(sign_in: Try, server: AuthorizationServer) -> None:
    for _ in range(2):  # of the first one's connection the kernel still knows
        assert sign_in(visit).access_token == "canary-access"


def test_a_provider_without_a_page_is_said(store: Store, integration: IntegrationConfiguration) -> None:
    with pytest.raises(InvalidConfiguration, match="Stripe has no page to sign in at"):
        signed_in(integration, lambda *_: None)


@pytest.fixture
def command(store: Store, port: int, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`churnguard integrations authorize toy`, and a person who does as it says."""
    assert store.settings.encryption_key is not None
    monkeypatch.setenv("CHURNGUARD_HOME", str(store.settings.home))
    monkeypatch.setenv("CHURNGUARD_DATABASE_URL", store.database_url)
    monkeypatch.setenv("INTEGRATION_ENCRYPTION_KEY", store.settings.encryption_key.get_secret_value())
    show = authorize._show

    def shown(url: str, redirect_uri: str) -> None:
        show(url, redirect_uri)
        Thread(target=visit, args=(url,)).start()

    monkeypatch.setattr(authorize, "_show", shown)

    def ran(*arguments: str) -> str:
        ended = CliRunner().invoke(app, ["integrations", "authorize", "toy", "--port", str(port), *arguments])
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return ended.output

    return ran


def test_the_command_stores_sealed_tokens_and_the_integration_is_well_again(
    crm: Account, store: Store, command: Callable[..., str]
) -> None:
    set_status(store, crm.integration_id, IntegrationStatus.AUTHENTICATION_FAILED, "revoked")
    printed = command()
    assert f"{crm.integration_id} is signed in" in " ".join(printed.split())
    stored = get_integration(store, crm.integration_id)
    assert stored.status == IntegrationStatus.ACTIVE
    assert stored.credentials.access_token == SecretStr("canary-access")
    assert stored.credentials.refresh_token == SecretStr("canary-refresh")
    assert stored.credentials.custom_fields["client_secret"] == SecretStr(CLIENT_SECRET)
    for secret in ("canary-access", "canary-refresh", CLIENT_SECRET):
        assert secret not in printed
        nowhere_in_the_database(store, secret)


def test_which_integration_is_meant_is_asked_for(crm: Account, store: Store, command: Callable[..., str]) -> None:
    other = get_integration(store, crm.integration_id).model_copy(update={"integration_id": "second"})
    replace_integration(store, other, actor="test")
    with pytest.raises(InvalidConfiguration, match="2 integrations of toy"):
        command()
    assert "second is signed in" in " ".join(command("--integration", "second").split())
    assert get_integration(store, crm.integration_id).credentials.access_token is None
