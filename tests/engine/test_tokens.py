"""OAuth 2 tokens of stored integrations: sealed, and renewed once whoever notices first, in any process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import OAuth2Refresh, Token
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.tokens import StoredTokens, quota_account, token_of, tokens_of, with_token
from churnguard_pipelines.model import (
    CredentialType,
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationType,
    Organization,
)
from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.store.control.integrations import add_integration, get_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration
from tests.engine.loopback import Api
from tests.engine.test_auth import Provider


@pytest.fixture
def integration_id(store: Store) -> str:
    """An integration with a token that the provider has revoked."""
    name = f"crm-{uuid4().hex[:12]}"
    add_organization(store, Organization(organization_id=name, name="Acme"))
    credentials = IntegrationCredentials(
        credential_type=CredentialType.OAUTH2,
        access_token=SecretStr("revoked"),
        refresh_token=SecretStr("refresh-0"),
        custom_fields={"client_id": SecretStr("app")},
    )
    configuration = IntegrationConfiguration(
        integration_id=name,
        organization_id=name,
        integration_name="CRM",
        integration_type=IntegrationType.CRM,
        provider_name="crm",
        credentials=credentials,
    )
    add_integration(store, configuration, actor="test")
    return name


def test_a_renewed_token_is_kept_sealed_with_the_other_credentials(store: Store, integration_id: str, api: Api) -> None:
    Provider(api)
    keeper = StoredTokens(store, integration_id)
    auth = OAuth2Refresh(keeper, f"{api.url}/token", client_id="app", now=lambda: 1_700_000_000.0)
    with HttpClient(AddressGuard(integration_id, restricted=False), auth=auth) as http:
        http.request("GET", f"{api.url}/data")
    token = Token("access-1", "refresh-1", 1_700_000_000.0, 1_700_003_600.0)
    assert StoredTokens(store, integration_id).load() == token
    assert get_integration(store, integration_id).credentials.custom_fields["client_id"].get_secret_value() == "app"
    with store.operator() as connection:
        everything = connection.execute(
            sa.text("select i::text from control.integrations i where integration_id = :id"), {"id": integration_id}
        ).scalar_one()
    assert "access-1" not in everything
    assert "refresh-1" not in everything


def test_an_integration_without_tokens_has_none_yet(store: Store, integration_id: str) -> None:
    with StoredTokens(store, integration_id).locked() as held:
        assert held.token == Token("revoked", "refresh-0")
        held.save(Token("", None))
    assert StoredTokens(store, integration_id).load() == Token("")


def test_a_check_leaves_the_configuration_with_the_token_that_is_good_now(store: Store, api: Api) -> None:
    """A provider that exchanges the refresh token takes back the one that a person typed in."""
    Provider(api)
    integration = configuration(
        "new", credentials=IntegrationCredentials(credential_type="oauth2", refresh_token="refresh-0")
    )
    auth = OAuth2Refresh(tokens_of(store, integration), f"{api.url}/token", client_id="app")
    with HttpClient(AddressGuard("new", restricted=False), auth=auth) as http:
        http.request("GET", f"{api.url}/data")
    kept = token_of(integration.credentials)
    assert kept is not None
    assert (kept.access_token, kept.refresh_token) == ("access-1", "refresh-1")


def test_a_check_of_a_stored_integration_stores_the_renewed_token(store: Store, integration_id: str, api: Api) -> None:
    Provider(api)
    keeper = tokens_of(store, get_integration(store, integration_id))
    auth = OAuth2Refresh(keeper, f"{api.url}/token", client_id="app")
    with HttpClient(AddressGuard(integration_id, restricted=False), auth=auth) as http:
        http.request("GET", f"{api.url}/data")
    kept = StoredTokens(store, integration_id).load()
    assert kept is not None
    assert kept.refresh_token == "refresh-1"


def test_a_renewed_token_leaves_the_quota_where_it_is(store: Store, integration_id: str) -> None:
    """Calls before and after it share the account's budget."""
    integration = get_integration(store, integration_id)
    before = quota_account(integration)
    integration.credentials = with_token(integration.credentials, Token("a", "r", 1.0, 2.0, "https://api.example.com"))
    assert quota_account(integration) == before


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({"access_token": "pat-1"}, {"access_token": "pat-1"}, True),
        ({"access_token": "pat-1"}, {"access_token": "pat-2"}, False),
        ({"refresh_token": "r-1", "custom_fields": {"client_id": "app"}},
         {"refresh_token": "r-2", "custom_fields": {"client_id": "app"}}, False),
        ({"custom_fields": {"client_id": "user"}}, {"custom_fields": {"client_id": "user"}}, True),
    ],
    ids=["one key", "two keys", "two accounts that let one app in", "one client"],
)  # fmt: skip
def test_a_quota_is_an_account_s(one: dict[str, Any], other: dict[str, Any], shared: bool) -> None:
    made = [
        configuration(name, credentials=IntegrationCredentials(credential_type="oauth2", **given))
        for name, given in (("one", one), ("other", other))
    ]
    assert (quota_account(made[0]) == quota_account(made[1])) is shared


CALLER = """
import sys
from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import OAuth2Refresh
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.tokens import StoredTokens
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.postgres.database import Store

integration_id, url = sys.argv[1:]
store = Store.open(load_settings(), migrate=False)
auth = OAuth2Refresh(StoredTokens(store, integration_id), f"{url}/token", client_id="app")
auth._token = auth._keeper.load()  # read while it was thought to be good
with HttpClient(AddressGuard(integration_id, restricted=False), auth=auth) as http:
    print("ready", flush=True)
    sys.stdin.readline()
    print(http.request("GET", f"{url}/data").status, flush=True)
store.close()
"""


def test_processes_that_notice_together_renew_once(store: Store, integration_id: str, api: Api) -> None:
    provider = Provider(api)
    variables = dagster_environment(store)
    arguments = [sys.executable, "-c", CALLER, integration_id, api.url]
    processes = [
        subprocess.Popen(arguments, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        outcomes = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [json.loads(outcome) for outcome in outcomes] == [200, 200, 200]
    assert len(provider.grants) == 1
