"""What HubSpot only lists: whole, in pages that end, with what is not met counted as gone."""

from __future__ import annotations

from typing import Any

import pytest

from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.hubspot.conftest import NOW, gone, iso, live, position, rows, sync
from tests.connectors.standin import Query, StandIn

LISTS = "/crm/v3/lists/search"
SUBMITTED = "/form-integrations/v1/submissions/forms/f1"


def test_pipelines_of_two_types_may_have_one_id(store: Store, hubspot: StandIn) -> None:
    stages = [{"id": "new", "label": "New", "displayOrder": 0, "metadata": {"probability": "0.2"}}]
    default = {"id": "default", "label": "Pipeline", "displayOrder": 0, "stages": stages, "archived": False}
    for type_ in ("deals", "tickets"):
        hubspot.says[f"/crm/v3/pipelines/{type_}"] = [{"results": [default]}]
    sync(store, "pipelines", "pipeline_stages")
    assert live(store, "pipelines").keys() == {"deals:default", "tickets:default"}
    stage = live(store, "pipeline_stages")["deals:default:new"]
    assert (stage["stage_id"], stage["pipeline_id"], stage["object_type"]) == ("new", "default", "deals")
    assert stage["metadata"] == {"probability": "0.2"}


def test_an_owner_who_is_not_listed_any_more_is_gone(store: Store, hubspot: StandIn) -> None:
    owners = [{"id": str(n), "email": f"{n}@acme.example", "createdAt": "2024-01-01T00:00:00Z"} for n in (1, 2)]
    hubspot.says["/crm/v3/owners"] = [{"results": owners}, {"results": owners[:1]}]
    sync(store, "owners")
    assert live(store, "owners").keys() == {"1", "2"}
    report = sync(store, "owners")
    assert report.status == "succeeded", report
    assert gone(store, "owners") == {"2": "inferred"}


def test_campaigns_come_with_their_properties_and_without_a_call_for_each(store: Store, hubspot: StandIn) -> None:
    """The list shows ids only, unless properties are named."""
    shown = {"id": "c1", "properties": {"hs_name": "Spring", "hs_campaign_status": "active"}}
    hubspot.says["/marketing/v3/campaigns"] = [
        lambda query: {"results": [shown if "hs_name" in query["properties"][0].split(",") else {"id": "c1"}]}
    ]
    sync(store, "campaigns")
    assert live(store, "campaigns")["c1"]["name"] == "Spring"
    assert len([path for path, _ in hubspot.asked if path.startswith("/marketing/v3/campaigns")]) == 1


def test_statistics_come_with_the_list_of_emails_and_without_a_call_for_each(store: Store, hubspot: StandIn) -> None:
    stats = {"counters": {"sent": 100, "open": 40, "click": 7}, "ratios": {"openratio": 40.0}}
    hubspot.says["/marketing/v3/emails"] = [
        lambda query: {"results": [{"id": "9", "name": "News"} | ({"stats": stats} if "includeStats" in query else {})]}
    ]
    sync(store, "marketing_emails")
    row = live(store, "marketing_emails")["9"]
    assert (row["sent"], row["opened"], row["clicked"], row["bounced"]) == (100, 40, 7, None)
    assert len([path for path, _ in hubspot.asked if path.startswith("/marketing/v3/emails")]) == 1


# --- lists and who is in them


def listed(*ids: str, more: bool = False, offset: int = 0) -> dict[str, Any]:
    return {"lists": [{"listId": id, "name": f"List {id}"} for id in ids], "hasMore": more, "offset": offset}


def test_lists_come_in_pages_by_offset(store: Store, hubspot: StandIn) -> None:
    hubspot.says[LISTS] = [listed("1", "2", more=True, offset=2), listed("3", offset=3)]
    sync(store, "lists")
    assert live(store, "lists").keys() == {"1", "2", "3"}
    assert [query["body"]["offset"] for path, query in hubspot.asked if path == LISTS] == [0, 2]


def test_lists_that_say_there_is_more_and_send_nothing_end(store: Store, hubspot: StandIn) -> None:
    hubspot.says[LISTS] = [listed(more=True)]
    assert "empty page" in str(sync(store, "lists").objects["lists"].error)


