"""The dashboard as people use it: our pages and Dagster's own UI behind our login, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from churnguard_pipelines.store.control.api_keys import Role
from tests.browser.conftest import Installation

JOB = "/dashboard/locations/churnguard/jobs/stripe_sync"
GRAPH = "/dashboard/locations/__repository__@churnguard/asset-groups/stripe"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("services")]
Picture = Callable[[str], None]


def test_people_sign_in_with_a_key_and_land_on_the_overview(
    installation: Installation, page: Page, picture: Picture
) -> None:
    page.goto(installation.url)
    expect(page).to_have_url(re.compile("/login"))
    expect(page.get_by_label("API key")).to_be_focused()
    picture("login")
    sign_in(page, installation.key())
    expect(page.get_by_role("heading", name="Integrations")).to_be_visible()
    page.get_by_role("link", name="Dagster").click()
    expect(page).to_have_url(re.compile("/dashboard/"))
    expect(page.get_by_role("link", name="Overview")).to_be_visible()


def test_a_sync_is_started_on_our_page_watched_there_and_found_in_dagster(
    installation: Installation, page: Page
) -> None:
    opened(page, installation, "/integrations/acme", installation.key())
    before = installation.syncs()
    syncs = page.get_by_role("table", name="The latest syncs, newest first").locator("tbody tr")
    expect(syncs).to_have_count(1)
    page.get_by_role("button", name="Sync now").click()
    expect(page.get_by_role("status")).to_contain_text("A sync")
    expect(syncs).to_have_count(2)
    expect(syncs.first).to_contain_text("succeeded")  # without anybody loading the page again
    syncs.first.get_by_role("link").click()
    expect(page.get_by_role("table", name="By object")).to_contain_text("customers")
    [run_id] = installation.syncs().keys() - before.keys()
    page.get_by_role("link", name=run_id).click()
    expect(page).to_have_url(re.compile(f"/dashboard/runs/{run_id}"))
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    page.goto(f"{installation.url}/integrations/acme")
    page.get_by_role("link", name="invoices", exact=True).click()
    expect(page).to_have_url(re.compile("/dashboard/assets/stripe/invoices.*partition=acme"))
    expect(page.get_by_text("acme", exact=True).first).to_be_visible()


def test_the_asset_graph_shows_what_is_there(installation: Installation, page: Page, picture: Picture) -> None:
    opened(page, installation, GRAPH, installation.key())
    for name in ("invoice_items", "invoices", "payment_intents"):  # the graph draws those in view
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    expect(page.get_by_text("100% filled").nth(2)).to_be_visible()
    expect(page.get_by_text("Loading")).to_have_count(0)
    picture("asset-graph")


def test_a_sync_is_started_from_dagster_s_ui(installation: Installation, page: Page, picture: Picture) -> None:
    before = installation.syncs()
    opened(page, installation, JOB, installation.key())
    materialize(page).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="All", exact=True).click()
    expect(dialog).to_contain_text("acme")
    dialog.get_by_role("button", name="Launch 1 run").click()
    page.get_by_role("region", name="Notifications").get_by_role("link", name="View").click()
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    new = installation.syncs().items() - before.items()
    assert [(status, run_id in page.url) for run_id, status in new] == [("SUCCESS", True)]
    expect(page.get_by_text("stripe_objects", exact=True).first).to_have_attribute("style", re.compile("green"))
    picture("run")


def test_a_viewer_looks_and_starts_nothing(installation: Installation, page: Page, picture: Picture) -> None:
    before = installation.syncs()
    opened(page, installation, JOB, installation.key(Role.VIEWER))
    expect(page.get_by_text("100% filled").first).to_be_visible()
    for _ in range(2):  # drawn once more, now that the panel beside it is there: it is in the middle
        page.get_by_text("View as Asset Graph").click()
    expect(page.get_by_text("100% filled").first).to_be_visible()
    expect(materialize(page)).to_be_disabled()
    materialize(page).click(force=True)
    materialize(page).hover()
    expect(page.get_by_text("You do not have permission to materialize assets for this job")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
    picture("refused")
    assert installation.syncs() == before


def test_the_api_s_page_is_all_ours(installation: Installation, page: Page) -> None:
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    opened(page, installation, "/api/docs", installation.key())
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.reload()
    page.locator("#operations-integrations-list__integrations_get").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text('"integration_id": "acme"')
    assert hosts - {""} == {urlsplit(installation.url).netloc}
    assert complaints == [], "the Content-Security-Policy refused something"


def test_dagster_s_pages_work_without_anything_from_elsewhere(installation: Installation, page: Page) -> None:
    """A picture in somebody's text would tell its server who looks at what."""
    hosts: set[str] = set()
    complaints: list[str] = []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("console", lambda message: complaints.append(message.text))
    opened(page, installation, GRAPH, installation.key())
    expect(page.get_by_text("100% filled").first).to_be_visible()
    for path in ("/dashboard/overview", "/dashboard/runs", "/dashboard/deployment", JOB, "/dashboard/assets"):
        page.goto(f"{installation.url}{path}")
        page.wait_for_load_state("networkidle")
    assert [each for each in complaints if "Content Security Policy" in each] == []
    assert hosts - {""} == {urlsplit(installation.url).netloc}
    refused = page.evaluate(
        """source => new Promise(resolve => {
            document.addEventListener("securitypolicyviolation", event => resolve(event.effectiveDirective));
            document.body.append(Object.assign(new Image(), {src: source}));
        })""",
        "http://127.0.0.1:9/leak.png",
    )
    assert refused == "img-src"
    hosts.clear()
    page.goto(f"{installation.url}/dashboard/graphql")
    expect(page.locator(".graphiql-container")).to_be_visible()
    assert hosts - {""} == {urlsplit(installation.url).netloc}


def opened(page: Page, installation: Installation, path: str, key: str) -> None:
    """A page, signed in."""
    page.goto(f"{installation.url}/login")
    sign_in(page, key)
    expect(page.get_by_role("heading", name="Integrations")).to_be_visible()
    page.goto(f"{installation.url}{path}")


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def materialize(page: Page) -> Locator:
    return page.get_by_role("button", name="Materialize all")
