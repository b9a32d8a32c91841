"""E-mail activity: a thousand messages an answer and no way to the others, which readers without care lose."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.sandbox.sendgrid.account import Account
from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.sendgrid.conftest import INTEGRATION, NOW, errors_of, live, position, sync
from tests.connectors.standin import Query, StandIn

DAY = 86_400


def written(account: AccountHandle, count: int, *, seconds_ago: int, apart: int = 0) -> None:
    """So many messages, at one moment or so many seconds apart."""

    def send(it: Account) -> None:
        for number in range(count):
            at = it.clock() - seconds_ago - number * apart
            it.sending.send(it.sending.mailings[0], f"{at}-{number}@example.com", at)

    account.act(send)
    account.act(Account.follow)


def iso(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def keys(account: AccountHandle) -> set[str]:
    return {row["msg_id"] for row in account.objects("messages")}


def test_more_than_a_thousand_messages_all_come(store: Store, account: AccountHandle) -> None:
    """airbyte#60243: whatever was beyond the thousandth of a span was lost."""
    written(account, 3500, seconds_ago=86_400, apart=3)
    assert errors_of(sync(store, "messages")) == {}
    assert live(store, "messages").keys() == keys(account)


def test_a_second_with_more_than_a_thousand_is_read_by_how_ids_begin(store: Store, account: AccountHandle) -> None:
    """Also those with an underscore, which stands for any character in SendGrid's queries."""
    written(account, 1500, seconds_ago=7200)
    assert errors_of(sync(store, "messages")) == {}
    assert live(store, "messages").keys() == keys(account)
    assert any(key.startswith("_") for key in keys(account))


def test_a_message_to_which_something_happened_later_is_read_again(
    store: Store, sandbox: Sandbox, account: AccountHandle
) -> None:
    written(account, 1, seconds_ago=3600)
    sync(store, "messages")
    sandbox.account("acme").advance(600)

    def opens(it: Account) -> str:
        message = max(it.sending.messages, key=lambda each: each.number)
        it.sending.happens(it.clock() - 60, "open", message)
        return it.message_id(message)

    opened = account.act(opens)
    before = live(store, "messages")[opened]["opens_count"]
    sync(store, "messages")
    assert live(store, "messages")[opened]["opens_count"] == before + 1


def test_an_account_without_the_add_on_says_so_and_the_others_go_on(store: Store, account: AccountHandle) -> None:
    account.act(lambda it: setattr(it, "addon", False))
    report = check_connection(store, INTEGRATION)
    (lacking,) = [item for item in report.objects if not item.readable]
    assert lacking.object == "messages"
    assert "additional e-mail activity history" in (lacking.remedy or "")
    errors = errors_of(sync(store, "bounces", "messages", "single_sends"))
    assert errors.keys() == {"messages"}
    assert "additional e-mail activity history" in errors["messages"]
    assert live(store, "bounces")


def test_the_first_read_begins_thirty_days_ago(store: Store, sendgrid: StandIn) -> None:
    """There is nothing older, and each call takes ten seconds of a budget."""
    asked: list[Query] = []

    def says(query: Query) -> object:
        asked.append(query)
        return {"messages": []}

    sendgrid.says["/v3/messages"] = [says]
    sync(store, "messages")
    (query,) = asked
    begin, end = (datetime.fromisoformat(text) for text in re.findall(r'"([^"]+)"', query["query"][0]))
    assert end - begin == timedelta(days=30)
    assert abs(end - datetime.fromtimestamp(NOW, UTC)) < timedelta(seconds=5)
    assert query["limit"] == ["1000"]


@pytest.mark.parametrize(("mode", "days"), [(DataSyncMode.INCREMENTAL, 0), (DataSyncMode.FULL, 30)], ids=str)
def test_a_read_that_is_taken_up_goes_on_to_the_present(
    store: Store, sendgrid: StandIn, mode: DataSyncMode, days: int
) -> None:
    """And a full sync goes back all the way, though a read of what is new was under way."""
    sendgrid.says["/v3/messages"] = [{"messages": []}]
    sync(store, "messages")
    sendgrid.now = NOW + 3600
    sendgrid.says["/v3/messages"] = [
        {"messages": [{"msg_id": f"m{n}", "last_event_time": iso(NOW + n)} for n in range(1000)]},
        {"messages": [{"msg_id": "m1", "last_event_time": iso(NOW + 3590)}]},
        (403, {"errors": [{"message": "access forbidden"}]}),
    ]
    assert errors_of(sync(store, "messages")).keys() == {"messages"}
    assert position(store, "messages")["under_way"]["open"]
    sendgrid.now = NOW + DAY
    sendgrid.says["/v3/messages"] = [{"messages": []}]
    sendgrid.asked.clear()
    assert errors_of(sync(store, "messages", mode=mode)) == {}
    asked = [re.findall(r'"([^"]+)"', query["query"][0]) for path, query in sendgrid.asked if path == "/v3/messages"]
    moments = [datetime.fromisoformat(text).timestamp() for span in asked for text in span]
    assert NOW + DAY - max(moments) < 5
    assert (min(moments) <= NOW + DAY - 30 * DAY) is (days == 30)


@pytest.mark.parametrize("said", [{"messages": None}, [1]], ids=str)
def test_an_answer_without_messages_is_no_empty_one(store: Store, sendgrid: StandIn, said: object) -> None:
    sendgrid.says["/v3/messages"] = [said]
    assert errors_of(sync(store, "messages")).keys() == {"messages"}
