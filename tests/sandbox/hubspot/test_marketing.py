"""Forms, e-mails, campaigns and events, each with the habits of its own endpoint."""

from __future__ import annotations

import httpx

from tests.sandbox.hubspot.conftest import read_all


def test_submissions_tell_time_in_epoch_milliseconds(quiet: httpx.Client) -> None:
    forms = read_all(quiet, "/marketing/v3/forms", limit=2)
    assert len(forms) == 3
    sent = read_all(quiet, f"/form-integrations/v1/submissions/forms/{forms[0]['id']}", limit=50)
    times = [each["submittedAt"] for each in sent]
    assert times == sorted(times, reverse=True)
    assert all(isinstance(each, int) and each > 10**12 for each in times)
    assert quiet.get("/form-integrations/v1/submissions/forms/none").status_code == 404


def test_statistics_come_one_by_one_or_with_the_list(quiet: httpx.Client) -> None:
    emails = read_all(quiet, "/marketing/v3/emails", limit=5)
    with_stats = read_all(quiet, "/marketing/emails/2026-03", includeStats="true", limit=5)
    assert len(emails) == 12
    for bare, whole in zip(emails, with_stats, strict=True):
        assert "stats" not in bare
        assert quiet.get(f"/marketing/v3/emails/{bare['id']}/statistics").json() == whole["stats"]
    assert {each["state"] for each in emails if each["publishDate"]} == {"PUBLISHED", "DRAFT"}
    times = {"startTimestamp": "2000-01-01T00:00:00Z", "endTimestamp": "2100-01-01T00:00:00Z"}
    total = quiet.get("/marketing/v3/emails/statistics/list", params=times).json()
    published = [each for each in with_stats if each["isPublished"]]
    assert total["aggregate"]["counters"]["sent"] == sum(each["stats"]["counters"]["sent"] for each in published)
    assert quiet.get("/marketing/v3/emails/statistics/list").status_code == 400


def test_campaigns_show_only_what_is_asked_for(quiet: httpx.Client) -> None:
    bare = read_all(quiet, "/marketing/v3/campaigns", limit=3)
    named = read_all(quiet, "/marketing/v3/campaigns", limit=3, properties="hs_name,hs_notes")
    assert {len(each["properties"]) for each in bare} == {0}
    assert [set(each["properties"]) for each in named] == [{"hs_name", "hs_notes"}] * 4


def test_marketing_events(quiet: httpx.Client) -> None:
    events = read_all(quiet, "/marketing/v3/marketing-events", limit=1)
    assert {each["eventType"] for each in events} == {"WEBINAR", "CONFERENCE"}
    assert all(each["registrants"] == each["attendees"] + each["noShows"] for each in events)
