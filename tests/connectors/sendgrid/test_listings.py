"""What SendGrid only lists: pages by token, both generations of segments and templates, members of groups."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from churnguard_pipelines.connectors.sendgrid import listings
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.sendgrid.conftest import NOW, Row, errors_of, live, sync
from tests.connectors.standin import Query, StandIn

LISTS = "/v3/marketing/lists"


def paged(name: str, rows: list[Row], size: int, asked: list[Query]) -> Any:
    """Pages of so many, however many are asked for; the next one's address is of a host of its own."""

    def says(query: Query) -> Row:
        asked.append(query)
        place = int(query.get("page_token", ["0"])[0])
        following = f"https://elsewhere.example.com/v3/x?page_size=9&page_token={place + size}"
        metadata = {"next": following} if place + size < len(rows) else {}
        return {name: rows[place : place + size], "_metadata": metadata}

    return says


def test_lists_are_paged_by_the_token_of_the_next_address(store: Store, sendgrid: StandIn) -> None:
    """Of the address nothing else is taken: it is not gone to."""
    asked: list[Query] = []
    lists = [{"id": f"l{number}", "name": "A", "contact_count": number} for number in range(7)]
    sendgrid.says[LISTS] = [paged("result", lists, 3, asked)]
    assert errors_of(sync(store, "lists")) == {}
    assert len(live(store, "lists")) == 7
    assert [query.get("page_token") for query in asked] == [None, ["3"], ["6"]]
    assert {query["page_size"][0] for query in asked} == {"1000"}


def test_a_page_that_comes_again_and_again_ends_the_reading(store: Store, sendgrid: StandIn) -> None:
    page = {"result": [{"id": "l1"}], "_metadata": {"next": f"https://api.sendgrid.com{LISTS}?page_token=a"}}
    sendgrid.says[LISTS] = [page]
    assert "same page again" in errors_of(sync(store, "lists"))["lists"]


def test_a_list_by_offset_that_never_ends_is_an_error_of_its_object_alone(store: Store, sendgrid: StandIn) -> None:
    sendgrid.says["/v3/subusers"] = [[{"id": number, "username": f"u{number}"} for number in range(500)]]
    errors = errors_of(sync(store, "subusers", "unsubscribe_groups"))
    assert errors.keys() == {"subusers"}
    assert "changes while it is read" in errors["subusers"]


def test_a_subuser_that_goes_between_two_pages_hides_no_other(store: Store, sendgrid: StandIn) -> None:
    there = [{"id": number, "username": f"u{number}"} for number in range(900)]

    def page(query: Query) -> list[Row]:
        offset = int(query["offset"][0])
        found = there[offset : offset + 500]
        if len(there) == 900:
            del there[:10]
        return found

    sendgrid.says["/v3/subusers"] = [page]
    assert errors_of(sync(store, "subusers")) == {}
    assert {str(each["id"]) for each in there} <= live(store, "subusers").keys()


def test_templates_of_both_generations_are_asked_for(store: Store, sendgrid: StandIn) -> None:
    """Without being asked for, dynamic ones are left out; and there are 200 a page at most."""
    asked: list[Query] = []
    sendgrid.says["/v3/templates"] = [paged("result", [{"id": "t1", "generation": "dynamic"}], 9, asked)]
    sync(store, "templates")
    assert asked == [{"generations": ["legacy,dynamic"], "page_size": ["200"]}]


def test_segments_of_both_generations_are_in_one_table(store: Store, sendgrid: StandIn) -> None:
    sendgrid.says["/v3/marketing/segments/2.0"] = [{"results": [{"id": "s2", "query_version": "2"}]}]
    sendgrid.says["/v3/marketing/segments"] = [{"results": [{"id": "s1"}]}]
    sync(store, "segments")
    assert {key: row["query_version"] for key, row in live(store, "segments").items()} == {"s1": "1", "s2": "2"}


def test_an_account_without_the_old_segments_has_the_new_ones(store: Store, sendgrid: StandIn) -> None:
    sendgrid.says["/v3/marketing/segments/2.0"] = [{"results": [{"id": "s2"}]}]
    sendgrid.says["/v3/marketing/segments"] = [(404, {"errors": [{"message": "not found"}]})]
    assert errors_of(sync(store, "segments")) == {}
    assert live(store, "segments").keys() == {"s2"}


def test_instants_of_marketing_have_nine_digits_of_a_second(store: Store, sendgrid: StandIn) -> None:
    sent = {"id": "s", "name": "A", "send_at": "2026-03-01T10:00:00.123456789Z", "updated_at": "2026-03-01T10:00:00Z"}
    sendgrid.says["/v3/marketing/singlesends"] = [{"result": [sent], "_metadata": {}}]
    sync(store, "single_sends")
    assert live(store, "single_sends")["s"]["send_at"] == datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)


def test_who_left_two_groups_is_a_member_of_both_and_who_came_back_of_none(store: Store, sendgrid: StandIn) -> None:
    member = {"email": "ada@example.com", "group_name": "A", "created_at": NOW}
    sendgrid.says["/v3/asm/suppressions"] = [[{**member, "group_id": 1}, {**member, "group_id": 2}]]
    sync(store, "group_unsubscribes")
    assert live(store, "group_unsubscribes").keys() == {"1:ada@example.com", "2:ada@example.com"}
    sendgrid.says["/v3/asm/suppressions"] = [[]]
    sendgrid.now = NOW + 60
    sync(store, "group_unsubscribes")
    assert live(store, "group_unsubscribes") == {}


def test_members_of_groups_come_in_one_answer_and_are_handed_on_in_parts(
    store: Store, sendgrid: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "PART", 2)
    members = [{"email": f"{n}@example.com", "group_id": 1, "group_name": "A", "created_at": NOW} for n in range(5)]
    sendgrid.says["/v3/asm/suppressions"] = [members]
    for _ in range(2):
        assert errors_of(sync(store, "group_unsubscribes")) == {}
        assert len(live(store, "group_unsubscribes")) == 5


def test_a_record_without_a_key_is_rejected_alone(store: Store, sendgrid: StandIn) -> None:
    rows = [{"email": "ada@example.com", "group_id": 1}, {"group_id": 2}]
    sendgrid.says["/v3/asm/suppressions"] = [rows]
    report = sync(store, "group_unsubscribes")
    assert report.objects["group_unsubscribes"].counts.rejected == 1
    assert live(store, "group_unsubscribes").keys() == {"1:ada@example.com"}


@pytest.mark.parametrize("said", [{"errors": []}, []], ids=str)
def test_an_answer_that_is_no_list_is_not_taken_for_an_empty_one(store: Store, sendgrid: StandIn, said: Any) -> None:
    """What is there already stays."""
    sendgrid.says[LISTS] = [{"result": [{"id": "l1"}]}]
    sync(store, "lists")
    sendgrid.says[LISTS] = [said]
    assert errors_of(sync(store, "lists")).keys() == {"lists"}
    assert live(store, "lists").keys() == {"l1"}
