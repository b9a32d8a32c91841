"""An organization's key on our pages: every path that names something of another, to look at and to change.

Every route of the pages is tried, so one that is added later is, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from churnguard_pipelines.store.control.api_keys import Role
from tests.webhook_gateway.pages.conftest import Pages, context, pages
from tests.webhook_gateway.pages.scene import HOSTILE
from webhook_gateway.pages.app import PAGES

__all__ = ["context", "pages"]

OF_GLOBEX = {
    "integration_id": "globex", "stream_id": "globex-clicks", "organization_id": "globex",
    "sync_id": "00000000-0000-4000-8000-000000000002",
}  # fmt: skip
WORDS = ("globex", "Globex")


def routes() -> Iterator[tuple[str, str]]:
    """Method and path of each, with Globex's ids in it."""
    for module in PAGES:
        for route in module.router.routes:
            assert isinstance(route, APIRoute)
            for method in route.methods or ():
                yield method, route.path.format_map(_Ids())


class _Ids(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return OF_GLOBEX.get(name, "globex")


ADDING = "/integrations/new"
"""Where ids are of providers, and of drafts, which are a login's own."""
LOOKED_AT = sorted({path for method, path in routes() if method == "GET" and not path.startswith(ADDING)})
CHANGED_BY = sorted({path for method, path in routes() if method == "POST"})


@pytest.mark.parametrize("path", LOOKED_AT)
def test_no_page_shows_anything_of_another(pages: Pages, path: str) -> None:
    assert any(word in pages.get(path).text for word in WORDS), "an operator sees it there"
    answer = pages.get(path, "acme")
    if "globex" in path:
        assert answer.status_code == 404
        nothing = pages.get(path.replace("globex", "nobody"), "acme")
        assert _said(nothing.text).replace("nobody", "globex") == _said(answer.text), "as of what is not there"
    else:
        assert not [word for word in WORDS if word in answer.text]


@pytest.mark.parametrize("path", CHANGED_BY)
def test_no_button_changes_anything_of_another(pages: Pages, path: str) -> None:
    before = _state(pages)
    answer = pages.post(path, "acme", id="1", integration_id="globex", organization_id="globex")
    assert answer.status_code in (404, 422), answer.text
    assert _state(pages) == before


@pytest.mark.parametrize("path", CHANGED_BY)
def test_no_viewer_changes_anything(pages: Pages, path: str) -> None:
    before = _state(pages)
    for organization in (None, "globex"):
        assert pages.post(path, organization, Role.VIEWER, id="1").status_code == 403
    assert _state(pages) == before


@pytest.fixture(scope="module")
def signed_in(pages: Pages) -> Iterator[httpx.Client]:
    """Once: nobody may do so for each button there is within a minute."""
    with pages.signed_in() as browser:
        yield browser


@pytest.mark.parametrize("path", CHANGED_BY)
def test_no_other_site_has_a_browser_press_a_button(pages: Pages, signed_in: httpx.Client, path: str) -> None:
    before = _state(pages)
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
    ):
        assert signed_in.post(path, data={"id": "1"}, headers=headers).status_code == 403
    assert _state(pages) == before


def test_what_is_said_after_a_click_is_what_we_said(pages: Pages) -> None:
    """Nobody has our page say something by a cookie of theirs."""
    said = json.dumps({"kind": "done", "text": HOSTILE, "remedy": None})
    for value in (said, "x", "", "gAAAA" * 100):
        answer = pages.get("/streams", cookie=f"churnguard_said={value}")
        assert answer.status_code == 200
        assert 'class="message' not in answer.text


def _said(page: str) -> str:
    """Without the moment at its foot."""
    return page.partition("<footer>")[0]


def _state(pages: Pages) -> dict[str, Any]:
    """What a click could have changed. Of the audit log all but keys and logins, which are the test's own."""
    tables = ("control.integrations", "control.streams", "control.audit_log", "ingest.rejected_records", "ingest.syncs",
              "ingest.webhook_inbox")  # fmt: skip
    with pages.store.operator() as connection:
        return {
            name: sorted(each for each in connection.exec_driver_sql(f"SELECT t::text FROM {name} AS t").scalars()
                         if ",api_key.create," not in each and ",login," not in each)
            for name in tables
        }  # fmt: skip
