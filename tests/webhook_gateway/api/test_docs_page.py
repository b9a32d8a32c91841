"""The API's own description in the browser: every file comes from us."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from urllib.parse import urljoin

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.store.control.api_keys import create_key
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.api.app import create_api
from webhook_gateway.dashboard.authentication import Authentication
from webhook_gateway.dashboard.edge import Edge

PAGE = "http://ours/api/docs"
NAMED = re.compile(r"""(?:src|href)="([^"]+)"|url: "([^"]+)\"""")
Fetch = Callable[..., httpx.Response]


@pytest.fixture
def fetch(store: Store) -> Iterator[Fetch]:
    """Mounted where browsers find it."""
    engine = IntegrationEngine(store.settings)
    app = Edge(Authentication(Starlette(routes=[Mount("/api", create_api(engine))]), store), secure=False)
    key = create_key(store, "operator", actor="test")

    def fetched(url: str, **headers: str) -> httpx.Response:
        async def go() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
                return await client.get(url, headers=headers or {"Authorization": f"Bearer {key}"})

        return asyncio.run(go())

    yield fetched
    asyncio.run(engine.close())


def test_the_page_and_all_that_it_names_come_from_us(fetch: Fetch) -> None:
    page = fetch(PAGE)
    start = fetch(urljoin(PAGE, "docs/start.js"))
    named = [urljoin(PAGE, "".join(each)) for each in NAMED.findall(page.text + start.text)]
    named.remove("data:,")
    assert sorted(url.removeprefix("http://ours/api/") for url in named) == [
        "docs/assets/swagger-ui-bundle.js", "docs/assets/swagger-ui.css", "docs/start.js", "openapi.json",
    ]  # fmt: skip
    for url in named:
        assert fetch(url).status_code == 200, url
    assert "//" not in page.text + start.text, "no other host"


def test_every_call_is_described_in_a_sentence_and_says_how_one_signs_in(fetch: Fetch) -> None:
    described = fetch("http://ours/api/openapi.json").json()
    for path, operations in described["paths"].items():
        for verb, operation in operations.items():
            assert operation.get("description", "").endswith((".", "`")), (verb, path)
            assert operation["security"] == [{"API key": []}], (verb, path)
    scheme = described["components"]["securitySchemes"]["API key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert "churnguard api-keys create" in scheme["description"]


def test_the_browser_is_told_to_run_nothing_else(fetch: Fetch) -> None:
    page = fetch(PAGE)
    policy = dict(each.strip().partition(" ")[::2] for each in page.headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
    assert not re.search(r"<script(?![^>]* src=)", page.text), "an inline script would not run"


def test_it_is_behind_the_door(fetch: Fetch) -> None:
    for path in ("docs", "docs/start.js", "docs/assets/swagger-ui.css"):
        assert fetch(f"http://ours/api/{path}", Accept="*/*").status_code == 401


def test_what_is_tried_from_the_page_goes_where_the_api_is(fetch: Fetch) -> None:
    assert fetch("http://ours/api/openapi.json").json()["servers"] == [{"url": "/api"}]
