"""Adding an integration on the page: made of what the connector declares, checked before it is saved."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from churnguard_pipelines.connectors import connectors
from churnguard_pipelines.connectors.sdk import Connector
from churnguard_pipelines.connectors.sdk.access import Access
from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import DataFilter
from churnguard_pipelines.store.control.api_keys import Role, create_key
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.authorization import CLIENT_ID, CLIENT_SECRET, authorization_server
from tests.connectors.standin import StandIn, stand_in
from tests.connectors.toy import accounts
from tests.webhook_gateway.api.conftest import key_of, noted, nowhere_in_the_database
from tests.webhook_gateway.pages.form_toy import FormToy, Person, draft_of, site, words
from webhook_gateway.pages.new_integration import BACK

NEW = "/integrations/new"
WAYS = [(kind, way) for kind in connectors() for way in kind.access]


@pytest.fixture
def toy(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A provider whose API lets everybody read; our registry has its connector."""
    with accounts(store, monkeypatch, FormToy), stand_in() as api:
        api.says = {"/account": [{"id": "toy-1"}], "/contacts": [[]], "/deals": [[]]}
        yield api


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    with site(store) as address:
        yield address


@pytest.fixture
def person(store: Store, url: str) -> Person:
    return Person(url, create_key(store, "ada", actor="test"))


def filled_in(api: StandIn, **fields: str | list[str]) -> dict[str, str | list[str]]:
    given: dict[str, str | list[str]] = {
        "way": "key", "api_key": "canary-key", "organization_id": "acme", "integration_id": "acme-toy",
        "integration_name": "Acme's toys", "base_url": api.url, "objects": ["contacts", "deals"],
    }  # fmt: skip
    return given | fields


def is_stored(store: Store, integration_id: str = "acme-toy") -> bool:
    try:
        get_integration(store, integration_id)
    except NotFound:
        return False
    return True


# --- the form


@pytest.mark.parametrize(("kind", "way"), WAYS, ids=[f"{kind.provider}-{way.name}" for kind, way in WAYS])
def test_every_way_in_that_a_connector_declares_has_a_form(person: Person, kind: type[Connector], way: Access) -> None:
    page = person.opens(f"{NEW}/{kind.provider}?way={way.name}")
    assert page.status_code == 200
    for entry in (*way.entries, *kind.settings):
        control = re.search(rf'<(input|select|textarea) [^>]*name="{entry.name}"[^>]*>', page.text)
        assert control, entry.name
        assert ('type="password"' in control[0] or control[1] == "textarea") or not entry.secret, "nobody looks over"
        assert ("required" in control[0]) == (not entry.optional and not entry.choices)


def test_the_providers_are_the_connectors_that_declare_a_way_in(person: Person, toy: StandIn) -> None:
    page = person.opens(NEW)
    assert "Toy CRM" in words(page)
    assert f"{NEW}/rest" not in page.text, "a rule is more than a form says"
    assert person.opens(f"{NEW}/rest").status_code == 422
    assert person.opens(f"{NEW}/nothing").status_code == 422


def test_what_is_missing_or_wrong_is_marked_and_the_secret_need_not_be_typed_again(
    person: Person, store: Store, toy: StandIn
) -> None:
    page = person.sends(f"{NEW}/toy", **filled_in(toy, organization_id="", sync_frequency="often", base_url="nowhere"))
    assert page.status_code == 422
    told = re.findall(r'id="(\w+)"[^>]*aria-invalid="true"', page.text)
    assert {"sync_frequency", "base_url"} <= set(told)
    assert "is needed" in words(page)
    assert 'value="often"' in page.text, "what is no secret stays in its field"
    again = filled_in(toy, api_key="", draft=draft_of(page))
    assert "Connected to toy-1" in words(person.sends(f"{NEW}/toy", **again))
    assert toy.asked, "with the key that was given at first"


