"""The demo as who starts it meets it for the first time: one screen, links that lead somewhere, and what somebody sees
and does on the day on which a key is refused."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from churnguard_pipelines.ports import free_port
from tests.browser.conftest import PATIENCE_MILLISECONDS
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("services")]
CHURNGUARD = "import sys; from churnguard_pipelines.cli import main; sys.argv[0] = 'churnguard'; main()"
STARTS_WITHIN, STOPS_WITHIN = 400.0, 60.0
SCREEN = 30  # lines
WIDE, SHARPNESS = 1280, 1000 / 1280
"""A desktop's page, in a picture that a document shows as it is."""
Picture = Callable[[str], None]


@dataclass(frozen=True)
class Demo:
    """``screen``: the lines that it printed until everything ran."""

    folder: Path
    environment: dict[str, str]
    screen: list[str]

    def told(self, name: str) -> str:
        """The address, key or command that the screen shows under this name."""
        [line] = [line for line in self.screen if line.startswith(f"  {name} ")]
        return line.removeprefix(f"  {name} ").split()[0]

    @property
    def url(self) -> str:
        return self.told("Overview").rstrip("/")


@pytest.fixture(scope="module")
def demo(browser: Browser) -> Iterator[Demo]:
    folder = Path(tempfile.mkdtemp(prefix="churnguard-demo-"))
    folder.chmod(0o755)
    ports = {"DASHBOARD_PORT": str(free_port()), "WEBHOOK_SERVER_PORT": str(free_port())}
    often = {"DASHBOARD_UPDATE_INTERVAL": "5"}
    ours = ("CHURNGUARD_", "INTEGRATION_", "DASHBOARD_", "WEBHOOK_", "DAGSTER_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | ports | often
    before = psutil.Process().children(recursive=True)
    printed = folder / "screen"
    with printed.open("wb") as screen:
        process = subprocess.Popen(
            [sys.executable, "-c", CHURNGUARD, "demo"],
            cwd=folder, env=environment | {"COLUMNS": "120"}, stdout=screen, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for(lambda: "  Commands " in printed.read_text() or process.poll() is not None, STARTS_WITHIN)
        assert process.poll() is None, printed.read_text()
        yield Demo(folder, environment, [line for line in printed.read_text().splitlines() if line.strip()])
        process.send_signal(signal.SIGINT)  # as Ctrl-C does
        assert process.wait(STOPS_WITHIN) == 0, printed.read_text()
        left = [each for each in psutil.Process().children(recursive=True) if each not in before]
        _, left = psutil.wait_procs(left, timeout=1)
        living = [each for each in left if each.status() != psutil.STATUS_ZOMBIE and each.name() != "chromium"]
        assert living == [], "nothing outlives it"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def page(browser: Browser, demo: Demo) -> Iterator[Page]:
    """Signed in with the key of the screen. Nothing of what it sees is an error."""
    said: list[str] = []
    context = browser.new_context(viewport={"width": WIDE, "height": 800}, device_scale_factor=SHARPNESS)
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    page = context.new_page()
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{demo.url}/login")
    page.get_by_label("API key").fill(demo.told("Key"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Integrations")).to_be_visible()
    yield page
    context.close()
    assert said == []


def test_its_screen_says_what_came_in_and_that_it_agrees(demo: Demo) -> None:
    assert len(demo.screen) <= SCREEN, demo.screen
    words = " ".join(" ".join(demo.screen).split())
    assert re.search(r"Synced in \d+ s", words)
    assert words.count("the services stay root's") <= 1
    for source in ("Stripe acme", "Stripe globex", "Product database acme", "Salesforce acme", "HubSpot globex",
                   "Mailchimp acme", "SendGrid acme", "Survey tool, by a rule acme"):  # fmt: skip
        assert re.search(
            rf"{source} \d+ [\d,]+ (as many =|[\d,]+ newer by now|which does not count|it is changing)", words
        )
    for agreed, months in re.findall(r"of (\d+) months (\d+) agree with the business's own books", words):
        assert int(months) >= int(agreed) - 1, "the month under way moves"
    assert words.count("agree with the business's own books") == 2


def test_a_second_one_says_where_the_first_is(demo: Demo) -> None:
    second = subprocess.run(
        [sys.executable, "-c", CHURNGUARD, "demo"],
        cwd=demo.folder, env=demo.environment | {"COLUMNS": "500"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert f"a demo runs already, in {demo.folder / '.churnguard-demo'}." in second.stderr
    assert f"Open {demo.url}/ (the key to sign in is in " in second.stderr


def test_its_links_lead_to_what_they_name(demo: Demo, page: Page, picture: Picture) -> None:
    page.goto(demo.told("MRR chart"))
    expect(page.get_by_text("mrr_movements").first).to_be_visible()
    page.goto(demo.told("API"))
    expect(page.get_by_role("heading", name="ChurnGuard")).to_be_visible()
    page.goto(demo.url)
    expect(page.get_by_role("link", name="Salesforce (simulated)")).to_be_visible()


def test_an_integration_and_its_revenue_are_looked_at(demo: Demo, page: Page, picture: Picture) -> None:
    page.goto(f"{demo.url}/integrations/acme")
    expect(page.get_by_role("table", name="Its objects").get_by_role("row", name="invoices")).to_contain_text(
        "succeeded"
    )
    page.set_viewport_size({"width": WIDE, "height": 1050})
    picture("integration")
    page.goto(f"{demo.url}/organizations/acme")
    expect(page.get_by_role("img", name=re.compile("^MRR from .* USD at the end")).first).to_be_visible()
    page.set_viewport_size({"width": WIDE, "height": 759})
    picture("revenue")


def test_whose_key_is_refused_is_first_with_the_remedy_and_well_again_with_a_right_one(
    demo: Demo, page: Page, picture: Picture
) -> None:
    def key(value: str) -> None:
        changed = {"credentials": {"credential_type": "api_key", "api_key": value}}
        bearer = {"Authorization": f"Bearer {demo.told('Key')}"}
        answer = httpx.patch(f"{demo.url}/api/integrations/globex", json=changed, headers=bearer, timeout=60)
        assert answer.is_success, answer.text

    key("rk_sandbox_nobody")
    page.goto(f"{demo.url}/integrations/globex")
    page.get_by_role("button", name="Sync now").click()
    expect(page.get_by_role("heading", name="Needs somebody")).to_be_visible()
    page.goto(demo.url)
    first = page.get_by_role("table").locator("tbody tr").first
    expect(first).to_contain_text("globex")
    expect(first).to_contain_text("authentication failed")
    expect(page.locator("#urgent")).to_contain_text("churnguard integrations add FILE.yaml --replace")
    page.set_viewport_size({"width": WIDE, "height": 1220})
    picture("overview")

    key("rk_sandbox_globex")
    page.goto(f"{demo.url}/integrations/globex")
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("button", name="Sync now").click()
    expect(page.get_by_role("table", name="The latest syncs, newest first").locator("tbody tr").first).to_contain_text(
        "succeeded"
    )
    expect(page.get_by_role("heading", name="Needs somebody")).to_have_count(0)
