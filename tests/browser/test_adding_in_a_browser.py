"""The form of a new integration in a real browser: by keyboard, on a narrow screen, read aloud."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, expect

from churnguard_pipelines.store.control.api_keys import create_key
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.authorization import CLIENT_ID, CLIENT_SECRET, authorization_server
from tests.connectors.standin import StandIn, stand_in
from tests.connectors.toy import accounts
from tests.webhook_gateway.pages.form_toy import FormToy, site
from webhook_gateway.pages.new_integration import BACK

NEW = "/integrations/new"
OURS = ("data:", "http://127.0.0.1:")
SERIOUS = ("serious", "critical")


@pytest.fixture
def toy(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with accounts(store, monkeypatch, FormToy), stand_in() as api:
        api.says = {"/account": [{"id": "toy-1"}], "/contacts": [[]], "/deals": [(403, {"message": "no scope"})]}
        yield api


@pytest.fixture
def url(store: Store, page: Page, toy: StandIn) -> Iterator[str]:
    """Somebody is signed in there; nothing of it is an error, or comes from elsewhere."""
    said: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and "422" not in message.text:
            said.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: said.append(str(error)))
    with site(store) as address:
        page.on("request", lambda request: said.extend([request.url] * (not request.url.startswith(OURS))))
        page.goto(f"{address}/login?next={NEW}")
        page.get_by_label("API key").fill(create_key(store, "ada", actor="test"))
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Add an integration")).to_be_visible()
        yield address
    assert said == []


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in SERIOUS]


def test_a_person_adds_an_integration_by_keyboard(page: Page, url: str, toy: StandIn) -> None:
    assert serious(page) == []
    page.get_by_role("link", name="Toy CRM").press("Enter")
    page.get_by_label("API key").fill("canary-key")
    page.get_by_label("Organization").fill("acme")
    page.get_by_label("ID optional").fill("acme-toy")
    page.get_by_text("Settings", exact=True).press("Enter")
    page.get_by_label("Base URL optional").fill("nowhere")
    assert serious(page) == []
    page.get_by_label("Base URL optional").press("Enter")

    expect(page.get_by_role("alert")).to_contain_text("One field is wrong")
    wrong = page.get_by_label("Base URL optional")
    expect(wrong).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("API key")).to_have_value("")
    assert "canary-key" not in page.content(), "nobody is shown it again"
    assert serious(page) == []
    wrong.fill(toy.url)
    wrong.press("Enter")

    expect(page.get_by_role("row", name="deals")).to_contain_text("not readable")
    expect(page.get_by_role("row", name="deals")).to_contain_text("Grant it there.")
    assert serious(page) == []
    page.get_by_role("button", name="Save all the same").press("Enter")
    expect(page.get_by_text("It is added.")).to_be_visible()


def test_a_person_signs_in_at_the_provider(page: Page, url: str, toy: StandIn) -> None:
    with authorization_server(f"{url}{BACK}") as server:
        page.goto(f"{url}{NEW}/toy?way=sign_in")
        page.get_by_label("Client ID").fill(CLIENT_ID)
        page.get_by_label("Client secret").fill(CLIENT_SECRET)
        page.get_by_label("Sign in at").fill(server.url)
        page.get_by_label("Organization").fill("acme")
        page.get_by_text("Settings", exact=True).click()
        page.get_by_label("Base URL optional").fill(toy.url)
        page.get_by_role("button", name="Sign in at Toy CRM").click()
        assert serious(page) == []
        page.get_by_role("link", name="Go to Toy CRM").click()
        expect(page.get_by_text("Connected to toy-1")).to_be_visible()
        page.get_by_role("button", name="Save all the same").click()
        expect(page.get_by_text("It is added.")).to_be_visible()


def test_the_form_is_readable_on_a_telephone(page: Page, url: str, toy: StandIn) -> None:
    page.set_viewport_size({"width": 375, "height": 800})
    for path in (NEW, f"{NEW}/toy", f"{NEW}/salesforce?way=jwt_bearer", f"{NEW}/postgresql"):
        page.goto(f"{url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, path
