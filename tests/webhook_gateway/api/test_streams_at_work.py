"""Streams at work, through the API: checked when they are created, measured, paused, moved, mended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.store.control.api_keys import Role
from churnguard_pipelines.store.control.streams import STREAMS, StreamState
from churnguard_pipelines.store.postgres.database import Store
from tests.shelf import (
    GONE,
    SENT,
    SHELVES,
    put,
    read_all,
    shelves,  # noqa: F401 - a fixture
    stream_of_a_shelf,
)
from tests.webhook_gateway.api.conftest import Call, key_of, noted

pytestmark = pytest.mark.usefixtures("shelves")
CLICKS = "/streaming/streams/clicks"


@pytest.fixture
def clicks(call: Call) -> str:
    """The stream of this id is stored."""
    made = call("POST", "/streaming/streams", json=stream_of_a_shelf(stream_id="clicks"))
    assert made.status_code == 201, made.text
    return "clicks"


def stored(store: Store) -> list[str]:
    with store.operator() as connection:
        return list(connection.scalars(sa.text("SELECT extra ->> 'page' FROM raw.custom_events ORDER BY message_id")))


# --- creation


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"topics": ["nowhere"]}, "there is no shelf 'nowhere'. Put one up."),
        (
            {"connection_config": {"source": "shelv"}},
            "there is no stream source for 'shelv'. Is `shelf` meant? There are: ",
        ),
        ({"data_format": "protobuf"}, "protobuf"),
    ],
    ids=["topic", "source", "format"],
)
def test_what_cannot_work_is_said_at_creation_and_nothing_is_stored(
    call: Call, fields: dict[str, Any], said: str
) -> None:
    refused = call("POST", "/streaming/streams", json=stream_of_a_shelf(stream_id="clicks", **fields))
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    assert said in refused.json()["title"]
    assert call("GET", CLICKS).status_code == 404


def test_a_source_that_is_not_there_yet_can_be_configured_unchecked(call: Call) -> None:
    later = stream_of_a_shelf(stream_id="clicks", topics=["later"])
    assert call("POST", "/streaming/streams?check=false", json=later).status_code == 201
    tested = call("POST", f"{CLICKS}/test").json()
    assert tested == {
        "stream_id": "clicks", "ok": False, "cause": "there is no shelf 'later'.", "remedy": "Put one up."
    }  # fmt: skip
    put(topic="later")
    assert call("POST", f"{CLICKS}/test").json()["ok"]


def test_an_organization_s_stream_names_no_file_of_ours(store: Store, call: Call) -> None:
    """What a tenant names is asked for as whoever runs the installation."""
    key = key_of(store, "org_123")
    tail = stream_of_a_shelf(connection_config={"source": "tail", "folder": "/etc"}, topics=["passwd"])
    refused = call("POST", "/streaming/streams", key, json=tail)
    assert refused.status_code == 422
    assert "only an operator may follow files" in refused.json()["title"]


# --- numbers


def test_the_numbers_are_measured(store: Store, call: Call, clicks: str) -> None:
    put('{"page": "a"}', '{"page": "b"}', "no json", at=datetime.now(UTC) - timedelta(minutes=1))
    STREAMS.set_state(store, "clicks", StreamState.ACTIVE)
    call("PATCH", CLICKS, json={"most_rejected": 1})
    read_all(store)
    put('{"page": "c"}', at=datetime.now(UTC) - timedelta(seconds=30))
    found = call("GET", f"{CLICKS}/metrics").json()
    assert found["messages_per_second"] == 3 / 60
    assert found["error_rate"] == pytest.approx(1 / 3)
    assert found["buffer_utilization"] == 0.25
    assert found["avg_processing_time_ms"] > 0
    assert 0 < found["processing_time_p50_ms"] <= found["processing_time_p99_ms"]
    assert found["bytes_per_second"] > 0
    assert found["rejected_waiting"] == 1
    assert [each["partition"] for each in found["partitions"]] == ["clicks"]


def test_what_waits_is_counted_by_messages_and_seconds(store: Store, call: Call, clicks: str) -> None:
    read_all(store)
    assert call("GET", CLICKS).json()["lag_messages"] == 0
    put('{"page": "a"}', '{"page": "b"}', at=datetime.now(UTC) - timedelta(minutes=10))
    _look(store)
    for seen in (call("GET", CLICKS).json(), call("GET", "/streaming/streams").json()[0]):
        assert seen["lag_messages"] == 2
        assert seen["lag_seconds"] == pytest.approx(600, abs=60)
    [partition] = call("GET", f"{CLICKS}/metrics").json()["partitions"]
    assert (partition["partition"], partition["lag_messages"], partition["watermark"]) == ("clicks", 2, "2")


def test_what_a_source_has_lost_is_told(store: Store, call: Call, clicks: str) -> None:
    put(*[f'{{"page": "{number}"}}' for number in range(5)])
    GONE["clicks"] = 3
    read_all(store)
    [loss] = call("GET", f"{CLICKS}/metrics").json()["losses"]
    assert (loss["first_offset"], loss["last_offset"], loss["reason"]) == ("0", "2", "the shelf was cleared")
    assert stored(store) == ["3", "4"]


# --- steering


def test_a_paused_stream_is_not_read_until_it_is_resumed(store: Store, call: Call, clicks: str) -> None:
    assert call("POST", f"{CLICKS}/pause").json()["state"] == "paused"
    put('{"page": "a"}')
    assert read_all(store).read == 0
    paused = call("GET", f"{CLICKS}/metrics").json()
    assert paused["status"] == "paused"
    assert call("POST", f"{CLICKS}/resume").json()["state"] == "active"
    assert read_all(store).written == 1


def test_a_seek_reads_on_from_there_and_is_on_record(store: Store, call: Call, clicks: str) -> None:
    key, yesterday = key_of(store, "org_123"), datetime.now(UTC) - timedelta(days=1)
    put('{"page": "old"}', at=yesterday - timedelta(hours=1))
    put('{"page": "new"}', at=yesterday + timedelta(hours=1))
    assert read_all(store).read == 2
    for to, read in (("earliest", 2), ("latest", 0), (yesterday.isoformat(), 1), ({"clicks": "1"}, 1)):
        moved = call("POST", f"{CLICKS}/seek", key, json={"to": to})
        assert moved.json() == {"stream_id": "clicks", "positions": {"clicks": {"at": 2 - read}}}
        counts = read_all(store)
        assert (counts.read, counts.written) == (read, 0), "what is read again comes to the same rows"
    assert stored(store) == ["old", "new"]
    assert [(deed, detail["to"]) for deed, detail in noted(store, key, "clicks")] == [
        ("stream.seek", "earliest"), ("stream.seek", "latest"), ("stream.seek", yesterday.isoformat()),
        ("stream.seek", "offsets"),
    ]  # fmt: skip


@pytest.mark.parametrize("to", ["somewhere", "2026-11-01T00:00:00", "42", {"orders": "1"}, {"clicks": ""}, 5, None])
def test_a_seek_to_nowhere_is_refused(call: Call, clicks: str, to: Any) -> None:
    assert call("POST", f"{CLICKS}/seek", json={"to": to}).status_code == 422


def test_a_stream_that_paused_itself_says_why_and_what_to_do(store: Store, call: Call, clicks: str) -> None:
    put(*["no json"] * 20)
    read_all(store)
    seen = call("GET", CLICKS).json()
    assert (seen["state"], "20 of the last 20 messages" in seen["reason"]) == ("paused", True)
    assert "churnguard rejected list clicks" in seen["remedy"]


def test_rejected_messages_are_listed_and_taken_in_after_a_fix(store: Store, call: Call, clicks: str) -> None:
    call("PATCH", CLICKS, json={"target": "upsert"})
    put('{"page": "a"}', key="a")
    put('{"page": "b"}')
    read_all(store)
    [waiting] = call("GET", f"{CLICKS}/rejected").json()
    assert (waiting["key"], waiting["payload"]["value"]) == ("clicks/0/1", '{"page": "b"}')
    assert "no key" in waiting["reason"]
    again = call("POST", f"{CLICKS}/rejected/replay").json()
    assert (again["read"], again["rejected"], again["written"]) == (1, 1, 0)
    assert call("POST", f"{CLICKS}/rejected/dismiss", json={"ids": [waiting["id"] + 1]}).json() == {"dismissed": 0}
    call("PATCH", CLICKS, json={"key": ["page"]})
    mended = call("POST", f"{CLICKS}/rejected/replay", json={"ids": [waiting["id"]]}).json()
    assert (mended["read"], mended["written"]) == (1, 1)
    assert call("GET", f"{CLICKS}/rejected").json() == []


def test_rejected_messages_that_nobody_wants_are_dismissed(store: Store, call: Call, clicks: str) -> None:
    put("no json")
    put('{"page": "a"}')
    read_all(store)
    [waiting] = call("GET", f"{CLICKS}/rejected").json()
    assert call("POST", f"{CLICKS}/rejected/dismiss").status_code == 422, "which ones has to be said"
    assert call("POST", f"{CLICKS}/rejected/dismiss", json={"ids": [waiting["id"]]}).json() == {"dismissed": 1}
    assert call("GET", f"{CLICKS}/rejected").json() == []


def test_a_message_is_sent_where_the_source_listens(store: Store, call: Call, clicks: str) -> None:
    assert call("POST", f"{CLICKS}/messages", json={"message": "hello"}).status_code == 202
    assert SENT == ["hello"]
    viewer = key_of(store, "org_123", Role.VIEWER)
    assert call("POST", f"{CLICKS}/messages", viewer, json={"message": "hello"}).status_code == 403
    SHELVES.clear()
    assert call("POST", f"{CLICKS}/messages", json={"message": ""}).status_code == 422


def test_a_removed_stream_leaves_its_rows_unless_they_are_to_go(store: Store, call: Call, clicks: str) -> None:
    put('{"page": "a"}')
    read_all(store)
    assert call("DELETE", CLICKS).status_code == 204
    assert stored(store) == ["a"]
    assert call("POST", "/streaming/streams", json=stream_of_a_shelf(stream_id="clicks")).status_code == 201
    assert call("DELETE", f"{CLICKS}?purge=true").status_code == 204
    assert stored(store) == []


def _look(store: Store) -> None:
    """As a sensor does: nothing is read, and what waits is noted."""
    from churnguard_pipelines.model import StreamType
    from churnguard_pipelines.syncing.streams.kind import KINDS

    KINDS[StreamType.CUSTOM](store).waiting()