def test_members_who_left_are_gone_after_an_hour(store: Store, hubspot: StandIn) -> None:
    hubspot.says[LISTS] = [listed("1", "2")]
    members = {"results": [{"recordId": str(n), "membershipTimestamp": iso((NOW - 60) * 1000)} for n in (10, 11)]}
    hubspot.says["/crm/v3/lists/1/memberships"] = [members]
    hubspot.says["/crm/v3/lists/2/memberships"] = [members]
    sync(store, "list_memberships")
    assert live(store, "list_memberships").keys() == {"1:10", "1:11", "2:10", "2:11"}
    hubspot.says["/crm/v3/lists/2/memberships"] = [{"results": members["results"][:1]}]
    sync(store, "list_memberships")
    assert gone(store, "list_memberships") == {}, "not read again within the hour"
    hubspot.now = NOW + 3700
    sync(store, "list_memberships")
    assert gone(store, "list_memberships") == {"2:11": "inferred"}


def test_a_killed_read_of_members_goes_on_where_it_was(store: Store, hubspot: StandIn) -> None:
    hubspot.says[LISTS] = [listed("1", "2")]
    hubspot.says["/crm/v3/lists/1/memberships"] = [
        {"results": [{"recordId": "10"}], "paging": {"next": {"after": "x"}}}, (400, {}),
        {"results": [{"recordId": "11"}]},
    ]  # fmt: skip
    hubspot.says["/crm/v3/lists/2/memberships"] = [{"results": [{"recordId": 12}]}]
    assert sync(store, "list_memberships").status != "succeeded"
    assert sync(store, "list_memberships").status == "succeeded"
    assert live(store, "list_memberships").keys() == {"1:10", "1:11", "2:12"}
    assert [query.get("after") for path, query in hubspot.asked if path == "/crm/v3/lists/1/memberships"][-1] == ["x"]


# --- forms


def submission(number: int, at: int, **told: Any) -> dict[str, Any]:
    return {"submittedAt": at, "values": [{"name": "email", "value": f"{number}@x.example"}], **told}


def test_submissions_are_read_until_those_that_are_known(store: Store, hubspot: StandIn) -> None:
    """Newest first; instants are epoch milliseconds, and older ones have no id of their own."""
    hubspot.says["/marketing/v3/forms"] = [{"results": [{"id": "f1", "name": "Demo"}]}]
    sent = [submission(n, (NOW - 10 * 86_400 + n * 600) * 1000) for n in range(120)]

    def page(query: Query) -> Any:
        newest_first = sent[::-1]
        first = int(query.get("after", ["0"])[0])
        more = {"paging": {"next": {"after": str(first + 50)}}} if len(sent) > first + 50 else {}
        return {"results": newest_first[first : first + 50], **more}

    hubspot.says[SUBMITTED] = [page]
    sync(store, "form_submissions")
    assert len(live(store, "form_submissions")) == 120
    hubspot.asked.clear()
    sent.append(submission(120, NOW * 1000, conversionId="own-id"))
    sync(store, "form_submissions")
    stored = live(store, "form_submissions")
    assert len(stored) == 121
    assert stored["f1:own-id"]["submitted_at"].timestamp() == NOW
    assert len([path for path, _ in hubspot.asked if path == SUBMITTED]) < 4
    assert position(store, "form_submissions")["latest"] == {"f1": NOW * 1000}


def test_a_killed_read_of_submissions_leaves_out_no_older_ones(store: Store, hubspot: StandIn) -> None:
    """It had read the newest: to stop at those the next time would lose the rest."""
    hubspot.says["/marketing/v3/forms"] = [{"results": [{"id": "f1"}]}]
    first = {"results": [submission(1, NOW * 1000)], "paging": {"next": {"after": "a"}}}
    last = {"results": [submission(0, (NOW - 40 * 86_400) * 1000)]}
    hubspot.says[SUBMITTED] = [first, (400, {}), first, last]
    assert sync(store, "form_submissions").status != "succeeded"
    assert sync(store, "form_submissions").status == "succeeded"
    assert len(live(store, "form_submissions")) == 2


@pytest.mark.parametrize("name", ["owners", "marketing_emails", "campaigns", "forms", "marketing_events"])
def test_a_list_that_never_ends_is_noticed(store: Store, hubspot: StandIn, name: str) -> None:
    family = "crm" if name == "owners" else "marketing"
    api = {"marketing_emails": "emails", "marketing_events": "marketing-events"}.get(name, name)
    same = {"results": [{"id": "1", "objectId": "1"}], "paging": {"next": {"after": "1"}}}
    hubspot.says[f"/{family}/v3/{api}"] = [same]
    assert "again and again" in str(sync(store, name).objects[name].error)
    assert rows(store, name).keys() == {"1"}
