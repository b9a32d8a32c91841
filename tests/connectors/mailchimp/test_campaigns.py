"""Lists that are read whole, and what recipients of campaigns did, which is asked for only where something happened."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from churnguard_pipelines.connectors.mailchimp.api import iso, seconds_of
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.sandbox.business.mailing import Campaign, Did, Mailing
from churnguard_pipelines.sandbox.mailchimp.handle import MailchimpAccount
from churnguard_pipelines.sandbox.serve import Account, Sandbox
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.mailchimp.conftest import NOW, errors, gone, live, sync
from tests.connectors.standin import StandIn

DAY = 24 * 3600
QUIET = 2
"""Calls of a sync of one object when nothing happened: whose account it is, and the reports."""


@pytest.fixture
def business(sandbox: Sandbox, account: MailchimpAccount) -> Account:
    """Its last campaigns were sent more than five days ago."""
    business = sandbox.account("acme")
    business.advance(4 * DAY)
    return business


def sent(business: Account) -> Campaign:
    return business.read_mailing(lambda mailing: next(each for each in mailing.campaigns.values() if each.sent))


def calls(sandbox: Sandbox, store: Store, object: str) -> int:
    before = sandbox.requests_to("mailchimp")
    assert errors(sync(store, object)) == {}
    return sandbox.requests_to("mailchimp") - before


def test_activity_is_asked_for_only_where_a_report_has_changed(
    store: Store, sandbox: Sandbox, business: Account
) -> None:
    campaign = sent(business)
    reader = next(iter(campaign.sent))
    assert calls(sandbox, store, "email_activity") == QUIET + len(
        business.read_mailing(lambda mailing: [each for each in mailing.campaigns.values() if each.sent])
    )
    assert calls(sandbox, store, "email_activity") == QUIET
    before = len(live(store, "email_activity"))
    business.advance(60)
    business.mail("open", campaign=campaign.id, member=reader)
    business.mail("click", campaign=campaign.id, member=reader, url="https://example.com/a")
    business.mail("click", campaign=campaign.id, member=reader, url="https://example.com/b")
    business.advance(5)
    assert calls(sandbox, store, "email_activity") == QUIET + 1
    assert len(live(store, "email_activity")) == before + 3  # two clicks in one second, of two links


def test_a_campaign_is_settling_for_five_days(store: Store, sandbox: Sandbox, business: Account) -> None:
    """Bounces come for days, and need not show in a report's times."""
    draft = business.mail("draft", audience=1, title="Now")
    business.mail("send", campaign=draft)
    business.advance(5)
    sync(store, "email_activity")
    assert calls(sandbox, store, "email_activity") == QUIET + 1
    business.advance(4 * DAY)
    assert calls(sandbox, store, "email_activity") == QUIET + 1
    business.advance(DAY)
    assert calls(sandbox, store, "email_activity") == QUIET + 1  # it was settling when it was read last
    assert calls(sandbox, store, "email_activity") == QUIET


def test_a_bounce_that_no_report_shows_is_read_after_a_long_pause(store: Store, business: Account) -> None:
    """The campaign was settling when it was read last, though it is not any more."""
    draft = business.mail("draft", audience=1, title="Now")
    business.mail("send", campaign=draft)
    business.advance(5)
    sync(store, "email_activity")
    business.advance(2 * DAY)
    business.read_mailing(lambda it: _bounces_untold(it, it.campaigns[draft]))
    business.advance(60 * DAY)
    assert errors(sync(store, "email_activity")) == {}
    assert "untold" in {row["type"] for row in live(store, "email_activity").values()}


def _bounces_untold(mailing: Mailing, campaign: Campaign) -> None:
    campaign.did.setdefault(next(iter(campaign.sent)), []).append(Did("bounce", mailing.now, kind="untold"))


