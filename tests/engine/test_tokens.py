"""OAuth 2 tokens of stored integrations: sealed, and renewed once whoever notices first, in any process."""

from __future__ import annotations

import json
import subprocess
import sys
from uuid import uuid4

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import OAuth2Refresh, Token
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.tokens import StoredTokens
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
