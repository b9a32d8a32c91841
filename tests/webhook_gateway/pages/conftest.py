"""Our pages as somebody at a browser reaches them, with something to see on them. It lives for a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import pytest

from churnguard_pipelines.sandbox.serve import serve
from churnguard_pipelines.store.control.api_keys import Role, create_key
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import Copied, settings_for
from tests.shelf import shelves_up
from tests.webhook_gateway.dashboard.conftest import HTML, bearer, context, engine_on, served
from tests.webhook_gateway.pages import scene
from webhook_gateway.dashboard.app import create_app
from webhook_gateway.dashboard.dagster_ui import PrincipalProcessContext

__all__ = ["context", "pages"]
OPERATOR = None


class Pages:
    """A filled installation. Asks as browsers do, with the key of whom it is told: by default an operator, who may
    write."""

    def __init__(self, url: str, store: Store) -> None:
        self.url, self.store = url, store
        self._client = httpx.Client(base_url=url, headers={**HTML, "Origin": url, "Sec-Fetch-Site": "same-origin"})
        self._keys: dict[tuple[str | None, Role], str] = {}

    def key(self, organization: str | None = OPERATOR, role: Role = Role.ADMIN) -> str:
        if (organization, role) not in self._keys:
            made = create_key(
                self.store, f"{organization}'s {role}", actor="test", organization_id=organization, role=role
            )
            self._keys[organization, role] = made
        return self._keys[organization, role]

    def get(
        self, path: str, organization: str | None = OPERATOR, role: Role = Role.ADMIN, cookie: str = ""
    ) -> httpx.Response:
        headers = bearer(self.key(organization, role)) | ({"Cookie": cookie} if cookie else {})
        return self._client.get(path, headers=headers, timeout=60)

    def post(
        self, path: str, organization: str | None = OPERATOR, role: Role = Role.ADMIN, **form: str
    ) -> httpx.Response:
        """As a button does; not what it leads to."""
        return self._client.post(path, data=form, headers=bearer(self.key(organization, role)), timeout=60)

    def said(self, path: str, organization: str | None = OPERATOR, **form: str) -> str:
        """A button's form sent, and the page that it leads to."""
        answer = self.post(path, organization, Role.ADMIN, **form)
        assert answer.status_code == 303, answer.text
        return self.get(answer.headers["location"], organization).text

    @contextmanager
    def signed_in(self) -> Iterator[httpx.Client]:
        """A browser with an operator's cookie."""
        with httpx.Client(base_url=self.url) as browser:
            same_site = {"Origin": self.url, "Sec-Fetch-Site": "same-origin"}
            assert browser.post("/login", data={"key": self.key()}, headers=same_site).status_code == 303
            yield browser

    def close(self) -> None:
        self._client.close()


@contextmanager
def opened(
    copied: Copied, template: str, context: PrincipalProcessContext, factory: pytest.TempPathFactory
) -> Iterator[Pages]:
    with (
        copied(template) as url,
        closing(Store.open(settings_for(factory.mktemp("home"), url))) as store,
        serve(factory.mktemp("sandbox"), scale=0.02) as sandbox,
        shelves_up(factory),
    ):
        scene.fill(store, sandbox)
        with (
            served(create_app(engine_on(store), context, secure=False)) as address,
            closing(Pages(address, store)) as made,
        ):
            yield made


@pytest.fixture(scope="module")
def pages(
    copied: Copied, _template: str, context: PrincipalProcessContext, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pages]:
    with opened(copied, _template, context, tmp_path_factory) as made:
        yield made
