"""Signing in by the form at the simulated Salesforce and HubSpot: from the button to a stored integration."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from churnguard_pipelines.sandbox.serve import Sandbox, serve
from churnguard_pipelines.store.control.api_keys import create_key
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from tests.cli.test_authorize import APPS
from tests.webhook_gateway.pages.form_toy import Person, draft_of, site, words

NEW = "/integrations/new"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with serve(tmp_path_factory.mktemp("world"), scale=0.02) as served:
        yield served


@pytest.mark.parametrize(
    ("provider", "title", "object_"), [("salesforce", "Salesforce", "Account"), ("hubspot", "HubSpot", "companies")]
)
def test_a_person_signs_in_at_the_provider_and_sees_what_may_be_read(
    store: Store, sandbox: Sandbox, provider: str, title: str, object_: str
) -> None:
    client_id, secret = APPS[provider]
    with site(store) as url:
        person = Person(url, create_key(store, "ada", actor="test"))
        form = person.opens(f"{NEW}/{provider}?way=sign_in")
        assert f'<button class="first">Sign in at {title}</button>' in form.text
        page = person.sends(
            f"{NEW}/{provider}", way="sign_in", organization_id="acme", integration_id="acme-crm",
            integration_name="Acme's CRM", base_url=sandbox.url, client_id=client_id, client_secret=secret,
            objects=[object_],
        )  # fmt: skip
        link = re.search(r'href="([^"]+/authorize[^"]+)"', page.text)
        assert link is not None, words(page)
        back = person.opens(link[1].replace("&amp;", "&"))
        assert back.url.path.startswith(f"{NEW}/drafts/"), words(back)
        assert f"{object_} readable" in words(back)
        assert secret not in back.text
        assert "It is added" in words(person.sends(f"{NEW}/drafts/{draft_of(back)}/save"))
    kept = get_integration(store, "acme-crm").credentials
    assert kept.access_token is not None
    assert kept.refresh_token is not None
