"""A portal of one's own, without limits, and a client with its token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from churnguard_pipelines.sandbox.hubspot.handle import PortalHandle
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from tests.sandbox.conftest import ANCHOR


@pytest.fixture
def portal(sandbox: Sandbox) -> PortalHandle:
    handle = sandbox.hubspot("acme")
    handle.unlimited()
    return handle


@pytest.fixture
def api(sandbox: Sandbox, portal: PortalHandle) -> Iterator[httpx.Client]:
    with hubspot(sandbox, portal.token) as client:
        yield client


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a portal that nobody changes."""
    with serve(tmp_path_factory.mktemp("hubspot"), seed=7, anchor=ANCHOR, scale=0.02) as served:
        handle = served.hubspot("acme")
        handle.unlimited()
        with hubspot(served, handle.token) as client:
            yield client


def hubspot(sandbox: Sandbox, token: str, **options: Any) -> httpx.Client:
    return httpx.Client(base_url=sandbox.url, headers={"authorization": f"Bearer {token}"}, **options)


def read_all(api: httpx.Client, path: str, **parameters: object) -> list[dict[str, Any]]:
    """Every result of a list, page by page."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = dict(parameters)
    while True:
        answer = api.get(path, params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["results"]
        if "paging" not in page:
            return found
        query["after"] = page["paging"]["next"]["after"]


def search(api: httpx.Client, type: str, *filters: dict[str, Any], **query: Any) -> httpx.Response:
    """One page of a search with one group of filters."""
    groups = [{"filters": list(filters)}] if filters else []
    return api.post(f"/crm/v3/objects/{type}/search", json={"filterGroups": groups, "limit": 200, **query})


def where(name: str, operator: str, value: object = None, **more: object) -> dict[str, Any]:
    return {"propertyName": name, "operator": operator, **({} if value is None else {"value": str(value)}), **more}