def test_filters_and_mappings_are_what_a_file_has(person: Person, store: Store, toy: StandIn) -> None:
    filters = "\r\n  - field: stage\r\n    operator: in\r\n    value: [won, 3]\r\n  - {field: name, operator: exists}"
    mappings = "contacts: {plan.tier: tier}"
    page = person.sends(f"{NEW}/toy", **filled_in(toy, data_filters=filters, field_mappings=mappings))
    person.sends(f"{NEW}/drafts/{draft_of(page)}/save")
    stored = get_integration(store, "acme-toy").sync_config
    assert stored.data_filters == [
        DataFilter(field="stage", operator="in", value=["won", 3]), DataFilter(field="name", operator="exists"),
    ]  # fmt: skip
    assert stored.field_mappings == {"contacts": {"plan.tier": "tier"}}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("data_filters", "- {feld: stage}", "0.feld: there is no such field ( field is one)"),
        ("data_filters", "- {field: stage, operator: is}", "0.operator: Input should be 'eq'"),
        ("data_filters", "stage = won", "Input should be a valid list"),
        ("data_filters", "- {field: stage, value: .inf}", "more than JSON can say"),
        ("data_filters", "- &a {field: stage}\n- *a", "not YAML in line 2: aliases are not taken"),
        ("field_mappings", "contacts: {plan", "not YAML in line 1"),
        ("field_mappings", "contacts: tier", "contacts: Input should be a valid dictionary"),
        ("field_mappings", "!!python/object/apply:os.getcwd []", "not YAML in line 1"),
    ],
)
def test_a_wrong_filter_or_mapping_is_told_beside_its_field(
    person: Person, store: Store, toy: StandIn, name: str, text: str, said: str
) -> None:
    page = person.sends(f"{NEW}/toy", **filled_in(toy, **{name: text}))
    assert page.status_code == 422
    assert re.findall(r'id="(\w+)"[^>]*aria-invalid="true"', page.text) == [name]
    assert said in words(page)


def test_a_field_has_room_for_the_certificates_of_a_cloud_s_authorities(person: Person, toy: StandIn) -> None:
    line = "MIID/jCCAuagAwIBAgIQdOCSuA9psBpQd8EI368/0DANBgkqhkiG9w0BAQsFADCB\r\n"  # escaped in a form: / and +
    page = person.sends(f"{NEW}/toy", **filled_in(toy, remarks=2500 * line))
    assert "Connected to toy-1" in words(page)
    assert person.sends(f"{NEW}/toy", **filled_in(toy, remarks=25_000 * line)).status_code == 413


# --- the check, and saving


def test_the_check_s_result_is_seen_object_by_object_before_anything_is_saved(
    person: Person, store: Store, toy: StandIn
) -> None:
    toy.says["/deals"] = [(403, {"message": "no scope"})]
    page = person.sends(f"{NEW}/toy", **filled_in(toy))
    assert "Connected to toy-1" in words(page)
    assert re.search(r"contacts readable .*deals not readable .*Grant it there", words(page))
    assert "Save all the same" in words(page)
    assert not is_stored(store)

    saved = person.sends(f"{NEW}/drafts/{draft_of(page)}/save")
    assert saved.url.path == "/integrations/acme-toy"
    stored = get_integration(store, "acme-toy")
    assert stored.credentials.api_key is not None
    assert stored.credentials.api_key.get_secret_value() == "canary-key"
    assert stored.sync_config.objects is None, "all that there are, and what the account adds"
    assert stored.configured_by == "operator"
    nowhere_in_the_database(store, "canary-key")
    assert person.sends(f"{NEW}/drafts/{draft_of(page)}/save").status_code == 422, "a draft is saved once"


def test_refused_credentials_are_told_in_the_form_and_nothing_is_saved(
    person: Person, store: Store, toy: StandIn
) -> None:
    toy.says["/account"] = [(401, {"message": "unknown key"})]
    page = person.sends(f"{NEW}/toy", **filled_in(toy))
    assert page.status_code == 422
    assert "refuse" in words(page)
    assert person.sends(f"{NEW}/drafts/{draft_of(page)}/save").status_code == 422
    assert not is_stored(store)


