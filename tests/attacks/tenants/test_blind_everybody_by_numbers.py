"""A tenant's provider answers with numbers that nobody can reckon with: no dashboard or schedule of others stops."""

from __future__ import annotations

import pytest

from churnguard_pipelines.errors import ProviderUnavailable, RateLimited
from churnguard_pipelines.model import Organization
from churnguard_pipelines.monitoring.monitor import take_picture
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.ingest.due import due_integrations
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import opened
from tests.conftest import configuration
from tests.engine.loopback import Answer, serve

pytestmark = pytest.mark.timeout(120)


@pytest.mark.usefixtures("organization")
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("pause", ["999999999999", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_pause_until_the_end_of_time(store: Store, status: int, pause: str) -> None:
    """In a year with five digits, which Python cannot read from the database: that was everybody's monitoring."""
    add_organization(store, Organization(organization_id="evil", name="Evil Corp."), actor="test")
    with serve() as provider:
        provider.answers = [Answer(status, headers={"Retry-After": pause})]
        evil = configuration("evil-stripe", organization_id="evil", base_url=provider.url)
        add_integration(store, evil, actor="test")
        for _ in range(2):  # the second reads what the first has stored
            with opened(store, evil) as use, pytest.raises((RateLimited, ProviderUnavailable)):
                use.http.request("GET", f"{provider.url}/v1/account")
    add_integration(store, configuration("acme-stripe"), actor="test")
    assert {each.vitals.integration_id for each in take_picture(store).integrations} == {"evil-stripe", "acme-stripe"}
    assert "acme-stripe" in {each.integration_id for each in due_integrations(store, "stripe", store.now())}
