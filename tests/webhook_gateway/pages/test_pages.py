"""What stands on our pages: the numbers of the API, of what the key may see, and what became of a click."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from churnguard_pipelines.store.control.alert_destinations import (
    Destination,
    add_destination,
    note_problem,
    silence,
)
from churnguard_pipelines.store.control.api_keys import Role
from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint
from churnguard_pipelines.store.ingest.rejected import list_rejected
from tests.webhook_gateway.dashboard.conftest import HTML
from tests.webhook_gateway.pages.conftest import Pages
from tests.webhook_gateway.pages.reading import Read
from tests.webhook_gateway.pages.scene import deliver, reject

SYNC = "00000000-0000-4000-8000-00000000000"
EVERY = (
    "/", "/?search=stripe&provider=stripe&health=healthy", "/alerts", "/streams", "/streams/acme-clicks",
    "/organizations", "/organizations/acme", "/organizations/globex", "/integrations/acme",
    f"/integrations/acme/syncs/{SYNC}1", "/integrations/acme/rejected", "/integrations/acme/webhooks",
)  # fmt: skip


def shown(page: str) -> str:
    return Read(page).text


def test_who_signs_in_lands_on_the_overview(pages: Pages) -> None:
    with pages.signed_in() as browser:
        assert "Integrations" in Read(browser.get("/", headers=HTML).text).title


@pytest.mark.parametrize("path", EVERY)
def test_every_page_is_whole_and_loads_only_files_of_ours(pages: Pages, path: str) -> None:
    answer = pages.get(path)
    assert answer.status_code == 200
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    read = Read(answer.text)
    for tag, attributes in read.elements:
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        assert tag != "script" or attributes["src"].startswith("/static/")
    files = [*read.of("script", "src"), *read.of("img", "src"), *read.of("link", "href")]
    assert {pages.get(file).status_code for file in files} == {200}


def test_the_overview_says_of_each_integration_what_the_api_does(pages: Pages) -> None:
    page = shown(pages.get("/").text)
    acme, globex = pages.get("/api/dashboard/integrations").json()
    assert f"{acme['health']['status']} {acme['health']['score']}" in page
    assert f"{acme['rows']:,}" in page
    assert acme["rows"] == sum(each["rows"] for each in pages.get("/api/dashboard/integration/acme").json()["objects"])
    assert f"unhealthy {globex['health']['score']} authentication failed" in page
    assert "the provider refuses the credentials" in page
    assert page.rindex("Globex's Stripe") < page.rindex("Acme's Stripe"), "who needs somebody is first"


def test_integrations_are_found_by_words_provider_and_health(pages: Pages) -> None:
    def names(query: str) -> list[str]:
        return re.findall(r'<a href="/integrations/(\w+)">', pages.get(f"/?{query}").text.split("<table")[1])

    assert names("search=STRIPE+acme") == ["acme"]
    assert names("health=unhealthy") == ["globex"]
    assert names("provider=mysql") == []
    assert names("search=%00%22%3E&page=7") == []


def test_an_integration_s_page_says_what_syncs_did_and_why_one_failed(pages: Pages) -> None:
    page = pages.get("/integrations/acme").text
    for each in pages.get("/api/dashboard/integration/acme").json()["objects"]:
        assert f"/dashboard/assets/stripe/{each['name']}?view=partitions&amp;partition=acme" in page
    report = shown(pages.get(f"/integrations/acme/syncs/{SYNC}1").text)
    assert "customers succeeded" in report
    assert f'href="/dashboard/runs/{SYNC}1"' in pages.get(f"/integrations/acme/syncs/{SYNC}1").text
    assert "Stripe refused the credentials (401 on GET /v1/account" in shown(pages.get("/integrations/globex").text)
    assert pages.get(f"/integrations/globex/syncs/{SYNC}1").status_code == 404, "it is another integration's"


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/", "churnguard integrations add FILE.yaml --replace"),
        ("/alerts", "churnguard integrations add FILE.yaml --replace"),
        ("/integrations/globex", "churnguard integrations add FILE.yaml --replace"),
        (f"/integrations/globex/syncs/{SYNC}2", "churnguard integrations add FILE.yaml --replace"),
        ("/integrations/globex/rejected", "email"),
    ],
)
def test_commands_within_sentences_are_shown_as_such(pages: Pages, path: str, command: str) -> None:
    page = pages.get(path).text
    assert f"<code>{command}" in page
    assert "`" not in shown(page)


def test_revenue_is_a_picture_and_the_same_in_numbers(pages: Pages) -> None:
    page = pages.get("/organizations/acme").text
    label = re.search(r'aria-label="MRR from \w+ \d+ to \w+ \d+: ([\d,.]+) USD at the end"', page)
    assert label, "who cannot see the picture is told what it comes to"
    assert f"<b>{label[1]}</b>" in page
    assert page.count('class="churn"') >= 2
    assert "No subscriptions yet" in pages.get("/organizations/globex").text


def test_a_stream_s_page_has_its_rate_and_its_rejected_messages(pages: Pages) -> None:
    page = pages.get("/streams/acme-clicks").text
    assert "Messages a second in the last 60 minutes" in page
    assert "no JSON" in shown(page)
    assert "Seek to earliest." in shown(pages.get("/streams/globex-clicks").text)


def test_operators_see_where_alerts_are_sent_and_no_secret_of_it(pages: Pages) -> None:
    assert "churnguard alerts add oncall -" in shown(pages.get("/alerts").text)
    made = Destination("oncall", "jsons://hooks.example.com", "critical", 600, url="jsons://hooks.example.com/t0k3n")
    add_destination(pages.store, made, actor="test")
    note_problem(pages.store, "oncall", "jsons://hooks.example.com did not take the message.")
    silence(pages.store, "acme", None, timedelta(hours=1), "Stripe is being moved", actor="test")
    answer = pages.get("/alerts").text
    page = shown(answer)
    assert "oncall jsons://hooks.example.com critical alerts, after 10 minutes failed" in page
    assert "did not take the message" in page
    assert "anything of acme" in page
    assert "t0k3n" not in answer
    assert "oncall" not in pages.get("/alerts", "acme").text, "an organization does not see it"
    assert "Where alerts are sent" not in pages.get("/alerts", "acme").text


def test_pausing_and_resuming_is_said_and_done(pages: Pages) -> None:
    assert "It is paused" in pages.said("/integrations/globex/pause")
    page = pages.get("/integrations/globex").text
    assert "It is paused" not in page, "it is said once"
    assert 'action="/integrations/globex/resume"' in page
    assert "It is active again" in pages.said("/integrations/globex/resume")
    assert pages.get("/api/integrations/globex").json()["status"] == "active"
    assert "It is paused" in pages.said("/streams/acme-clicks/pause", "acme")
    assert "It is active" in pages.said("/streams/acme-clicks/resume", "acme")


def test_a_rejected_record_is_shown_and_replayed(pages: Pages) -> None:
    reject(pages.store, "acme", "cus_fits", "created: no moment", {"id": "cus_fits", "created": 1_700_000_000})
    (waiting,) = (each for each in list_rejected(pages.store, "acme") if each.key == "cus_fits")
    page = pages.get("/integrations/acme/rejected", "acme").text
    assert '"created": 1700000000' in shown(page)
    told = pages.said("/integrations/acme/rejected/replay", "acme", id=str(waiting.id))
    assert "Replayed 1: 1 written, 0 older than what stands, 0 rejected again." in told
    assert "cus_fits" not in [each.key for each in list_rejected(pages.store, "acme")]
    assert pages.post("/integrations/acme/rejected/replay", "acme", id="one").status_code == 422


def test_a_rejected_record_that_nobody_wants_is_dismissed(pages: Pages) -> None:
    """Never more than those that are chosen."""
    reject(pages.store, "acme", "cus_junk", "created: no moment", {"id": "cus_junk"})
    waiting = list_rejected(pages.store, "acme")
    assert "Dismissed 0." in pages.said("/integrations/acme/rejected/dismiss", "acme")
    chosen = next(each for each in waiting if each.key == "cus_junk")
    assert "Dismissed 1." in pages.said("/integrations/acme/rejected/dismiss", "acme", id=str(chosen.id))
    assert list_rejected(pages.store, "acme") == [each for each in waiting if each != chosen]
    for wrong in ("-1", str(2**63), "9" * 5000, "0" * 20 + "9" * 5000):
        assert pages.post("/integrations/acme/rejected/dismiss", "acme", id=wrong).status_code == 422


def test_a_webhook_is_shown_with_its_outcome_and_worked_off_once_more(pages: Pages) -> None:
    deliver(pages.store, "acme", "evt_again", '{"id": "evt_again", "amount": 1.10}')
    page = pages.get("/integrations/acme/webhooks", "acme").text
    assert "waiting customer.updated evt_again" in shown(page)
    assert '"amount": 1.10' in shown(page), "as it was sent"
    assert "1 event will be worked off once more" in pages.said(
        "/integrations/acme/webhooks/replay", "acme", id="evt_again"
    )
    assert shown(pages.get("/integrations/acme/webhooks", "acme").text).count("customer.updated evt_again") == 2
    assert "0 events" in pages.said("/integrations/acme/webhooks/replay", "acme")


def test_who_sets_a_provider_up_finds_the_whole_url_there(pages: Pages) -> None:
    path = "/integrations/acme/webhooks"
    assert "churnguard webhooks add stripe acme" in shown(pages.get(path, "acme").text)
    add_endpoint(pages.store, organization_id="acme", provider="stripe", secret="whsec_canary", actor="test")
    page = pages.get(path, "acme").text
    assert f"{pages.store.settings.webhooks_url}/stripe/acme" in shown(page)
    assert "whsec_canary" not in page


@pytest.mark.parametrize(
    ("path", "moves"), [("/", True), ("/integrations/new", False), (f"/integrations/acme/syncs/{SYNC}1", False)]
)
def test_only_a_page_that_keeps_itself_up_to_date_says_so(pages: Pages, path: str, moves: bool) -> None:
    page = pages.get(path).text
    assert ("keeps itself up to date" in shown(page), 'data-seconds="0"' in page) == (moves, not moves)


def test_older_ones_are_on_the_next_page(pages: Pages) -> None:
    for number in range(60):
        reject(pages.store, "globex", f"cus_{number:02}", "no", {"id": number})
    seen: list[str] = []
    path = "/integrations/globex/rejected"
    while path:
        page = pages.get(path).text
        seen += re.findall(r"cus_\d\d</span> <span", page)
        further = re.search(r'rel="next" href="([^"]+)"', page)
        path = further[1] if further else ""
    assert len(seen) == len(set(seen)) == 60


def test_a_viewer_finds_no_button(pages: Pages) -> None:
    for path in EVERY:
        assert Read(pages.get(path, role=Role.VIEWER).text).buttons == [], path
    assert "/integrations/new" not in pages.get("/", role=Role.VIEWER).text


@pytest.mark.parametrize(
    "path", ["/nowhere", "/integrations/nothing", "/streams/no%20id", "/organizations/nobody", "/login/"]
)
def test_what_is_not_there_is_said_on_a_page(pages: Pages, path: str) -> None:
    answer = pages.get(path)
    assert answer.status_code == 404
    assert "Not found" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/integrations/acme/syncs/%00", "/integrations/new/drafts/%00", "/integrations/new/stripe?draft=%00",
        "/integrations/new/signed-in?state=%00",
    ],
)  # fmt: skip
def test_what_no_text_can_hold_is_refused_on_a_page(pages: Pages, path: str) -> None:
    for answer in (pages.get(path), pages.post("/integrations/acme/webhooks/replay", id="\0")):
        assert answer.status_code == 422
        assert "A text holds U+0000" in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
