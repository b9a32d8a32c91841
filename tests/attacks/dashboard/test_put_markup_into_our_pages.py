"""What sources, senders and tenants say, on our pages: it is text there, on lines of ours, and only so much of it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.foreign_text import on_one_line
from tests.webhook_gateway.pages.conftest import Pages, context, pages
from tests.webhook_gateway.pages.reading import Read
from tests.webhook_gateway.pages.scene import deliver, reject
from webhook_gateway.pages import rendering

__all__ = ["context", "pages"]

OURS = {
    "html", "head", "meta", "title", "link", "script", "body", "a", "header", "img", "nav", "ul", "li", "span", "form",
    "button", "main", "div", "p", "h1", "h2", "b", "dl", "dt", "dd", "section", "table", "caption", "thead", "tbody",
    "tr", "th", "td", "time", "details", "summary", "pre", "footer", "input", "svg", "rect", "path", "text", "code",
    "label", "select", "option",
}  # fmt: skip
SHOWN_ON = (
    "/", "/alerts", "/streams", "/streams/acme-clicks", "/streams/globex-clicks", "/integrations/acme",
    "/integrations/acme/rejected", "/integrations/acme/webhooks",
)  # fmt: skip
MIB = 1024 * 1024
LARGE = (
    "x" * MIB, "<" * MIB, json.dumps("\0" * 50_000), "[" * 100_000, '{"a":' * 50_000, '["' * 100_000,
    '["' + '\\"' * 100_000, '"' * MIB, "\n" * MIB, "[" + "\u202e" * MIB,
)  # fmt: skip


@pytest.mark.parametrize("path", SHOWN_ON)
def test_markup_is_shown_as_it_was_written_and_does_nothing(pages: Pages, path: str) -> None:
    page = pages.get(path).text
    read = Read(page)
    assert {tag for tag, _ in read.elements} <= OURS
    assert read.of("script", "src") == [rendering.static("live.js")]
    assert len(read.of("img", "src")) == 1, "our own"
    assert "\u202e" not in page
    assert "\x07" not in page
    assert not [value for value in read.of("a", "href") if not value.startswith(("/", "#"))]
    if path.endswith(("clicks", "rejected", "webhooks", "streams")):
        assert "<img src=x onerror=alert(1)>\\u202e" in read.text.replace("\\\\", "\\")
    assert "49" not in re.findall(r"x07(\S+)", page), "nothing of it is a template"


def test_large_payloads_cost_a_page_little(pages: Pages) -> None:
    lengths = []
    for number, payload in enumerate(LARGE):
        deliver(pages.store, "acme", f"evt_{number}", payload)
        lengths.append(f"of {len(payload):,} characters")
    answer = pages.get("/integrations/acme/webhooks")
    assert answer.status_code == 200
    assert len(answer.content) < 2 * rendering.MOST_OF_A_PAYLOAD * 6 * len(LARGE), "at most six bytes for a character"
    assert not [length for length in lengths if length not in answer.text]


def test_long_words_are_cut(pages: Pages) -> None:
    deliver(pages.store, "acme", "evt_" + "i" * 100_000, "{}", "t" * 100_000)
    reject(pages.store, "acme", "k" * 100_000, "r" * MIB, {"id": "k" * MIB})
    for path in ("webhooks", "rejected"):
        answer = pages.get(f"/integrations/acme/{path}")
        assert len(answer.content) < 3 * MIB
        assert "100,000 characters" in answer.text


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("{}[],:\"\\ \nax<>&'\0\u2028\u202e"), max_size=80))
def test_whatever_a_payload_is_every_sign_of_it_is_shown(text: str) -> None:
    shown = Read(str(rendering.payload(text)))
    assert [tag for tag, _ in shown.elements] == ["pre"]
    kept = "".join(on_one_line(line) for line in text.split("\n"))
    assert re.sub(r"\s", "", shown.text) == re.sub(r"\s", "", kept)