def test_what_a_report_tells_late_is_asked_for_since_the_campaign_was_read(store: Store, mailchimp: StandIn) -> None:
    """Not since the round before, which saw no change and did not read the campaign."""
    opened = NOW + 100
    report = {"id": "aa11", "send_time": iso(NOW - 30 * DAY), "opens": {"opens_total": 0}}

    def activity(query: dict[str, Any]) -> Any:
        happened = int(mailchimp.now or 0) >= opened
        since = seconds_of(query["since"][0]) if "since" in query else 0
        events = [{"action": "open", "timestamp": iso(opened)}] if happened and opened > (since or 0) else []
        return {"emails": [{"campaign_id": "aa11", "email_id": "e1", "activity": events}], "total_items": 1}

    mailchimp.says["/3.0/reports"] = [lambda _: {"reports": [report], "total_items": 1}]
    mailchimp.says["/3.0/reports/aa11/email-activity"] = [activity]
    for now, opens in ((NOW, 0), (NOW + 3600, 0), (NOW + 7200, 1)):
        mailchimp.now, report["opens"] = now, {"opens_total": opens}
        assert errors(sync(store, "email_activity")) == {}
    assert len(live(store, "email_activity")) == 1


def test_an_event_that_shows_up_late_is_read(store: Store, sandbox: Sandbox, business: Account) -> None:
    """As bounces did, four minutes after they happened."""
    sync(store, "email_activity")
    campaign = sent(business)
    reader = next(iter(campaign.sent))

    def late(mailing: Mailing) -> None:
        campaign.did.setdefault(reader, []).append(Did("bounce", mailing.now - 240, kind="soft"))

    before = len(live(store, "email_activity"))
    business.read_mailing(late)
    business.advance(60)
    sync(store, "email_activity")
    assert len(live(store, "email_activity")) == before + 1


def test_a_bounce_has_a_type_and_neither_address_nor_link(store: Store, business: Account) -> None:
    campaign = sent(business)
    business.mail("bounce", campaign=campaign.id, member=next(iter(campaign.sent)), kind="hard")
    business.advance(5)
    sync(store, "email_activity", "sent_to")
    bounces = [row for row in live(store, "email_activity").values() if row["action"] == "bounce"]
    assert bounces
    assert {(row["ip"], row["url"]) for row in bounces} == {(None, None)}
    assert "hard" in {row["type"] for row in bounces}
    assert "hard" in {row["status"] for row in live(store, "sent_to").values()}


def test_unsubscribes_are_a_report_of_their_own(store: Store, sandbox: Sandbox, business: Account) -> None:
    """Activity does not tell of them."""
    campaign = sent(business)

    def reachable(mailing: Mailing) -> int:
        members = mailing.audiences[campaign.audience].members
        return next(id for id in campaign.sent if id in members and members[id].reachable)

    member = business.read_mailing(reachable)
    sync(store, "unsubscribes", "email_activity")
    before = len(live(store, "unsubscribes"))
    business.advance(5)
    business.mail("unsubscribe", audience=campaign.audience, member=member, campaign=campaign.id, reason="Too many")
    business.advance(5)
    assert calls(sandbox, store, "unsubscribes") == QUIET + 1
    assert calls(sandbox, store, "email_activity") == QUIET
    assert len(live(store, "unsubscribes")) == before + 1
    assert "Too many" in {row["reason"] for row in live(store, "unsubscribes").values()}


def test_a_draft_has_no_time_of_sending_and_vanishes_when_it_is_dropped(store: Store, business: Account) -> None:
    draft = business.mail("draft", audience=1, title="Never sent")
    sync(store, "campaigns", "reports")
    [row] = [each for each in live(store, "campaigns").values() if each["title"] == "Never sent"]
    assert (row["status"], row["send_time"]) == ("save", None)
    assert row["id"] not in live(store, "reports")
    business.mail("drop_campaign", campaign=draft)
    business.advance(5)
    sync(store, "campaigns")
    assert gone(store, "campaigns") == {row["id"]: "inferred"}


def test_segments_have_members_who_left(store: Store, business: Account) -> None:
    """By flags, under which the total is less than there is."""
    member = business.read_mailing(
        lambda mailing: next(each for each in mailing.audiences[1].members.values() if each.reachable)
    )
    business.mail("tag", audience=1, member=member.id, name="Left")
    business.mail("unsubscribe", audience=1, member=member.id)
    business.advance(5)
    sync(store, "segments", "segment_members", "tags")
    [segment] = [row for row in live(store, "segments").values() if row["name"] == "Left"]
    [row] = [r for r in live(store, "segment_members").values() if r["segment_id"] == segment["segment_id"]]
    assert (row["email_address"], row["status"], segment["member_count"]) == (member.email, "unsubscribed", 0)
    assert "Left" in {row["name"] for row in live(store, "tags").values()}


