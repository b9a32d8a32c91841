"""Proving who we are: static credentials, and OAuth 2 tokens that are renewed once whoever notices first."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Event, Lock

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import (
    ApiKey,
    Basic,
    Bearer,
    Credential,
    OAuth2ClientCredentials,
    OAuth2JwtBearer,
    OAuth2Refresh,
)
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.errors import AuthenticationFailed, InvalidConfiguration, ProviderUnavailable
from tests.engine.conftest import FakeClock
from tests.engine.loopback import Answer, Api, Asked, as_json


class MemoryKeeper:
    """A keeper for one process. ``saved``: every token it was given."""

    def __init__(self, token: Token | None = None) -> None:
        self.token = token
        self.saved: list[Token] = []
        self._lock = Lock()

    def load(self) -> Token | None:
        return self.token

    @contextmanager
    def locked(self) -> Iterator[MemoryKeeper]:
        with self._lock:
            yield self

    def save(self, token: Token) -> None:
        self.token = token
        self.saved.append(token)


class Provider:
    """Token endpoint and API in one: only the newest access token is good, a refresh token is good once."""

    def __init__(self, api: Api, *, expires_in: object = 3600) -> None:
        self.grants: list[Asked] = []
        self.expires_in = expires_in
        self.valid = ""
        self.refused: Answer | None = None
        self._lock = Lock()
        api.answers = [self._answer]

    def _answer(self, asked: Asked) -> Answer:
        with self._lock:
            if asked.path == "/token":
                self.grants.append(asked)
                if self.refused is not None:
                    return self.refused
                number = len(self.grants)
                self.valid = f"access-{number}"
                body = {"access_token": self.valid, "refresh_token": f"refresh-{number}", "expires_in": self.expires_in}
                return as_json(body)
            good = asked.headers.get("Authorization") == f"Bearer {self.valid}"
            return as_json({"ok": True}) if good else as_json({"error": {"message": "expired"}}, 401)


@pytest.fixture
def ask(api: Api, clock: FakeClock) -> Iterator[Callable[[Credential], httpx.Headers]]:
    clients: list[HttpClient] = []

    def request(auth: Credential, retries: int = 0) -> httpx.Headers:
        clients.append(
            HttpClient(
                AddressGuard("acme-crm", restricted=False),
                provider_title="CRM",
                auth=auth,
                retry=RetryPolicy(attempts=retries),
                clock=clock,
            )
        )
        clients[-1].request("GET", f"{api.url}/data")
        return httpx.Headers(api.asked[-1].headers)

    yield request
    for each in clients:
        each.close()


Ask = Callable[..., httpx.Headers]


def refreshing(api: Api, keeper: MemoryKeeper, clock: FakeClock) -> OAuth2Refresh:
    return OAuth2Refresh(keeper, f"{api.url}/token", client_id="app", client_secret="s3cret", now=clock.now)


class TestStaticCredentials:
    def test_a_key_in_a_header(self, ask: Ask) -> None:
        assert ask(ApiKey("k"))["X-API-Key"] == "k"
        assert ask(ApiKey("k", header="Authorization", prefix="Token "))["Authorization"] == "Token k"

    def test_a_key_in_the_query(self, api: Api, ask: Ask) -> None:
        ask(ApiKey("k&k", param="api_key"))
        assert api.asked[-1].query == {"api_key": ["k&k"]}

    def test_a_bearer_token(self, ask: Ask) -> None:
        assert ask(Bearer("t"))["Authorization"] == "Bearer t"

    def test_basic(self, ask: Ask) -> None:
        sent = ask(Basic("üser", "pass:word"))["Authorization"]
        assert base64.b64decode(sent.removeprefix("Basic ")).decode() == "üser:pass:word"

    @pytest.mark.parametrize("auth", [ApiKey("hush"), Bearer("hush"), Basic("me", "hush")])
    def test_none_shows_its_secret(self, auth: Credential) -> None:
        assert "hush" not in repr(auth)
        assert "hush" in auth.secrets()


class TestRenewal:
    def test_the_first_call_fetches_a_token_and_the_next_ones_keep_it(
        self, api: Api, ask: Ask, clock: FakeClock
    ) -> None:
        provider = Provider(api)
        auth = OAuth2ClientCredentials(
            MemoryKeeper(), f"{api.url}/token", client_id="app", client_secret="s3cret", scope="read", now=clock.now
        )
        for _ in range(3):
            assert ask(auth)["Authorization"] == "Bearer access-1"
        (grant,) = provider.grants
        assert grant.form == {
            "grant_type": "client_credentials",
            "client_id": "app",
            "client_secret": "s3cret",
            "scope": "read",
        }

    def test_a_token_is_renewed_a_minute_before_it_ends(self, api: Api, ask: Ask, clock: FakeClock) -> None:
        provider = Provider(api)
        keeper = MemoryKeeper(Token("", refresh_token="refresh-0"))
        auth = refreshing(api, keeper, clock)
        ask(auth)
        clock.time += 3539
        ask(auth)
        assert len(provider.grants) == 1
        clock.time += 2
        assert ask(auth)["Authorization"] == "Bearer access-2"
        assert [grant.form["refresh_token"] for grant in provider.grants] == ["refresh-0", "refresh-1"]
        assert keeper.token == keeper.saved[-1] == Token("access-2", "refresh-2", clock.time, clock.time + 3600)
        assert [asked.path for asked in api.asked].count("/data") == 3, "no call was refused on the way"

    def test_a_short_lived_token_is_used_for_half_its_life(self, api: Api, ask: Ask, clock: FakeClock) -> None:
        provider = Provider(api, expires_in="30")  # some send a text
        auth = refreshing(api, MemoryKeeper(Token("", "r")), clock)
        ask(auth)
        clock.time += 14
        ask(auth)
        assert len(provider.grants) == 1
        clock.time += 2
        ask(auth)
        assert len(provider.grants) == 2

    def test_a_refused_token_is_renewed_and_the_call_repeated(self, api: Api, ask: Ask, clock: FakeClock) -> None:
        provider = Provider(api)
        keeper = MemoryKeeper(Token("revoked", "refresh-0", clock.time, clock.time + 3600))
        assert ask(refreshing(api, keeper, clock))["Authorization"] == "Bearer access-1"
        assert len(provider.grants) == 1

    def test_a_token_refused_twice_is_an_error(self, api: Api, ask: Ask, clock: FakeClock) -> None:
        api.answers = [
            lambda asked: as_json({"access_token": "a"}) if asked.path == "/token" else as_json({}, status=401)
        ]
        with pytest.raises(AuthenticationFailed, match="CRM refused the credentials"):
            ask(refreshing(api, MemoryKeeper(Token("old", "r")), clock))
        assert [asked.path for asked in api.asked] == ["/data", "/token", "/data"]

    def test_a_provider_that_does_not_rotate_refresh_tokens_keeps_its_one(
        self, api: Api, ask: Ask, clock: FakeClock
    ) -> None:
        api.answers = [as_json({"access_token": "a", "expires_in": None})]
        keeper = MemoryKeeper(Token("", "for-ever"))
        ask(refreshing(api, keeper, clock))
        assert keeper.token == Token("a", "for-ever", clock.time, clock.time + 3600)

    def test_concurrent_callers_renew_once(self, api: Api, clock: FakeClock) -> None:
        provider = Provider(api)
        together = Barrier(8)
        stale = Token("revoked", "refresh-0", clock.time, clock.time + 3600)
        auth = refreshing(api, MemoryKeeper(stale), clock)
        with (
            HttpClient(AddressGuard("acme-crm", restricted=False), auth=auth, clock=clock) as http,
            ThreadPoolExecutor(8) as pool,
        ):

            def call(_: int) -> int:
                together.wait()
                return http.request("GET", f"{api.url}/data").status

            assert list(pool.map(call, range(8))) == [200] * 8
        assert len(provider.grants) == 1

    def test_two_clients_of_one_integration_renew_once(self, api: Api, ask: Ask, clock: FakeClock) -> None:
        provider = Provider(api)
        keeper = MemoryKeeper(Token("revoked", "refresh-0", clock.time, clock.time + 3600))
        first, second = refreshing(api, keeper, clock), refreshing(api, keeper, clock)
        first._token = second._token = keeper.token  # both read it before either was refused
        clock.time += 1
        ask(first)
        ask(second)
        assert len(provider.grants) == 1, "the second took the token the first had stored"


class TestRefusedRenewal:
    @pytest.mark.parametrize("status", [400, 401, 200])
    def test_the_endpoint_s_refusal_is_final_and_says_what_to_do(
        self, api: Api, ask: Ask, clock: FakeClock, status: int
    ) -> None:
        provider = Provider(api)
        provider.refused = as_json({"error": "invalid_grant", "error_description": "token s3cret was revoked"}, status)
        keeper = MemoryKeeper(Token("", "refresh-0"))
        with pytest.raises(AuthenticationFailed, match=r"invalid_grant: token \*\*\* was revoked") as raised:
            ask(refreshing(api, keeper, clock), retries=3)
        assert raised.value.integration_id == "acme-crm"
        assert "Authorize the integration again" in (raised.value.remedy or "")
        assert len(provider.grants) == 1
        assert keeper.saved == []

    def test_an_endpoint_in_trouble_is_tried_again(self, api: Api, ask: Ask, clock: FakeClock) -> None:
        provider = Provider(api)
        provider.refused = Answer(503, b"<html>")
        with pytest.raises(ProviderUnavailable, match=r"the token endpoint at 127\.0\.0\.1:\d+ is in trouble \(503\)"):
            ask(refreshing(api, MemoryKeeper(Token("", "refresh-0")), clock), retries=2)
        assert len(provider.grants) == 3

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(200, b"<html>We are down for maintenance</html>", {"Content-Type": "text/html"}),
            as_json({"error": "unknown_error", "error_description": "retry your request"}, 400),
        ],
        ids=["maintenance page", "retry your request"],
    )
    def test_a_server_that_says_nothing_of_the_credentials_does_not_refuse_them(
        self, api: Api, ask: Ask, clock: FakeClock, answer: Answer
    ) -> None:
        Provider(api).refused = answer
        with pytest.raises(ProviderUnavailable):
            ask(refreshing(api, MemoryKeeper(Token("", "refresh-0")), clock))

    def test_an_endpoint_that_hangs_is_given_up_like_any_other_call(self, api: Api, clock: FakeClock) -> None:
        done = Event()

        def hang(_: Asked) -> Answer:
            done.wait(20)
            return Answer()

        api.answers = [hang]
        auth = refreshing(api, MemoryKeeper(Token("", "refresh-0")), clock)
        with HttpClient(
            AddressGuard("acme-crm", restricted=False),
            auth=auth,
            retry=RetryPolicy(attempts=0),
            timeout=0.1,
            clock=clock,
        ) as http:
            with pytest.raises(ProviderUnavailable, match=r"did not answer within 0\.1 s"):
                http.request("GET", f"{api.url}/data")
            done.set()

    def test_without_a_refresh_token_there_is_nothing_to_renew_with(self, api: Api, ask: Ask, clock: FakeClock) -> None:
        Provider(api)
        with pytest.raises(AuthenticationFailed, match="there is no refresh token"):
            ask(refreshing(api, MemoryKeeper(Token("old")), clock))


class TestJwtBearer:
    def test_a_signed_assertion_buys_the_token(self, api: Api, ask: Ask, clock: FakeClock) -> None:
        provider = Provider(api)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        auth = OAuth2JwtBearer(
            MemoryKeeper(),
            f"{api.url}/token",
            issuer="client",
            subject="me@acme.test",
            audience="https://login.test",
            private_key=pem,
            key_id="k1",
            now=clock.now,
        )
        assert ask(auth)["Authorization"] == "Bearer access-1"
        form = provider.grants[0].form
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        assert jwt.get_unverified_header(form["assertion"]) == {"alg": "RS256", "kid": "k1", "typ": "JWT"}
        claims = jwt.decode(
            form["assertion"],
            key.public_key(),
            algorithms=["RS256"],
            audience="https://login.test",
            options={"verify_exp": False, "verify_iat": False},
        )
        assert (claims["iss"], claims["sub"]) == ("client", "me@acme.test")
        assert claims["exp"] - claims["iat"] == 180

    def test_a_key_that_is_none_is_refused_before_any_call(self) -> None:
        elliptic = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        for pem in ("not a key", elliptic.decode(), ""):
            with pytest.raises(InvalidConfiguration, match="not an unencrypted RSA key in PEM form"):
                OAuth2JwtBearer(MemoryKeeper(), "http://x/token", issuer="i", subject="s", private_key=pem)
