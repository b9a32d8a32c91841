"""A stream is read entry after entry from the place that the warehouse holds, whatever its group says; the group is
told afterwards."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
import redis

from churnguard_pipelines.errors import SourceChanged
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.redis import Redis
from churnguard_pipelines.streams.sdk import Loss, MessageBatch, Seek
from tests.streams.redis.conftest import Opened

GROUP = "churnguard-acme-events"


def drained(source: Redis, topic: str, position: Position | None = None) -> tuple[list[MessageBatch], Position | None]:
    """All that is there now, each batch stored; and the position then."""
    found: list[MessageBatch] = []
    with closing(source.batches(topic, position)) as batches:
        for batch in batches:
            if batch is None:
                return found, position
            found.append(batch)
            position = batch.position
    raise AssertionError("batches end by nobody but who reads them")


def offsets(batches: list[MessageBatch]) -> list[str]:
    return [message.offset for batch in batches for message in batch.messages]


def added(client: redis.Redis, topic: str, count: int, first: int = 1) -> list[str]:
    """Entries ``first``-0 and on."""
    with client.pipeline() as pipeline:
        for number in range(first, first + count):
            pipeline.xadd(topic, {"value": json.dumps({"n": number})}, id=f"{number}-0")
        return [each.decode() for each in pipeline.execute()]


def pending(client: redis.Redis, topic: str) -> int:
    return int(client.xpending(topic, GROUP)["pending"])


def test_entries_come_in_order_once_and_are_acknowledged_when_stored(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    ids = added(client, topic, 3000)
    batches, position = drained(opened(batch_size=500), topic)
    assert offsets(batches) == ids
    assert max(len(batch.messages) for batch in batches) == 500
    versions = [message.version for batch in batches for message in batch.messages]
    assert versions == sorted(set(versions))
    assert pending(client, topic) == 0
    more = added(client, topic, 5, first=3001)
    batches, _ = drained(opened(), topic, position)
    assert offsets(batches) == more


def test_what_was_delivered_and_not_stored_comes_first_to_who_takes_over(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    """Whoever died had it pending; nobody waits for it to become old."""
    ids = added(client, topic, 100)
    dead = opened().batches(topic, None)
    batch = next(dead)
    assert batch is not None
    read = [message.offset for message in batch.messages]
    del dead  # it never acknowledges
    client.xreadgroup(GROUP, "churnguard-dead", {topic: ">"}, count=10)
    batches, _ = drained(opened(), topic)
    assert offsets(batches) == ids
    assert offsets(batches)[: len(read)] == read
    assert pending(client, topic) == 0
    names = [consumer["name"] for consumer in client.xinfo_consumers(topic, GROUP)]
    assert b"churnguard-dead" not in names
    assert len(names) == 1


def test_what_was_stored_and_not_acknowledged_does_not_come_again(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    """The process ended between our commit and XACK."""
    ids = added(client, topic, 100)
    batch = next(reading := opened().batches(topic, None))
    assert batch is not None
    stored = [message.offset for message in batch.messages]
    reading.close()
    assert pending(client, topic) == len(stored)
    batches, _ = drained(opened(), topic, batch.position)
    assert stored + offsets(batches) == ids
    assert pending(client, topic) == 0


@pytest.mark.parametrize("meddling", ["read", "read and acknowledged", "set forward", "set back", "destroyed"])
def test_a_group_that_somebody_else_moves_leaves_nothing_out(
    client: redis.Redis, topic: str, opened: Opened, meddling: str
) -> None:
    ids = added(client, topic, 20)
    found: list[str] = []
    with closing(opened(batch_size=5).batches(topic, None)) as reading:
        for batch in reading:
            if batch is None:
                break
            found += [message.offset for message in batch.messages]
            if len(found) >= 10 and meddling:
                meddle(client, topic, meddling)
                meddling = ""
    assert found == ids
    assert pending(client, topic) == 0


def meddle(client: redis.Redis, topic: str, how: str) -> None:
    if how.startswith("read"):
        answer: Any = client.xreadgroup(GROUP, "somebody", {topic: ">"}, count=4)
        entries = answer[0][1]
        if how.endswith("acknowledged"):
            client.xack(topic, GROUP, *(entry for entry, _ in entries))
    elif how.startswith("set"):
        client.xgroup_setid(topic, GROUP, "18-0" if how.endswith("forward") else "2-0")
    else:
        client.xgroup_destroy(topic, GROUP)


def test_a_stream_that_is_not_there_yet_is_waited_for(client: redis.Redis, topic: str, opened: Opened) -> None:
    with closing(opened().batches(topic, None)) as reading:
        assert next(reading) is None
        ids = added(client, topic, 1)
        batch = next(reading)
        assert batch is not None
        assert offsets([batch]) == ids


def test_from_the_latest_on_is_from_where_it_was_first_looked_at(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    added(client, topic, 10)
    batches, position = drained(opened(start="latest"), topic)
    assert offsets(batches) == []
    assert position is not None
    ids = added(client, topic, 3, first=11)
    batches, _ = drained(opened(start="latest"), topic, position)
    assert offsets(batches) == ids


def test_what_was_trimmed_unread_is_told_with_its_ids(client: redis.Redis, topic: str, opened: Opened) -> None:
    added(client, topic, 10)
    _, position = drained(opened(), topic)
    ids = added(client, topic, 10, first=11)
    client.xtrim(topic, minid="16-0", approximate=False)
    batches, position = drained(opened(), topic, position)
    reason = "5 of these entries were trimmed or deleted before we read them"
    assert [loss for batch in batches for loss in batch.lost] == [
        Loss(topic, "0", "10-1", "15-18446744073709551615", reason)
    ]
    assert offsets(batches) == ids[5:]
    client.xtrim(topic, maxlen=0, approximate=False)
    batches, _ = drained(opened(), topic, position)
    assert [batch.lost for batch in batches] == []


def test_a_capped_stream_that_is_kept_up_with_loses_nothing(client: redis.Redis, topic: str, opened: Opened) -> None:
    position = None
    for first in range(1, 50, 5):
        ids = added(client, topic, 5, first=first)
        client.xtrim(topic, maxlen=5, approximate=False)
        batches, position = drained(opened(), topic, position)
        assert offsets(batches) == ids
        assert not any(batch.lost for batch in batches)


def test_what_was_delivered_and_deleted_before_it_was_stored_is_told(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    ids = added(client, topic, 10)
    client.xgroup_create(topic, GROUP, "0")
    client.xreadgroup(GROUP, "churnguard-dead", {topic: ">"}, count=8)
    client.xdel(topic, *ids[2:5])
    batches, _ = drained(opened(), topic)
    (loss,) = (loss for batch in batches for loss in batch.lost)
    assert (loss.first, loss.last) == ("3-0", "5-0")
    assert offsets(batches) == ids[:2] + ids[5:]


def test_what_was_delivered_and_trimmed_before_it_was_stored_is_told_once(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    ids = added(client, topic, 10)
    client.xgroup_create(topic, GROUP, "0")
    client.xreadgroup(GROUP, "churnguard-dead", {topic: ">"}, count=8)
    client.xtrim(topic, minid="6-0", approximate=False)
    batches, _ = drained(opened(), topic, {"id": "2-0", "added": 2})
    (loss,) = (loss for batch in batches for loss in batch.lost)
    assert (loss.first, loss.last) == ("2-1", "5-18446744073709551615")
    assert loss.reason.startswith("3 of these")
    assert offsets(batches) == ids[5:]


def test_after_a_seek_between_entries_nobody_can_tell_whether_something_was_trimmed(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    added(client, topic, 1)
    ids = added(client, topic, 1, first=20)
    position = opened().sought(Seek({topic: "10-0"}))[topic]
    client.xtrim(topic, maxlen=1, approximate=False)
    batches, _ = drained(opened(), topic, position)
    (loss,) = (loss for batch in batches for loss in batch.lost)
    assert not loss.certain
    assert offsets(batches) == ids


def test_a_stream_that_has_come_to_the_highest_id_rests(client: redis.Redis, topic: str, opened: Opened) -> None:
    client.xadd(topic, {"value": "1"}, id=f"{2**64 - 1}-{2**64 - 1}")
    _, position = drained(opened(), topic)
    assert drained(opened(), topic, position) == ([], position)


def test_a_stream_whose_end_was_deleted_is_at_its_end(client: redis.Redis, topic: str, opened: Opened) -> None:
    """Nobody comes again and again for entries that are not there."""
    ids = added(client, topic, 10)
    client.xdel(topic, *ids[7:])
    source = opened()
    batches, position = drained(source, topic)
    assert offsets(batches) == ids[:7]
    assert position is not None
    assert source.watermarks({topic: position})[topic].behind == 0


@pytest.mark.parametrize(
    ("how", "anew"),
    [
        ("deleted", []),
        ("begun anew", [(1, 50)]),
        ("begun anew with higher ids", [(1001, 50)]),
        ("begun anew with more entries", [(1001, 150)]),
        ("a replica's without our last ones", [(1, 95), (101, 10)]),
    ],
)
def test_a_stream_that_is_another_one_stops_and_says_the_choice(
    client: redis.Redis, topic: str, opened: Opened, how: str, anew: list[tuple[int, int]]
) -> None:
    added(client, topic, 100)
    _, position = drained(opened(), topic)
    client.delete(topic)
    for first, count in anew:
        added(client, topic, count, first)
    with pytest.raises(SourceChanged, match="churnguard streams seek acme-events --to earliest"):
        drained(opened(), topic, position)


def test_a_key_that_a_pattern_means_may_go_and_come_again(client: redis.Redis, topic: str, opened: Opened) -> None:
    added(client, topic, 100)
    source = opened(topics=["events:*"])
    _, position = drained(source, topic)
    client.delete(topic)
    (gone,), position = drained(source, topic, position)
    (loss,) = gone.lost
    assert (gone.messages, loss.first, loss.certain) == ((), "100-1", False)
    assert "deleted or has expired" in loss.reason
    ids = added(client, topic, 3)
    batches, _ = drained(source, topic, position)
    assert offsets(batches) == ids
    assert [batch.lost for batch in batches if batch.lost] == []
    assert min(message.version for batch in batches for message in batch.messages) > 100


def test_an_entry_that_ends_the_process_is_given_alone_and_in_the_end_with_a_defect(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    """Whoever holds entry 40 dies. Nothing else is rejected, and it does not go on for ever."""
    ids = added(client, topic, 100)
    position: Position | None = None
    stored: list[str] = []
    deaths = 0
    graveyard = []
    while True:
        source = opened()
        reading = source.batches(topic, position)
        graveyard.append(reading)  # a dead process closes nothing
        for batch in reading:
            if batch is None:
                break
            held = {message.offset: message.defect for message in batch.messages}
            if "40-0" in held and held["40-0"] is None:
                deaths += 1
                break
            stored += [f"{offset} {defect[:9]}" if defect else offset for offset, defect in held.items()]
            position = batch.position
        if batch is None:
            break
        assert deaths < 20
    assert stored == [*ids[:39], "40-0 each of 8", *ids[40:]]


def test_a_batch_that_could_not_be_stored_for_hours_is_not_held_to_be_deadly(
    client: redis.Redis, topic: str, opened: Opened
) -> None:
    """The warehouse is away: each turn gives its batch back."""
    ids = added(client, topic, 10)
    for _ in range(15):
        reading = opened().batches(topic, None)
        assert next(reading) is not None
        reading.close()
    batches, _ = drained(opened(), topic)
    assert offsets(batches) == ids
    assert not any(message.defect for batch in batches for message in batch.messages)
