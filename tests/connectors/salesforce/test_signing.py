"""Every way to sign in, and where Salesforce is asked then."""

from __future__ import annotations

from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from churnguard_pipelines.connectors.salesforce import Salesforce
from churnguard_pipelines.connectors.salesforce.signing import credential
from churnguard_pipelines.engine.auth import OAuth2
from churnguard_pipelines.engine.tokens import HeldTokens
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration
from tests.connectors.salesforce.conftest import NAME, Reader
from tests.connectors.salesforce.org import Org, form
from tests.engine.loopback import Answer, Asked, as_json, serve

APP = {"client_id": "app", "client_secret": "s3cret"}
OAUTH: dict[str, Any] = {"credential_type": "oauth2", "refresh_token": "refresh-0", "custom_fields": APP}


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def grants(org: Org) -> list[dict[str, str]]:
    return [form(asked) for asked in org.asked("/services/oauth2/token")]


def configured(base_url: str | None, **credentials: Any) -> IntegrationConfiguration:
    return configuration("crm", provider_name="salesforce", base_url=base_url, credentials=OAUTH | credentials)


def test_a_refresh_token_buys_access_tokens(org: Org, reader: Reader) -> None:
    reader.configure(credentials=OAUTH)
    org.add("Account", Name="Acme")
    assert reader.sync().status == "succeeded"
    assert grants(org) == [{"grant_type": "refresh_token", "refresh_token": "refresh-0", **APP}]
    reader.later()
    assert len(grants(org)) == 1, "the access token is kept"


def test_a_session_that_ended_is_renewed_in_the_middle_of_a_sync(org: Org, reader: Reader) -> None:
    """401 INVALID_SESSION_ID: sessions end after two hours, or whenever an administrator says so."""
    reader.configure(credentials=OAUTH)
    org.page = 1
    keys = {org.add("Account", Name=str(number)) for number in range(4)}

    def ends(asked: Asked) -> Answer | None:
        if "01g" in asked.path and len(grants(org)) == 1:
            org.tokens.clear()
        return None

    org.overrides = [ends]
    assert reader.sync().status == "succeeded"
    assert reader.alive().keys() == keys
    assert len(grants(org)) == 2


def test_a_refresh_token_that_is_exchanged_is_the_one_that_is_used_next(org: Org, reader: Reader, store: Store) -> None:
    """With rotation on, the old one is void at once."""
    reader.configure(credentials=OAUTH)
    answer = org.grant

    def rotates(asked: Asked) -> Answer:
        made = answer(asked)
        made.body = made.body[:-1] + f', "refresh_token": "refresh-{len(grants(org))}"}}'.encode()
        return made

    org.grant = rotates  # type: ignore[method-assign]
    reader.sync()
    org.tokens.clear()
    reader.later()
    assert [grant["refresh_token"] for grant in grants(org)] == ["refresh-0", "refresh-1"]
    kept = get_integration(store, NAME).credentials.refresh_token
    assert kept is not None
    assert kept.get_secret_value() == "refresh-2"


def test_where_the_api_is_is_known_to_the_next_sync(org: Org, reader: Reader, store: Store) -> None:
    """One signs in at login.salesforce.com; the API is at the instance that the token names."""
    reader.configure(credentials=OAUTH)
    reader.sync()
    kept = get_integration(store, NAME).credentials
    assert kept.custom_fields["token_api_url"].get_secret_value() == org.url


def test_an_instance_beside_the_token_s_own_host_is_not_believed(org: Org, reader: Reader) -> None:
    with serve() as login:
        login.answers = [lambda asked: org.grant(asked)]
        reader.configure(credentials=OAUTH, base_url=login.url)
        assert reader.sync().status == "failed"
        assert not org.api.asked


@pytest.mark.parametrize(
    ("login", "instance", "asked_at"),
    [
        ("https://login.salesforce.com", "https://acme.my.salesforce.com", "https://acme.my.salesforce.com"),
        ("https://test.salesforce.com", "https://acme--uat.sandbox.my.salesforce.com",
         "https://acme--uat.sandbox.my.salesforce.com"),
        ("https://login.salesforce.mil", "https://acme.my.salesforce.mil", "https://acme.my.salesforce.mil"),
        ("https://login.salesforce.com", "https://salesforce.com.evil.example", "https://login.salesforce.com"),
        ("https://login.salesforce.com", "http://acme.my.salesforce.com", "https://login.salesforce.com"),
        ("https://login.salesforce.com", 7, "https://login.salesforce.com"),
    ],
    ids=["production", "sandbox", "government", "somebody else's", "unencrypted", "no address"],
)  # fmt: skip
def test_a_token_goes_to_salesforce_alone(login: str, instance: object, asked_at: str) -> None:
    integration = configured(login)
    auth = credential(integration, HeldTokens(integration))
    flow = auth.sync_auth_flow(httpx.Request("GET", f"{login}/services/data/v65.0/limits"))
    assert str(next(flow).url) == f"{login}/services/oauth2/token"
    request = flow.send(httpx.Response(200, json={"access_token": "a", "instance_url": instance}))
    assert str(request.url) == f"{asked_at}/services/data/v65.0/limits"
    assert request.headers["Host"] == asked_at.removeprefix("https://")
    assert request.headers["Authorization"] == "Bearer a"