@pytest.mark.parametrize("total", [0, 3, 10_000_000], ids=["none", "too few", "too many"])
def test_a_short_page_ends_a_list_whatever_the_total_says(store: Store, mailchimp: StandIn, total: int) -> None:
    rows = [{"id": f"{number:010x}", "create_time": "2026-01-01T00:00:00+00:00"} for number in range(1700)]

    def page(query: dict[str, Any]) -> Any:
        offset, count = int(query["offset"][0]), min(int(query["count"][0]), 1000)
        return {"campaigns": rows[offset : offset + count], "total_items": total}

    mailchimp.says["/3.0/campaigns"] = [page]
    assert errors(sync(store, "campaigns")) == {}
    assert len(live(store, "campaigns")) == 1700


@pytest.mark.parametrize(("size", "vanish", "total"), [
    (2500, [40], None), (1500, [40], None), (1500, [1200], None), (1500, [40], 7), (4000, [600, 600, 600], None),
], ids=["few", "and the next page is short", "and there is none", "the total does not tell", "many"])  # fmt: skip
def test_rows_that_vanish_while_a_list_is_read_do_not_hide_others(
    store: Store, mailchimp: StandIn, size: int, vanish: list[int], total: int | None
) -> None:
    """They move what follows them forward, across the edge of a page."""
    rows = [{"id": f"{number:010x}", "create_time": "2026-01-01T00:00:00+00:00"} for number in range(size)]
    left = list(vanish)

    def page(query: dict[str, Any]) -> Any:
        offset, counted = int(query["offset"][0]), len(rows) if total is None else total
        shown = rows[offset : offset + 1000]
        if left:
            del rows[: left.pop()]
        return {"campaigns": shown, "total_items": counted}

    mailchimp.says["/3.0/campaigns"] = [page]
    assert errors(sync(store, "campaigns")) == {}
    assert {each["id"] for each in rows} <= live(store, "campaigns").keys()


def test_a_list_in_another_order_each_time_ends_all_the_same(store: Store, mailchimp: StandIn) -> None:
    """Nothing tells then that none was skipped."""
    numbers = count()

    def page(query: dict[str, Any]) -> Any:
        return {"campaigns": [{"id": f"{next(numbers):010x}"} for _ in range(1000)], "total_items": 3000}

    mailchimp.says["/3.0/campaigns"] = [page]
    assert "changes while it is read" in str(errors(sync(store, "campaigns"))["campaigns"])


def test_a_list_that_never_ends_is_an_error_of_its_object_alone(store: Store, mailchimp: StandIn) -> None:
    full = [{"id": f"{number:010x}"} for number in range(1000)]
    mailchimp.says["/3.0/campaigns"] = [{"campaigns": full, "total_items": 1}]
    mailchimp.says["/3.0/automations"] = [{"automations": [{"id": "aa11"}], "total_items": 1}]
    found = errors(sync(store, "campaigns", "automations"))
    assert list(found) == ["campaigns"]
    assert "the same page again and again" in str(found["campaigns"])
    assert list(live(store, "automations")) == ["aa11"]


@pytest.mark.parametrize("said", [(404, "<html>no such page</html>"), (404, {"title": "Resource Not Found"})],
                         ids=["of a proxy", "of Mailchimp"])  # fmt: skip
def test_an_account_always_has_its_lists_and_campaigns(store: Store, mailchimp: StandIn, said: Any) -> None:
    """A 404 of the list of them is an error: nobody thinks that everything is gone."""
    mailchimp.says["/3.0/lists"] = [{"lists": [{"id": "abc"}], "total_items": 1}]
    mailchimp.says["/3.0/campaigns"] = [{"campaigns": [{"id": "aa11"}], "total_items": 1}]
    mailchimp.says["/3.0/lists/abc/merge-fields"] = [{"merge_fields": [{"merge_id": 1, "tag": "A"}], "total_items": 1}]
    names = ("lists", "campaigns", "merge_fields")
    assert errors(sync(store, *names)) == {}
    mailchimp.says["/3.0/lists"] = mailchimp.says["/3.0/campaigns"] = [said]
    assert errors(sync(store, *names)).keys() == set(names)
    assert [gone(store, name) for name in names] == [{}, {}, {}]


