"""A running installation, and Debian's Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from churnguard_pipelines.model import IntegrationCredentials, Organization, SyncConfiguration
from churnguard_pipelines.orchestration.processes.children import SyncProcess, SyncRequest
from churnguard_pipelines.orchestration.processes.services import Services
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.sandbox.serve import serve
from churnguard_pipelines.store.control.api_keys import Role, create_key
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration, settings_for

PATIENCE_MILLISECONDS = 90_000
NO_BROWSER = "There is no chromium. On Debian: apt-get install chromium"


class Installation:
    """One organization whose Stripe is synced, Dagster and everything around it."""

    def __init__(self, store: Store, services: Services) -> None:
        self._store = store
        self.url = services.url.removesuffix("/dashboard")

    def key(self, role: Role = Role.ADMIN) -> str:
        """An operator's."""
        return create_key(self._store, f"a browser's {role}", actor="test", role=role)

    def syncs(self) -> dict[str, str]:
        """Dagster's runs of the sync: the status of each."""
        database = self._store.dagster_database_url.replace("postgresql+psycopg2://", "postgresql://")
        with psycopg.connect(database) as connection:
            found = connection.execute("SELECT run_id, status FROM runs WHERE pipeline_name = 'stripe_sync'")
            return dict(found.fetchall())


# Playwright's event loop runs in this thread until it is stopped, and other modules' tests start their own: so all of
# this lives for a module.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(NO_BROWSER)
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]  # root's does not start otherwise
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def installation(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = Path(tempfile.mkdtemp(prefix="churnguard-browser-"))
    home.chmod(0o755)
    settings = settings_for(home).model_copy(update={"dashboard_port": free_port(), "webhook_port": free_port()})
    store = Store.open(settings)
    before = psutil.Process().children(recursive=True)
    with serve(tmp_path_factory.mktemp("sandbox"), scale=0.02) as sandbox:
        add_organization(store, Organization(organization_id="acme", name="Acme Analytics"), actor="test")
        credentials = {"credential_type": "api_key", "api_key": "rk_sandbox_acme"}
        add_integration(
            store,
            configuration(
                "acme",
                base_url=sandbox.url,
                credentials=IntegrationCredentials.model_validate(credentials),
                # not due within the test: what runs is what the test asks for
                sync_config=SyncConfiguration(requests_per_minute=60_000, sync_frequency=86_400),
            ),
            actor="test",
        )
        services = Services(store)
        try:
            first = SyncProcess(store, SyncRequest("acme"))
            first.wait()
            assert first.report().status == "succeeded", first.report()
            services.start()
            yield Installation(store, services)
        finally:
            started = [each for each in psutil.Process().children(recursive=True) if each not in before]
            services.stop()
            _, left = psutil.wait_procs(started, timeout=1)
            # zombies only wait for init, and the browser keeps a process ready for its next page
            living = [each for each in left if each.status() != psutil.STATUS_ZOMBIE and each.name() != "chromium"]
            store.close()
            shutil.rmtree(home, ignore_errors=True)
            assert living == [], "nothing outlives a stop"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new one, without a login."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    yield context.new_page()
    context.close()


@pytest.fixture
def picture(page: Page) -> Callable[[str], None]:
    """Keeps what the page shows, for the documentation, in the folder that CHURNGUARD_SCREENSHOTS names."""

    def taken(name: str) -> None:
        if folder := os.environ.get("CHURNGUARD_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{name}.png", animations="disabled")

    return taken