def test_a_signed_assertion_buys_a_token(org: Org, reader: Reader, key: rsa.RSAPrivateKey) -> None:
    fields = {"client_id": "app", "private_key": pem(key)}
    reader.configure(
        credentials={"credential_type": "jwt_bearer", "username": "sync@acme.example", "custom_fields": fields}
    )
    org.add("Account", Name="Acme")
    assert reader.sync().status == "succeeded"
    (grant,) = grants(org)
    assert grant["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims = jwt.decode(
        grant["assertion"], key.public_key(), algorithms=["RS256"], audience="https://login.salesforce.com"
    )
    assert (claims["iss"], claims["sub"]) == ("app", "sync@acme.example")
    assert claims["exp"] - claims["iat"] <= 180


@pytest.mark.parametrize(
    ("base_url", "audience"),
    [
        (None, "https://login.salesforce.com"),
        ("https://acme.my.salesforce.com", "https://login.salesforce.com"),
        ("https://test.salesforce.com", "https://test.salesforce.com"),
        ("https://acme--uat.sandbox.my.salesforce.com", "https://test.salesforce.com"),
    ],
    ids=["login", "my domain", "test", "sandbox"],
)
def test_the_assertion_is_for_production_or_for_sandboxes(
    base_url: str | None, audience: str, key: rsa.RSAPrivateKey
) -> None:
    integration = configured(
        base_url,
        credential_type="jwt_bearer",
        username="u",
        custom_fields={"client_id": "app", "private_key": pem(key)},
    )
    auth = credential(integration, HeldTokens(integration))
    assert isinstance(auth, OAuth2)
    assertion = auth._grant(None)["assertion"]
    assert jwt.decode(assertion, options={"verify_signature": False})["aud"] == audience


def test_client_credentials_buy_a_token(org: Org, reader: Reader) -> None:
    reader.configure(credentials={"credential_type": "client_credentials", "custom_fields": APP})
    org.add("Account", Name="Acme")
    assert reader.sync().status == "succeeded"
    assert grants(org) == [{"grant_type": "client_credentials", **APP}]


@pytest.mark.parametrize(
    ("credentials", "base_url", "problem"),
    [
        ({"credential_type": "oauth2", "refresh_token": "r"}, None, "custom_fields.client_id"),
        ({"credential_type": "oauth2", "custom_fields": APP}, None, "credentials.refresh_token"),
        ({"credential_type": "bearer", "access_token": "a"}, None, "base_url"),
        ({"credential_type": "bearer"}, "https://acme.my.salesforce.com", "credentials.access_token"),
        ({"credential_type": "client_credentials", "custom_fields": APP}, None, "My Domain only"),
        ({"credential_type": "jwt_bearer", "custom_fields": APP}, None, "credentials.username"),
        ({"credential_type": "jwt_bearer", "username": "u", "custom_fields": APP}, None, "custom_fields.private_key"),
        ({"credential_type": "basic_auth", "username": "u", "password": "p"}, None, "no credentials of the type"),
        (OAUTH, "https://acme.lightning.force.com", "https://acme.my.salesforce.com"),
        (OAUTH, "https://acme.my.salesforce-setup.com", "https://acme.my.salesforce.com"),
    ],
    ids=["no app", "no token", "no instance", "no session", "login host", "no user", "no key", "password", "lightning",
         "setup"],
)  # fmt: skip
def test_what_is_missing_is_named_before_anybody_is_asked(
    credentials: dict[str, Any], base_url: str | None, problem: str
) -> None:
    integration = configuration("crm", provider_name="salesforce", base_url=base_url, credentials=credentials)
    with pytest.raises(InvalidConfiguration) as refused:
        credential(integration, HeldTokens(integration))
    assert problem in refused.value.explanation


@pytest.mark.parametrize(
    ("error", "description", "advice"),
    [
        ("invalid_grant", "expired access/refresh token", "expired, or it was revoked"),
        ("invalid_grant", "authentication failure", "https://test.salesforce.com"),
        ("invalid_client_id", "client identifier invalid", "client_id"),
        ("inactive_user", "user is inactive", "Authorize the integration again"),
    ],
    ids=["expired or revoked", "sandbox token at production", "app is gone", "user is inactive"],
)
def test_a_refused_refresh_token_says_what_to_do(
    org: Org, reader: Reader, error: str, description: str, advice: str
) -> None:
    reader.configure(credentials=OAUTH)
    refused = as_json({"error": error, "error_description": description}, 400)
    org.overrides = [lambda asked: refused if "oauth2" in asked.path else None]
    report = reader.sync()
    assert report.status == "failed"
    assert advice in str(report.error)
    assert description in str(report.error)
    assert reader.status() == "authentication_failed"


def test_people_sign_in_on_salesforce_s_page(org: Org) -> None:
    integration = configured("https://acme.my.salesforce.com")
    page = Salesforce.sign_in(integration, HeldTokens(integration))
    assert page.authorization_url == "https://acme.my.salesforce.com/services/oauth2/authorize"
    assert page.scopes == ("api", "refresh_token")
    assert page.client.token_url == "https://acme.my.salesforce.com/services/oauth2/token"
