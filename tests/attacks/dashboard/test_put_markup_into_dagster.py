"""Cells, names of columns and words of a source that would be markup on Dagster's pages: a link, a picture that tells
somebody who looks, a table of one's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from churnguard_pipelines.foreign_text import as_code
from churnguard_pipelines.orchestration.metadata import table_of
from tests.webhook_gateway.dashboard.conftest import HTML, MakeKey, bearer

MARKUP = [
    "![x](http://evil.example/p.png)", '<img src="http://evil.example/p.png">', "<script>alert(1)</script>",
    "[x](javascript:alert(1))", "<javascript:alert(1)>", "http://evil.example/", "www.evil.example", "a@evil.example",
    "`", "``", "`![x](http://evil.example/p.png)`", "a` ![x](http://evil.example/p.png) `b", "|", "\\|", "a\\", "\\`",
    "a | b | c", "\n| a | b |\n|---|---|", "\r\n\r\n# title", "&lt;img&gt;", "&#96;", "* a", "---", "$$x$$",
    "\u2028# x", "x" * 100_000, "", " ", "`" * 10_000,
    "<details open ontoggle=alert(1)>", "[a]: http://evil.example", "~~~",
]  # fmt: skip
_markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def rendered(rows: Sequence[Sequence[object]]) -> str:
    return str(_markdown.render(table_of(["id", "name"], rows)))


@pytest.mark.parametrize("text", MARKUP, ids=lambda text: ascii(text[:20]))
def test_a_cell_is_a_cell_and_nothing_in_it_is_markup(text: str) -> None:
    shown = rendered([[1, text], [text, 2]])
    assert set(re.findall(r"<(\w+)", shown)) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert shown.count("<tr>") == 3
    assert shown.count("<td>") == 4
    assert len(shown) < 2_000


@given(st.text(st.sampled_from("`|\\<>![]()*_~#\n\r &;:/xh.\u2028"), max_size=40))
def test_whatever_a_cell_holds(text: str) -> None:
    shown = rendered([[1, text]])
    assert set(re.findall(r"<(\w+)", shown)) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert shown.count("<td>") == 2


def test_numbers_and_moments_stay_as_people_read_them() -> None:
    row = [Decimal("1.50"), datetime(2026, 11, 25, 12, tzinfo=UTC)]
    assert table_of(["a", "b"], [row]).splitlines()[-1] == "| 1.50 | 2026-11-25 12:00:00 |"


def test_a_name_of_a_column_is_no_markup() -> None:
    assert "<img" not in _markdown.render(f"- {as_code('` <img src=x> `')}: new field")


def test_no_page_loads_an_image_from_elsewhere(url: str, make_key: MakeKey) -> None:
    """Whatever text a page of Dagster's takes for markup some day: the browser is told not to."""
    key = bearer(make_key())
    for path in (
        "/dashboard",
        "/dashboard/runs",
        "/dashboard/graphql",
        "/api/docs",
        "/login",
        "/dashboard/server_info",
    ):
        policy = httpx.get(url + path, headers=key | HTML).headers["content-security-policy"]
        images = re.search(r"img-src ([^;]*)", policy)
        assert images is not None, path
        assert set(images[1].split()) <= {"'self'", "data:", "blob:"}, path
        assert "frame-ancestors 'none'" in policy, path
