"""Members: bounds by the second, archived ones, one second with more than a page, and one identity per contact."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.sandbox.business.mailing import Mailing, Member
from churnguard_pipelines.sandbox.mailchimp.handle import MailchimpAccount
from churnguard_pipelines.sandbox.mailchimp.ids import contact_id
from churnguard_pipelines.sandbox.serve import Account, Sandbox
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.mailchimp.conftest import NOW, Register, Row, errors, gone, live, sync
from tests.connectors.standin import Query, StandIn

DAY = 24 * 3600


@pytest.fixture
def business(sandbox: Sandbox, account: MailchimpAccount) -> Account:
    return sandbox.account("acme")


def some(business: Account, number: int = 0, audience: int = 1) -> Member:
    """One that is subscribed."""

    def find(mailing: Mailing) -> Member:
        return [each for each in mailing.audiences[audience].members.values() if each.reachable][number]

    return business.read_mailing(find)


def of(store: Store, member: Member) -> Row:
    contact = contact_id("acme", member.id)
    [row] = [each for each in live(store, "members").values() if each["contact_id"] == contact]
    return row


def test_the_running_second_is_left_to_the_next_sync(store: Store, business: Account) -> None:
    """``since`` is exclusive and everything goes by the second: what happens in one after it was read is not lost."""
    one, other = some(business, 0), some(business, 1)
    business.advance(10)
    business.mail("update", audience=1, member=one.id, company="First")
    sync(store, "members")
    business.mail("update", audience=1, member=other.id, company="In the same second, after the sync")
    business.advance(5)
    assert errors(sync(store, "members")) == {}
    assert of(store, one)["merge_fields"]["COMPANY"] == "First"
    assert of(store, other)["merge_fields"]["COMPANY"] == "In the same second, after the sync"


def test_archived_members_are_read_though_the_list_hides_them(store: Store, business: Account) -> None:
    member = some(business)
    sync(store, "members")
    assert "archived" in {row["status"] for row in live(store, "members").values()}
    business.advance(5)
    business.mail("archive", audience=1, member=member.id)
    business.advance(5)
    sync(store, "members")
    assert of(store, member)["status"] == "archived"
    business.mail("unarchive", audience=1, member=member.id)
    business.advance(5)
    sync(store, "members")
    assert of(store, member)["status"] == "subscribed"


def test_a_change_of_address_is_the_same_member(store: Store, business: Account) -> None:
    """Though its id, a digest of the address, is another one."""
    member = some(business)
    sync(store, "members")
    before = of(store, member)
    business.advance(5)
    business.mail("change_address", audience=1, member=member.id, email="ada@moved.example.org")
    business.advance(5)
    sync(store, "members")
    after = of(store, member)
    assert (after["key"], after["email_address"]) == (before["key"], "ada@moved.example.org")
    assert after["subscriber_hash"] == hashlib.md5(b"ada@moved.example.org", usedforsecurity=False).hexdigest()
    assert gone(store, "members") == {}


def test_one_address_in_two_lists_is_two_members(store: Store, business: Account) -> None:
    """The id is unique within a list only."""
    email = some(business).email
    business.mail("subscribe", audience=2, email=email)
    business.advance(5)
    sync(store, "members")
    rows = [row for row in live(store, "members").values() if row["email_address"] == email]
    assert len(rows) == 2
    assert len({row["subscriber_hash"] for row in rows}) == 1


def test_who_was_deleted_for_good_is_found_within_a_day(store: Store, business: Account) -> None:
    """Nothing tells of it. Whoever is archived is not deleted."""
    member = some(business)
    sync(store, "members")
    key = of(store, member)["key"]
    business.advance(5)
    business.mail("purge", audience=1, member=member.id)
    business.advance(3600)
    sync(store, "members")
    assert gone(store, "members") == {}
    business.advance(DAY)
    sync(store, "members")
    assert gone(store, "members") == {key: "inferred"}
    business.advance(5)
    assert errors(sync(store, "members", mode=DataSyncMode.FULL)) == {}
    assert gone(store, "members") == {key: "inferred"}


def test_tags_and_renamed_fields_are_read_again_within_a_day(store: Store, business: Account) -> None:
    """No date of a member moves for them."""
    member = some(business)
    sync(store, "members")
    business.advance(5)
    business.mail("tag", audience=1, member=member.id, name="Reference")
    business.mail("rename_field", audience=1, old="company", new="firm")
    business.advance(DAY + 5)
    sync(store, "members")
    row = of(store, member)
    assert "Reference" in [each["name"] for each in row["tags"]]
    assert "FIRM" in row["merge_fields"]
    assert "COMPANY" not in row["merge_fields"]


def test_links_are_no_part_of_a_record(store: Store, business: Account) -> None:
    sync(store, "members", "lists")
    assert [
        row for name in ("members", "lists") for row in live(store, name).values() if "_links" in row["extra"]
    ] == []


def test_a_field_that_is_empty_is_null_in_its_own_type(store: Store, business: Account) -> None:
    """Mailchimp writes an empty string for what is not there, also of numbers and times."""
    business.mail("subscribe", audience=1, email="nobody@example.org")
    business.advance(5)
    report = sync(store, "members")
    assert report.objects["members"].counts.rejected == 0
    [row] = [each for each in live(store, "members").values() if each["email_address"] == "nobody@example.org"]
    assert row["merge_fields"]["SEATS"] is None
    assert row["timestamp_signup"] is None


class Crowd:
    """A list of which many members changed in one second, as an import makes them. ``leave``: how many of them change
    after each page, and so come at the end of time."""

    def __init__(self, provider: StandIn, size: int, leave: int = 0) -> None:
        self.changed = dict.fromkeys(range(size), NOW - 9000)
        self._leave = leave
        provider.says["/3.0/lists"] = [{"lists": [{"id": "abc"}], "total_items": 1}]
        provider.says["/3.0/lists/abc/members"] = [self._page]

    def _page(self, query: Query) -> Any:
        if query.get("status") == ["archived"]:
            return {"members": [], "total_items": 0}
        since = datetime.fromisoformat(query.get("since_last_changed", ["1970-01-01T00:00:00+00:00"])[0]).timestamp()
        before = datetime.fromisoformat(query["before_last_changed"][0]).timestamp()
        found = sorted((number for number, at in self.changed.items() if since < at <= before),
                       key=lambda number: (-self.changed[number], number))  # fmt: skip
        offset = int(query["offset"][0])
        rows = [self._row(number) for number in found[offset : offset + min(int(query["count"][0]), 1000)]]
        for number in found[: self._leave]:
            self.changed[number] = NOW + 1
        return {"members": rows, "total_items": len(found)}

    def _row(self, number: int) -> Row:
        at = datetime.fromtimestamp(self.changed[number], UTC).isoformat()
        return {"id": f"{number:032x}", "contact_id": f"{number:032x}", "list_id": "abc", "last_changed": at,
                "email_address": f"{number}@example.com", "status": "subscribed"}  # fmt: skip


@pytest.mark.parametrize("leave", [0, 150], ids=["still", "while they change"])
def test_a_second_with_more_than_a_page_is_read_whole(store: Store, mailchimp: StandIn, leave: int) -> None:
    """Members that change while it is read move the later ones forward; none is skipped."""
    crowd = Crowd(mailchimp, 3500, leave)
    assert errors(sync(store, "members")) == {}
    stayed = {f"abc:{number:032x}" for number, at in crowd.changed.items() if at < NOW}
    assert stayed <= live(store, "members").keys()
    mailchimp.now = NOW + 10
    assert errors(sync(store, "members")) == {}
    assert len(live(store, "members")) == len(crowd.changed)


def test_a_list_that_does_not_heed_what_is_asked_is_an_error_and_no_endless_loop(
    store: Store, mailchimp: StandIn, connect: Register
) -> None:
    """A full page of always the same: of many seconds, or of one."""
    connect(mailchimp.url, concurrent_requests=1)
    crowd = Crowd(mailchimp, 1000)
    page = crowd._page({"offset": ["0"], "count": ["1000"], "before_last_changed": [datetime.now(UTC).isoformat()]})
    mailchimp.says["/3.0/lists/abc/members"] = [page]
    assert "again and again" in str(errors(sync(store, "members"))["members"])
    page["members"][0]["last_changed"] = datetime.fromtimestamp(NOW - 5, UTC).isoformat()
    assert "another time" in str(errors(sync(store, "members"))["members"])


def test_who_changes_in_the_running_second_of_a_read_of_all_is_not_gone(store: Store, mailchimp: StandIn) -> None:
    """Such a member was not in its old second any more, and the running one is left to the next sync."""
    crowd = Crowd(mailchimp, 3)
    sync(store, "members")

    def moves(query: Query) -> Any:
        crowd.changed[0] = NOW + 60
        return crowd._page(query)

    mailchimp.now = NOW + 60
    mailchimp.says["/3.0/lists/abc/members"] = [moves]
    assert errors(sync(store, "members", mode=DataSyncMode.FULL)) == {}
    assert gone(store, "members") == {}


@pytest.mark.parametrize("mode", [DataSyncMode.INCREMENTAL, DataSyncMode.FULL], ids=str)
def test_a_read_that_is_taken_up_goes_on_to_the_present(
    store: Store, mailchimp: StandIn, connect: Register, mode: DataSyncMode
) -> None:
    """A sync that ends well has what there was when it began, however old the read is that it ends."""
    connect(mailchimp.url, concurrent_requests=1)
    crowd = Crowd(mailchimp, 1500)
    crowd.changed = {number: NOW - 9000 + number for number in crowd.changed}
    mailchimp.says["/3.0/lists/abc/members"] = [crowd._page, (500, {"title": "InternalServerError"})]
    assert errors(sync(store, "members")).keys() == {"members"}
    assert 0 < len(live(store, "members")) < 1500
    mailchimp.now = NOW + 3 * DAY
    crowd.changed[0] = NOW + 2 * DAY
    mailchimp.says["/3.0/lists/abc/members"] = [crowd._page]
    assert errors(sync(store, "members", mode=mode)) == {}
    assert len(live(store, "members")) == 1500
    assert live(store, "members")[f"abc:{0:032x}"]["last_changed"] == datetime.fromtimestamp(NOW + 2 * DAY, UTC)


@pytest.mark.parametrize("mode", [DataSyncMode.INCREMENTAL, DataSyncMode.FULL], ids=str)
def test_a_list_that_may_not_be_read_keeps_nobody_from_the_others(
    store: Store, mailchimp: StandIn, mode: DataSyncMode
) -> None:
    """Its members stay, and all of them are read once they may be."""
    crowd, other = Crowd(mailchimp, 3), Crowd(mailchimp, 3)
    mailchimp.says["/3.0/lists"] = [{"lists": [{"id": "abc"}, {"id": "def"}], "total_items": 2}]
    mailchimp.says["/3.0/lists/def/members"] = [lambda query: _of_list("def", other._page(query))]
    mailchimp.says["/3.0/lists/abc/members"] = [crowd._page]
    assert errors(sync(store, "members")) == {}
    mailchimp.now, crowd.changed[0], other.changed[0] = NOW + 60, NOW + 30, NOW + 30
    mailchimp.says["/3.0/lists/abc/members"] = [(403, {"title": "Forbidden", "detail": "Not this list."})]
    mailchimp.says["/3.0/lists/abc/merge-fields"] = [(403, {"title": "Forbidden", "detail": "Nor its fields."})]
    for _ in range(2):
        assert "Not this list" in str(errors(sync(store, "members", mode=mode))["members"])
    assert _changed(store, "def") == NOW + 30
    assert (_changed(store, "abc"), gone(store, "members")) == (NOW - 9000, {})
    mailchimp.says["/3.0/lists/abc/members"] = [crowd._page]
    assert errors(sync(store, "members")) == {}
    assert _changed(store, "abc") == NOW + 30


def _of_list(list_id: str, page: Any) -> Any:
    return page | {"members": [row | {"list_id": list_id} for row in page["members"]]}


def _changed(store: Store, list_id: str) -> int:
    return int(live(store, "members")[f"{list_id}:{0:032x}"]["last_changed"].timestamp())


def test_members_of_a_list_that_is_gone_are_gone(store: Store, mailchimp: StandIn) -> None:
    Crowd(mailchimp, 3)
    sync(store, "members")
    mailchimp.now = NOW + 60
    mailchimp.says["/3.0/lists"] = [{"lists": [], "total_items": 0}]
    assert errors(sync(store, "members")) == {}
    assert set(gone(store, "members").values()) == {"inferred"}
    assert live(store, "members") == {}


def test_a_member_without_an_id_is_rejected_and_the_others_are_stored(store: Store, mailchimp: StandIn) -> None:
    rows = [{"id": f"{number:032x}", "contact_id": f"{number:032x}", "list_id": "abc", "status": "subscribed"}
            for number in range(3)]  # fmt: skip
    rows[1] |= {"id": "", "contact_id": ""}
    mailchimp.says["/3.0/lists"] = [{"lists": [{"id": "abc"}], "total_items": 1}]
    mailchimp.says["/3.0/lists/abc/members"] = [
        lambda query: {"members": [] if "status" in query else rows, "total_items": 3}
    ]
    report = sync(store, "members")
    assert (report.objects["members"].counts.rejected, len(live(store, "members"))) == (1, 2)