def test_what_a_proxy_does_not_find_is_not_gone(store: Store, mailchimp: StandIn) -> None:
    """Of a list that is gone Mailchimp says so in its own words."""
    mailchimp.says["/3.0/lists"] = [{"lists": [{"id": "abc"}], "total_items": 1}]
    fields = "/3.0/lists/abc/merge-fields"
    mailchimp.says[fields] = [{"merge_fields": [{"merge_id": 1, "tag": "A"}], "total_items": 1}]
    sync(store, "merge_fields")
    mailchimp.says[fields] = [(404, "not here")]
    assert "not in Mailchimp's words" in str(errors(sync(store, "merge_fields"))["merge_fields"])
    assert gone(store, "merge_fields") == {}
    mailchimp.says[fields] = [(404, {"title": "Resource Not Found"})]
    assert errors(sync(store, "merge_fields")) == {}
    assert gone(store, "merge_fields") == {"abc:1": "inferred"}


@pytest.mark.parametrize("mode", [DataSyncMode.INCREMENTAL, DataSyncMode.FULL], ids=str)
def test_a_campaign_that_cannot_be_read_keeps_nobody_from_the_others(
    store: Store, mailchimp: StandIn, mode: DataSyncMode
) -> None:
    """Its error is the object's; what it had stays, and it is read as soon as it can be."""
    ids = ["aa11", "bb22", "cc33"]
    reports = [{"id": id, "send_time": iso(NOW - 30 * DAY), "emails_sent": 1} for id in ids]
    mailchimp.says["/3.0/reports"] = [{"reports": reports, "total_items": 3}]

    def sends(id: str, email: str) -> None:
        mailchimp.says[f"/3.0/reports/{id}/sent-to"] = [{"sent_to": [{"campaign_id": id, "email_id": email}]}]

    for id in ids:
        sends(id, "e1")
    assert errors(sync(store, "sent_to")) == {}
    for id, report in zip(ids, reports, strict=True):
        report["emails_sent"] = 2
        sends(id, "e2")
    mailchimp.says["/3.0/reports/aa11/sent-to"] = [(400, {"title": "Bad Request", "detail": "The report is broken."})]
    assert "The report is broken" in str(errors(sync(store, "sent_to", mode=mode))["sent_to"])
    assert {"aa11:e1", "bb22:e2", "cc33:e2"} <= live(store, "sent_to").keys()
    sends("aa11", "e2")
    mailchimp.asked.clear()
    assert errors(sync(store, "sent_to")) == {}
    assert "aa11:e2" in live(store, "sent_to")
    assert {path for path, _ in mailchimp.asked if "sent-to" in path} == {"/3.0/reports/aa11/sent-to"}


def test_a_list_that_cannot_be_read_keeps_nobody_from_the_others(store: Store, mailchimp: StandIn) -> None:
    mailchimp.says["/3.0/lists"] = [{"lists": [{"id": "abc"}, {"id": "def"}], "total_items": 2}]
    for id in ("abc", "def"):
        fields = {"merge_fields": [{"merge_id": 1, "tag": "A", "name": "one"}], "total_items": 1}
        mailchimp.says[f"/3.0/lists/{id}/merge-fields"] = [fields]
    assert errors(sync(store, "merge_fields")) == {}
    mailchimp.now = NOW + DAY
    mailchimp.says["/3.0/lists/abc/merge-fields"] = [(403, {"title": "Forbidden", "detail": "Not this one."})]
    mailchimp.says["/3.0/lists/def/merge-fields"] = [
        {"merge_fields": [{"merge_id": 1, "tag": "A", "name": "other"}], "total_items": 1}
    ]
    assert errors(sync(store, "merge_fields")).keys() == {"merge_fields"}
    assert {key: row["name"] for key, row in live(store, "merge_fields").items()} == {"abc:1": "one", "def:1": "other"}