def test_what_was_filled_in_can_be_changed_after_the_check(person: Person, store: Store, toy: StandIn) -> None:
    page = person.sends(
        f"{NEW}/toy", **filled_in(toy, objects=["contacts"], remarks="one\r\ntwo", sync_frequency="900")
    )
    draft = draft_of(page)
    form = person.opens(f"{NEW}/toy?way=key&draft={draft}")
    assert 'value="900"' in form.text
    assert "one\ntwo</textarea>" in form.text
    assert "Kept as it was given" in form.text
    assert re.search(r'value="contacts" checked', form.text)
    assert not re.search(r'value="deals" checked', form.text)
    person.sends(f"{NEW}/toy", **filled_in(toy, api_key="", draft=draft, objects=["deals"], integration_name="Toys"))
    person.sends(f"{NEW}/drafts/{draft}/save")
    stored = get_integration(store, "acme-toy")
    assert (stored.integration_name, stored.sync_config.objects) == ("Toys", ["deals"])
    assert stored.sync_config.sync_frequency == 3600


# --- signing in


@pytest.fixture
def signed_in(person: Person, url: str, toy: StandIn) -> Iterator[httpx.Response]:
    """The page on which somebody comes back from the provider's."""
    with authorization_server(f"{url}{BACK}") as server:
        app = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "sign_in_at": server.url}
        page = person.sends(f"{NEW}/toy", **filled_in(toy, way="sign_in", api_key="", **app))
        assert f"{url}{BACK}" in words(page), "it has to be registered there"
        link = re.search(r'href="([^"]+/authorize[^"]+)"', page.text)
        assert link is not None
        yield person.opens(link[1].replace("&amp;", "&"))


def test_a_person_signs_in_at_the_provider_s_page(signed_in: httpx.Response, person: Person, store: Store) -> None:
    assert "Connected to toy-1" in words(signed_in)
    assert "code=" not in str(signed_in.url), "nor is it in the history"
    assert not is_stored(store)
    person.sends(f"{NEW}/drafts/{draft_of(signed_in)}/save")
    token = get_integration(store, "acme-toy").credentials.access_token
    assert token is not None
    assert token.get_secret_value() == "canary-access"
    for secret in (CLIENT_SECRET, "canary-access", "canary-refresh"):
        nowhere_in_the_database(store, secret)


def test_a_sign_in_ends_once_and_only_in_the_browser_that_began_it(
    signed_in: httpx.Response, person: Person, store: Store, url: str
) -> None:
    back = str(signed_in.history[-1].url)
    assert BACK in back
    assert "no sign-in is under way" in words(person.opens(back))
    other = Person(url, create_key(store, "eve", actor="test"))
    assert "the login is another" in words(other.opens(back))
    assert "the login is another" in words(other.sends(f"{NEW}/drafts/{draft_of(signed_in)}/save"))


def test_the_answer_to_another_sign_in_brings_nothing(person: Person, url: str, toy: StandIn, store: Store) -> None:
    with authorization_server(f"{url}{BACK}") as server:
        app = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "sign_in_at": server.url}
        page = person.sends(f"{NEW}/toy", **filled_in(toy, way="sign_in", api_key="", **app))
        came = person.opens(f"{BACK}?code=stolen&state={draft_of(page)}.another")
        assert "its state is not ours" in words(came)
        assert server.asked == []


# --- who may what


def test_a_viewer_adds_nothing(store: Store, url: str, toy: StandIn) -> None:
    viewer = Person(url, create_key(store, "vic", actor="test", role=Role.VIEWER))
    assert viewer.opens(NEW).status_code == 403
    assert viewer.sends(f"{NEW}/toy", **filled_in(toy)).status_code == 403
    assert toy.asked == []


def test_an_organization_adds_its_own_at_public_addresses_and_chooses_no_id(
    store: Store, url: str, toy: StandIn
) -> None:
    key = key_of(store, "acme")
    tenant = Person(url, key)
    assert 'name="organization_id"' not in tenant.opens(f"{NEW}/toy").text
    inside = tenant.sends(f"{NEW}/toy", **filled_in(toy, organization_id="globex"))
    assert inside.status_code == 422
    assert "no host with a public address" in words(inside)
    assert toy.asked == []
    assert noted(store, key, "acme-toy") == []


def test_another_site_s_page_cannot_send_the_form(store: Store, url: str, toy: StandIn) -> None:
    with httpx.Client(base_url=url, headers={"Origin": url, "Sec-Fetch-Site": "same-origin"}) as browser:
        browser.post("/login", data={"key": create_key(store, "ada", actor="test")})
        answer = browser.post(f"{NEW}/toy", data=filled_in(toy), headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert toy.asked == []
