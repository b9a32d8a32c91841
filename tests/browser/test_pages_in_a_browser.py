"""Our pages in a real browser: for everybody, on every screen, with nothing from elsewhere, and up to date by
themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.store.control.api_keys import Role
from churnguard_pipelines.store.control.integrations import set_status
from tests.browser.conftest import PATIENCE_MILLISECONDS
from tests.conftest import Copied
from tests.webhook_gateway.pages.conftest import OPERATOR, Pages, context, opened
from tests.webhook_gateway.pages.scene import reject
from tests.webhook_gateway.pages.test_pages import EVERY
from webhook_gateway.dashboard.dagster_ui import PrincipalProcessContext

__all__ = ["context"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
GRAVE = ("serious", "critical")
PHONE, TABLET, DESK = ({"width": width, "height": 800} for width in (375, 768, 1280))
BEYOND = "[...document.querySelectorAll('.panel, .tile')].filter(each => each.scrollWidth > each.clientWidth).length"


@pytest.fixture(scope="module")
def pages(
    browser: Browser,
    copied: Copied,
    _template: str,
    context: PrincipalProcessContext,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pages]:
    with opened(copied, _template, context, tmp_path_factory) as made:
        yield made


@pytest.fixture
def window(browser: Browser, pages: Pages) -> Iterator[Callable[..., Page]]:
    """Opens a page, signed in; afterwards nothing was complained of, and nothing was asked of anybody else."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    hosts: set[str] = set()

    def open_(path: str, organization: str | None = OPERATOR, role: Role = Role.ADMIN, **options: object) -> Page:
        contexts.append(browser.new_context(**{"viewport": DESK, **options}))  # type: ignore[arg-type]
        contexts[-1].set_default_timeout(PATIENCE_MILLISECONDS)
        expect.set_options(timeout=PATIENCE_MILLISECONDS)
        page = contexts[-1].new_page()
        page.goto(f"{pages.url}/login?next={path}")
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.get_by_label("API key").fill(pages.key(organization, role))
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("main")).to_be_visible()
        return page

    yield open_
    for each in contexts:
        each.close()
    assert complaints == []
    assert hosts <= {urlsplit(pages.url).netloc}


@pytest.mark.parametrize(
    ("viewport", "scheme"), [(DESK, "light"), (TABLET, "light"), (PHONE, "dark")], ids=["desk", "tablet", "phone"]
)
def test_every_page_can_be_read_by_everybody_on_every_screen(
    window: Callable[..., Page], pages: Pages, viewport: dict[str, int], scheme: str
) -> None:
    """By axe-core's rules, and without scrolling sideways."""
    page, axe = window("/", viewport=viewport, color_scheme=scheme), Axe()
    for path in EVERY:
        page.goto(f"{pages.url}{path}")
        for details in page.locator("details").all()[:3]:
            details.locator("summary").click()
        assert grave(axe, page) == [], path
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= viewport["width"], path
        assert page.evaluate(BEYOND) == 0, f"{path}: something is wider than what it stands in"


def grave(axe: Axe, page: Page) -> list[tuple[str, str]]:
    found = axe.run(page).response["violations"]
    return [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in GRAVE]


def test_so_can_the_login(browser: Browser, pages: Pages) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
        page.goto(f"{pages.url}/login")
        assert grave(Axe(), page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_page_keeps_itself_up_to_date_and_leaves_what_one_opened_open(
    window: Callable[..., Page], pages: Pages
) -> None:
    page = window("/integrations/globex/rejected")
    page.get_by_text("Payload").first.click()
    expect(page.locator("pre").first).to_be_visible()
    reject(pages.store, "globex", "cus_new", "it has just come", {"id": "cus_new"})
    set_status(pages.store, "globex", IntegrationStatus.PAUSED, actor="test")
    expect(page.get_by_text("it has just come")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    expect(page.locator("details[open] pre")).to_be_visible()
    set_status(pages.store, "globex", IntegrationStatus.ACTIVE, actor="test")


def test_a_keyboard_is_enough(window: Callable[..., Page], pages: Pages) -> None:
    page = window("/integrations/globex")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    for name in ("Integrations", "globex", "Sync now"):
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text(name)
    while page.locator(":focus").inner_text() != "Pause":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("It is paused")
    page.get_by_role("button", name="Resume").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("It is active again")


def test_who_signed_out_elsewhere_is_led_to_the_login(window: Callable[..., Page], pages: Pages) -> None:
    page = window("/streams")
    page.context.clear_cookies()
    expect(page.get_by_label("API key")).to_be_visible()  # once the page asks again


def test_a_viewer_of_one_organization_sees_its_own_and_no_button(window: Callable[..., Page], pages: Pages) -> None:
    page = window("/", "acme", Role.VIEWER)
    expect(page.get_by_role("link", name="Acme's Stripe")).to_be_visible()
    expect(page.get_by_text("globex")).to_have_count(0)
    expect(page.get_by_role("link", name="Dagster")).to_have_count(0)
    page.get_by_role("link", name="Acme's Stripe").click()
    assert page.get_by_role("button").all_inner_texts() == ["Sign out"]
